package middleware

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// slotPause is how long a batch or a Receive loop pauses when there is no slot.
const slotPause = 20 * time.Millisecond

// ConcurrencyLimit lets n messages at a time be with the handlers of all subscriptions that use this layer together; n is at least 1. A
// message that finds no slot waits where it is; in a batch and a Receive loop, where the slots may be held by messages of the
// same loop, it stays in front and the subscription pauses for 20 ms. Neither counts as a failure. A batch has a slot for each of its messages.
//
// Do not use it for one subscription: its Concurrency does the same, and fetches no more than it needs. Use it where several share what can take
// only so much, such as a pool of connections. The wait counts against HandlerTimeout.
//
// It costs about 70 ns and no allocation.
func ConcurrencyLimit(n int) pubsub.Middleware {
	m := pubsub.Middleware{
		Name: "concurrency", After: []string{"breaker", "dedup", "rate-limit"},
		Why: "a message that waits for its turn, or is not to be handled at all, would hold a slot",
	}
	if n < 1 {
		m.Err = fmt.Errorf("the limit is %d; it is at least 1", n)
	}
	slots := make(chan struct{}, max(n, 1))
	errFull := errors.New("all slots of the concurrency limit are taken")
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			select {
			case slots <- struct{}{}:
			default:
				if d.Deferred() {
					return pubsub.Pause(slotPause, errFull)
				}
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return pubsub.Snooze(0, context.Cause(ctx))
				}
			}
			defer func() { <-slots }()
			return next(ctx, d)
		}
	}
	return m
}
