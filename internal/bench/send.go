package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// offers says whether the client can publish in a form.
func (t *trial) offers(f Form) error {
	switch {
	case f == Async && t.c.Stream == nil:
		return NotOffered("no asynchronous publish")
	case f == Batched && t.c.PublishBatch == nil:
		return NotOffered("no publish of a batch")
	case f == Blocking && t.c.Publish == nil:
		return NotOffered("no blocking publish")
	}
	return nil
}

// send publishes the n messages and returns when the last is confirmed. Anything that is not makes it fail.
func (t *trial) send(ctx context.Context, f Form) error {
	var confirmed atomic.Int64
	var err error
	switch f {
	case Async:
		err = t.stream(ctx, &confirmed)
	case Batched:
		buf := make([]Message, 0, batchSize)
		for i := 0; i < t.n && err == nil; i += len(buf) {
			buf = buf[:0]
			for j := i; j < min(i+batchSize, t.n); j++ {
				buf = append(buf, t.all.message(j))
			}
			var n int
			n, err = t.c.PublishBatch(ctx, t.topic, buf)
			confirmed.Add(int64(n))
		}
	default:
		var next atomic.Int64
		callers := max(t.sh.Callers, 1)
		err = together(callers, func(caller int) error {
			for own := 0; ; own++ {
				i := own
				if t.sh.Keys == 0 {
					i = int(next.Add(1)) - 1
				}
				if i >= t.n {
					return nil
				}
				if t.sh.Keys > 0 && i%t.sh.Keys%callers != caller { // another one's key: it keeps the order
					continue
				}
				if err := t.c.Publish(ctx, t.topic, t.all.message(i)); err != nil {
					return err
				}
				confirmed.Add(1)
			}
		})
	}
	if got := confirmed.Load(); err == nil && got != int64(t.n) {
		err = fmt.Errorf("%d of %d messages were confirmed", got, t.n)
	}
	return err
}

func (t *trial) stream(ctx context.Context, confirmed *atomic.Int64) error {
	var failed atomic.Pointer[error]
	st, err := t.c.Stream(ctx, t.topic, func(n int, err error) {
		if err != nil {
			kept := err // the address of err itself would cost every answer an allocation
			failed.CompareAndSwap(nil, &kept)
			return
		}
		confirmed.Add(int64(n))
	})
	if err != nil {
		return err
	}
	for i := range t.n {
		if err := st.Send(t.all.message(i)); err != nil {
			return err
		}
	}
	err = st.Flush(ctx)
	if e := failed.Load(); e != nil {
		err = errors.Join(*e, err)
	}
	return err
}

// together runs f n times at once and returns the first error.
func together(n int, f func(i int) error) error {
	if n == 1 {
		return f(0)
	}
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for i := range n {
		wg.Go(func() {
			if err := f(i); err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	wg.Wait()
	return first
}
