package pubsub

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// A worker runs handlers, one at a time, under a context of its own that is replaced only when it had to be ended.
type worker struct {
	c      *Consumer
	ctx    context.Context
	cancel context.CancelCauseFunc
	item   *item     // that it works on; its first, in a batch
	batch  []*item   // all of them, in a batch
	since  time.Time // when the handler was called
	now    time.Time // read once a message: when the last handler returned, or the worker woke up
	ended  error     // why its context was ended
	stuck  bool
}

// now is the time by the monotonic clock alone, which takes half as long to read as both. It is compared with other times of this process only.
func (c *Consumer) now() time.Time { return c.begun.Add(time.Since(c.begun)) }

// spawn starts a worker if there is something to do for one more. mu is held.
func (c *Consumer) spawn() {
	if c.pulls || c.ready.n == 0 || c.idle > 0 || len(c.workers) >= c.sub.Concurrency || c.stopped || c.draining {
		return
	}
	w := &worker{c: c, now: c.now()}
	w.ctx, w.cancel = context.WithCancelCause(c.base)
	c.workers = append(c.workers, w)
	if c.batch != nil {
		go w.runBatches()
	} else {
		go w.runSingles()
	}
}

// take waits for an item; nil means that the consumer has ended. mu is held.
func (w *worker) take() *item {
	c := w.c
	for {
		if c.stopped {
			return nil
		}
		if it := c.next(w.now); it != nil {
			c.wakeWorkers()
			return it
		}
		c.flushIdle()
		c.idle++
		c.cond.Wait()
		c.idle--
		w.now = c.now()
	}
}

// flushIdle flushes what is settled when nothing else will come soon. mu is held.
func (c *Consumer) flushIdle() {
	if c.running > 0 {
		return
	}
	for _, f := range c.feeds {
		if len(f.settles) > 0 {
			f.kickSettler()
		}
	}
}

func (w *worker) runSingles() {
	c := w.c
	defer w.leave()
	c.mu.Lock()
	for it := w.take(); it != nil; it = w.take() {
		w.begin(it)
		c.mu.Unlock()
		v := c.work(w.ctx, it)
		w.now = c.now()
		c.mu.Lock()
		w.finish()
		c.conclude(it, v, w.now)
		if v.kind != verdictAck || len(c.observe) > 0 {
			w.now = c.now() // it may have taken a while
		}
	}
	c.mu.Unlock() // not deferred: a handler that calls runtime.Goexit leaves with mu released
}

// errGoexit is the failure of a handler that ends its goroutine, as testing's FailNow does.
var errGoexit = errors.New("the handler called runtime.Goexit")

// leave ends the worker. If its handler called runtime.Goexit, that is a failure like another, and another worker takes over.
func (w *worker) leave() {
	defer w.cancel(nil)
	if w.item == nil {
		return
	}
	c, items := w.c, w.batch
	if items == nil {
		items = []*item{w.item}
	}
	verdicts := make([]verdict, len(items))
	for i, it := range items {
		err := errGoexit
		if it.co != nil {
			err = it.co.finish(errGoexit)
		}
		verdicts[i] = c.decide(w.ctx, it, err)
	}
	w.now = c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.workers = slices.DeleteFunc(c.workers, func(o *worker) bool { return o == w })
	w.finish()
	for i, it := range items {
		c.conclude(it, verdicts[i], w.now)
	}
	c.spawn()
}

// begin notes that the handler is called. mu is held.
func (w *worker) begin(it *item) {
	w.item, it.run = it, w
	w.since = w.now
	if d := w.c.sub.HandlerTimeout; d != Forever {
		w.c.watch.set(w.since.Add(d))
	}
	if it.first.IsZero() {
		it.first = w.since
	}
}

// finish notes that the handler has returned. mu is held.
func (w *worker) finish() {
	w.item.run, w.item = nil, nil
	for _, it := range w.batch {
		it.run = nil
	}
	w.batch = nil
	if w.stuck {
		w.stuck = false
		w.c.stuck--
	}
	if w.ended != nil {
		w.ended = nil
		w.ctx, w.cancel = context.WithCancelCause(w.c.base)
	}
}

// end ends the context of the handler that runs. mu is held.
func (w *worker) end(err error) {
	if w.ended == nil {
		w.ended = err
		w.cancel(err)
	}
}

// overdue ends handlers that take too long.
func (c *Consumer) overdue() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch.at = time.Time{}
	now := time.Now()
	for _, w := range c.workers {
		if w.item == nil || w.stuck {
			continue
		}
		if due := w.since.Add(c.sub.HandlerTimeout); due.After(now) {
			c.watch.set(due)
			continue
		}
		w.stuck = true
		c.stuck++
		w.end(&Error{Op: "handle", Broker: c.b.name, Topic: w.item.rec.Topic, Code: ErrTimeout,
			Err: fmt.Errorf("the handler of message %s takes longer than %v", w.item.rec.Msg.ID, c.sub.HandlerTimeout)})
	}
}

// work does what is to be done with an item, and says what becomes of it.
func (c *Consumer) work(ctx context.Context, it *item) verdict {
	switch it.job {
	case taskDeadLetter:
		v := it.why
		v.kind, v.counts = verdictDead, false // the failure is counted already
		return v
	case taskQuarantine:
		return verdict{kind: verdictQuarantine}
	case taskExpire:
		return verdict{kind: verdictAck, expired: true}
	case taskResolve:
		return verdict{kind: verdictAck}
	}
	start := c.delivered(it)
	err := c.call(ctx, it)
	v := c.decide(ctx, it, err)
	if len(c.observe) > 0 {
		v.took = time.Since(start)
	}
	return v
}

// delivered tells observers that a handler is called.
func (c *Consumer) delivered(it *item) (start time.Time) {
	if len(c.observe) > 0 {
		start = time.Now()
		c.emit(Event{Kind: EventDelivered, Count: 1, Bytes: int64(len(it.rec.Msg.Payload)), Attempt: it.d.Attempt})
	}
	return start
}

// call runs the middleware and the handler.
func (c *Consumer) call(ctx context.Context, it *item) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = newPanic(r)
		}
	}()
	it.d.ctx = ctx
	return c.chain(ctx, it.d)
}

// A panicError is a handler's panic.
type panicError struct {
	value any
	stack []byte
}

func newPanic(v any) *panicError { return &panicError{v, debug.Stack()} }

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

func (p *panicError) Unwrap() error {
	err, _ := p.value.(error)
	return err
}

// as stores the driver's own message in target, while the item is still about the same message.
func (it *item) as(use uint64, target any) bool {
	it.feed.c.mu.Lock()
	src, token, still := it.feed.src, it.rec.Token, it.use == use
	it.feed.c.mu.Unlock()
	a, ok := src.(RecordAser)
	return still && ok && a.RecordAs(token, target)
}
