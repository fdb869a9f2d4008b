package bench

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A tally counts what the handlers of one group get. Its handle may be called concurrently.
type tally struct {
	n, size int
	work    time.Duration
	seen    []atomic.Uint32 // by number; nil where payloads are too short to carry one
	last    []atomic.Uint64 // per key: the number handled last, plus one; nil = no order to check

	handled, strange, disorder atomic.Int64

	spoiled map[int]bool // keys that are not asked for
	want    int          // of the n

	first func()        // called by the first handler
	each  func(num int) // called for each message the first time that it is handled
	done  func()        // called once: all n have been handled, or something came that nobody sent
	once  sync.Once
}

func newTally(n int, sh Shape) *tally {
	t := &tally{n: n, want: n, size: sh.Size, work: sh.Work}
	if sh.Poisoned > 0 {
		t.spoiled = sh.spoiled(n)
		for i := range n {
			if t.spoiled[i%sh.Keys] {
				t.want--
			}
		}
	}
	if sh.Size >= stampSize {
		t.seen = make([]atomic.Uint32, n)
		if sh.Keys > 0 {
			t.last = make([]atomic.Uint64, sh.Keys)
		}
	}
	return t
}

// handle is what a subscriber does with a message: it reads the payload, and works for as long as the shape says.
func (t *tally) handle(p []byte) {
	if t.work > 0 {
		time.Sleep(t.work) //nolint:forbidigo // the work of a handler that waits for something else
	}
	num := uint64(0)
	if len(p) != t.size {
		t.refuse()
		return
	}
	if t.seen != nil {
		num = binary.LittleEndian.Uint64(p)
		if num >= uint64(t.n) || p[len(p)-1] != byte(num) {
			t.refuse()
			return
		}
		if t.spoiled != nil && t.spoiled[int(num)%len(t.last)] {
			return
		}
		if t.seen[num].Add(1) > 1 {
			return // a message counts once
		}
		if t.last != nil {
			if prev := t.last[num%uint64(len(t.last))].Swap(num + 1); prev > num+1 {
				t.disorder.Add(1)
			}
		}
	}
	if t.each != nil {
		t.each(int(num))
	}
	switch t.handled.Add(1) {
	case 1:
		if t.first != nil {
			t.first()
		}
		if t.want == 1 {
			t.once.Do(t.done)
		}
	case int64(t.want):
		t.once.Do(t.done)
	}
}

// refuse counts a payload that nobody sent: there is nothing more to wait for.
func (t *tally) refuse() {
	t.strange.Add(1)
	t.once.Do(t.done)
}

// verdict says what is wrong with what was handled.
func (t *tally) verdict() error {
	if n := t.strange.Load(); n > 0 {
		return fmt.Errorf("%d payloads are not what was sent", n)
	}
	if got := t.handled.Load(); got < int64(t.want) {
		return fmt.Errorf("lost: %d of %d confirmed messages were handled", got, t.want)
	}
	if n := t.disorder.Load(); n > 0 {
		return fmt.Errorf("%d messages were handled after a later one of their key", n)
	}
	return nil
}
