package middleware

import (
	"context"
	"fmt"
	"math"
	"time"

	"golang.org/x/time/rate"

	"github.com/omnibus-go/omnibus/pubsub"
)

// patience is how long RateLimit waits within a handler; for a longer time it pauses the subscription.
const patience = time.Second

// RateLimit lets perSecond messages a second pass to the handlers of all subscriptions that use this layer together, and up to burst at once.
// Both are more than 0. A message that is early waits where it is, with its key's turn, for up to a second; where it would be longer, and in
// a batch and a Receive loop, it stays in front and the subscription pauses until then. Neither counts as a failure. Attempts and retries are messages like others.
//
// Do not use it to slow down a handler that is slow by itself: Concurrency bounds that. It counts in this process only: with n members the
// partner sees n times the rate. The wait counts against HandlerTimeout.
//
// A message that need not wait costs about 150 ns and no allocation.
func RateLimit(perSecond float64, burst int) pubsub.Middleware {
	m := pubsub.Middleware{
		Name: "rate-limit", After: []string{"breaker", "dedup"},
		Why: "messages that an open circuit turns away, and duplicates, would use up the rate",
	}
	switch {
	case !(perSecond > 0) || math.IsInf(perSecond, 1):
		m.Err = fmt.Errorf("the rate is %v a second; it is more than 0 and finite", perSecond)
	case burst < 1:
		m.Err = fmt.Errorf("the burst is %d; it is at least 1", burst)
	}
	limiter := rate.NewLimiter(rate.Limit(perSecond), burst)
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			if !limiter.Allow() {
				if err := turn(ctx, d, limiter); err != nil {
					return err
				}
			}
			return next(ctx, d)
		}
	}
	return m
}

// turn waits until the limiter lets one more pass, or says for how long to pause.
func turn(ctx context.Context, d *pubsub.Delivery, limiter *rate.Limiter) error {
	r := limiter.Reserve()
	wait := r.Delay()
	if wait > patience || d.Deferred() {
		r.Cancel()
		return pubsub.Pause(wait, fmt.Errorf("the rate limit of %v a second is used up", float64(limiter.Limit())))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		r.Cancel()
		return pubsub.Snooze(0, context.Cause(ctx))
	}
}
