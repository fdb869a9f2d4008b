package pubsub

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"
	"time"
)

// A Lease is a delivery pulled with Receive. It must be settled; leaving the loop hands the unsettled ones back.
type Lease struct{ *Delivery }

// Settle ends the lease with a handler's outcome: nil acks, any error goes the way it would from a Handler, through the
// middleware. A second call does nothing and returns nil. ErrLeaseLost says that the broker has given the message to someone else, or
// may have. nil says that the outcome is on its way to the broker: settlements are sent together, within a millisecond.
func (l Lease) Settle(ctx context.Context, outcome error) error {
	it := l.item
	if it == nil {
		return &Error{Op: "settle", Topic: l.Topic, Code: ErrInvalid, Err: errors.New("this delivery does not come from Receive")}
	}
	if err := ctx.Err(); err != nil {
		return &Error{Op: "settle", Topic: l.Topic, Code: ErrCanceled, Err: context.Cause(ctx)}
	}
	return it.feed.c.settleLease(it, outcome)
}

// leaseState is where the lease of an item stands.
type leaseState uint8

const (
	notPulled   leaseState = iota // a handler has it
	pulled                        // the Receive loop has it
	pulledEnded                   // and has settled it
)

// Receive returns once the subscription is live, see Subscriber.
func (b *Broker) Receive(ctx context.Context, sub Subscription) (iter.Seq2[Lease, error], error) {
	c, err := b.newConsumer(ctx, sub, callUser)
	if err != nil {
		return nil, err
	}
	c.sub.HandlerTimeout = Forever // the loop's pace is its own
	c.pulls = true
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	var used atomic.Bool
	return func(yield func(Lease, error) bool) {
		if used.Swap(true) {
			yield(Lease{}, invalidOn(b, "receive", sub.Topic, errors.New("the sequence was ranged over already"), "call Receive again"))
			return
		}
		over := false
		defer func() {
			if !over { // left by break, return or panic: nobody can be told
				_ = c.endReceive(ctx)
			}
		}()
		for it := c.pull(ctx); it != nil; it = c.pull(ctx) {
			if !yield(Lease{it.d}, nil) {
				return
			}
		}
		over = true
		if err := c.endReceive(ctx); ctx.Err() == nil && c.Err() != nil {
			yield(Lease{}, err)
		}
	}, nil
}

// endReceive hands back what the loop left unsettled, and ends the consumer.
func (c *Consumer) endReceive(ctx context.Context) error {
	drainCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.b.opts.DrainTimeout)
	defer cancel()
	c.handBack()
	err := c.Drain(drainCtx)
	if failure := c.Err(); failure != nil {
		err = failure
	}
	if err != nil {
		c.log.Warn("a Receive loop ended", "err", err)
	}
	return err
}

// pull waits for the next lease; nil means that the consumer ends.
func (c *Consumer) pull(ctx context.Context) *item {
	wake := func() {
		c.mu.Lock()
		c.cond.Broadcast()
		c.mu.Unlock()
	}
	defer context.AfterFunc(ctx, wake)()
	defer context.AfterFunc(c.life, wake)()
	c.mu.Lock()
	for {
		if ctx.Err() != nil || c.life.Err() != nil || c.stopped {
			c.mu.Unlock()
			return nil
		}
		it := c.next(time.Now())
		if it == nil {
			c.flushIdle()
			c.idle++
			c.cond.Wait()
			c.idle--
			continue
		}
		itemCtx, cancel := context.WithCancelCause(c.base)
		it.cancel, it.pulled = cancel, pulled
		c.leases[it] = struct{}{}
		c.mu.Unlock()
		if it.job == taskHandle {
			c.delivered(it)
			if newCoroutine(c.chain).start(itemCtx, it.d) {
				return it
			}
		}
		c.endLease(it, nil) // settled by its middleware, or not for the handler at all
		c.mu.Lock()
	}
}

func (c *Consumer) settleLease(it *item, outcome error) error {
	c.mu.Lock()
	switch it.pulled {
	case notPulled:
		c.mu.Unlock()
		return &Error{Op: "settle", Broker: c.b.name, Topic: it.rec.Topic, Code: ErrInvalid, Err: errors.New("a handler's delivery is settled by what the handler returns")}
	case pulledEnded:
		c.mu.Unlock()
		return nil
	}
	it.pulled = pulledEnded
	lost := it.takenAway() || it.state == itemGone || it.leaseOver(time.Now())
	c.mu.Unlock()
	c.endLease(it, outcome)
	if lost {
		return &Error{Op: "settle", Broker: c.b.name, Topic: it.rec.Topic, Code: ErrLeaseLost, Hint: "it will be, or was, delivered again"}
	}
	return nil
}

// endLease lets the middleware finish with the outcome and carries out what it makes of it.
func (c *Consumer) endLease(it *item, outcome error) {
	var v verdict
	if it.co != nil {
		v = c.decide(it.d.Context(), it, it.co.finish(outcome))
	} else {
		v = c.work(c.base, it)
	}
	c.mu.Lock()
	it.cancel(nil)
	it.cancel = nil
	delete(c.leases, it)
	if it.state != itemGone {
		c.conclude(it, v, time.Now())
	}
	if c.running == 0 {
		c.flushIdle()
	}
	c.mu.Unlock()
}

// handBack releases the leases that the loop left unsettled, also those that the consumer no longer holds: their middleware is to end.
func (c *Consumer) handBack() {
	c.mu.Lock()
	var left []*item
	for it := range c.leases {
		if it.pulled == pulled {
			it.pulled = pulledEnded
			it.cancel(errDrained)
			left = append(left, it)
		}
	}
	c.mu.Unlock()
	for _, it := range left {
		c.endLease(it, errDrained)
	}
}
