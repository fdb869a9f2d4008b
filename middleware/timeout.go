package middleware

import (
	"context"
	"fmt"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Timeout ends the handler's context after limit, with ErrTimeout as its cause. An error that the handler returns from then on is an
// ErrTimeout too, for rules and breakers, and a failure like any other; nil is still a success: finished work is not thrown away. limit is more
// than 0; pubsub.Forever is none.
//
// It only asks: a handler that ignores its context goes on, and so does Subscription.HandlerTimeout, which shows it as Stuck. In a batch
// and a Receive loop the time runs from when the message was taken, and the context that ends is Delivery.Context.
//
// Do not use it in place of HandlerTimeout, which costs nothing and counts what hangs again and again; use it where that is not yours to
// set, or for a bound of one layer among others.
//
// It costs about 800 ns and four allocations, for the context and its timer.
func Timeout(limit time.Duration) pubsub.Middleware {
	m := pubsub.Middleware{
		Name: "timeout", After: []string{"retry", "poison", "breaker", "dedup", "rate-limit", "concurrency"},
		Why: "waiting for a turn would count as the handler's time, and rules and breakers would not see that it was a timeout",
	}
	if limit <= 0 {
		m.Err = fmt.Errorf("the limit is %v; it is more than 0 (Forever = none)", limit)
	}
	late := &pubsub.Error{Op: "handle", Code: pubsub.ErrTimeout, Err: fmt.Errorf("the handler takes longer than %v", limit)}
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		if limit == pubsub.Forever {
			return next
		}
		return func(ctx context.Context, d *pubsub.Delivery) error {
			ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
			defer cancel()
			err := next(ctx, d)
			if err != nil && context.Cause(ctx) == error(late) { //nolint:errorlint // this one, not one like it
				err = fmt.Errorf("%w: %w", late, err)
			}
			return err
		}
	}
	return m
}
