package pubsub

import (
	"context"
	"iter"
)

// A coroutine runs one message's middleware chain around something that is not a function call: a batch, or the body of a Receive loop.
// start runs the chain down to where the handler would be called; finish gives it the handler's result and lets it return.
// It is a coroutine of iter.Pull: no channel, no scheduler, about 250 ns a message.
type coroutine struct {
	next     func() (struct{}, bool)
	yield    func(struct{}) bool
	ctx      context.Context
	d        *Delivery
	outcome  error // what the user made of the message, once finished
	finished bool
	err      error // what the chain returned
}

// callUser is the handler at the bottom of such a chain: it hands over to whoever runs the coroutine.
func callUser(ctx context.Context, d *Delivery) error {
	co := d.item.co
	d.ctx = ctx
	if !co.finished { // else a middleware calls next again: it gets the same outcome
		co.yield(struct{}{})
	}
	return co.outcome
}

func newCoroutine(chain Handler) *coroutine {
	co := &coroutine{err: errGoexit} // unless it returns
	co.next, _ = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			if r := recover(); r != nil {
				co.err = newPanic(r)
			}
		}()
		co.yield = yield
		co.err = chain(co.ctx, co.d)
	})
	return co
}

// start says whether the chain has come down to the handler; else it has returned already.
func (co *coroutine) start(ctx context.Context, d *Delivery) bool {
	co.ctx, co.d = ctx, d
	d.ctx, d.item.co, d.late = ctx, co, true
	_, down := co.next()
	return down
}

// finish lets the chain return with the user's outcome, and returns what it made of it.
func (co *coroutine) finish(outcome error) error {
	co.outcome, co.finished = outcome, true
	co.next()
	return co.err
}
