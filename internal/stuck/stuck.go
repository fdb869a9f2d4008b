// Package stuck ends calls of a client that do not end with their context: those that write to a connection which nobody reads.
package stuck

import (
	"context"
	"sync/atomic"
	"time"
)

// After is how long a call may go on when its context has ended.
const After = 200 * time.Millisecond

// A Watch watches calls that are made one after the other.
type Watch struct {
	cut   func()
	calls atomic.Uint64 // counts twice; odd while one goes on
	done  <-chan struct{}
	stop  func() bool
}

// New returns a Watch that calls cut, from another goroutine, for a call that is stuck.
func New(cut func()) *Watch { return &Watch{cut: cut, stop: func() bool { return true }} }

// Begin says that a call begins. Where it has the context of the one before, as nearly all have, that costs next to nothing.
func (w *Watch) Begin(ctx context.Context) {
	w.calls.Add(1)
	if ctx.Done() == w.done {
		return
	}
	w.stop()
	w.done = ctx.Done()
	w.stop = context.AfterFunc(ctx, func() {
		n := w.calls.Load()
		if n%2 == 0 {
			return
		}
		time.AfterFunc(After, func() {
			if w.calls.Load() == n {
				w.cut()
			}
		})
	})
}

// End says that the call has ended.
func (w *Watch) End() { w.calls.Add(1) }

// Close forgets the last context.
func (w *Watch) Close() { w.stop() }
