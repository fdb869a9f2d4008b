package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// A handler that suddenly gives up everything, as after a bad deploy, empties no topic into the dead letters: it is stopped after a few, and the
// messages are handled once it is well.
func TestBreakerOpensAtABurst(t *testing.T) {
	for name, key := range map[string]func(*pubsub.Delivery) string{"one circuit": nil, "by type": func(d *pubsub.Delivery) string { return d.Type }} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const burst, all = 5, 200
				var states []middleware.CircuitState
				b := pubsubtest.Open(t, opts(middleware.Breaker(middleware.BreakerOptions{
					Burst: burst, Open: time.Minute, Key: key, OnChange: func(c middleware.Circuit) { states = append(states, c.State) },
				})))
				var msgs []pubsub.Message
				for i := range all {
					msgs = append(msgs, message(fmt.Sprint("m-", i)))
				}
				var calls atomic.Int64
				start := time.Now()
				sub := pubsub.Subscription{Topic: "t", Group: "g", Order: pubsub.OrderNone}
				fates := b.Deliver(sub, func(context.Context, *pubsub.Delivery) error {
					if time.Since(start) < 5*time.Minute {
						calls.Add(1)
						return pubsub.Permanent(errFailed)
					}
					return nil
				}, msgs...)
				dead := 0
				for _, f := range fates {
					switch {
					case f.Reason == "permanent":
						dead++
					case !f.Acked:
						t.Errorf("%v", f)
					}
				}
				if dead != burst-1 {
					t.Errorf("%d messages were given up, want the %d before the one that opens it", dead, burst-1)
				}
				if n := calls.Load(); n < burst+3 || n > burst+6 { // a probe a minute
					t.Errorf("%d calls in five minutes", n)
				}
				if len(states) < 3 || states[0] != middleware.CircuitOpen || states[len(states)-1] != middleware.CircuitClosed {
					t.Errorf("the circuit was %v", states)
				}
			})
		})
	}
}

// Only what the handler gives up within the window counts, and nothing that is expected.
func TestBreakerBurstCounts(t *testing.T) {
	for name, c := range map[string]struct {
		says  error
		pause time.Duration
		opens bool
	}{
		"permanent": {pubsub.Permanent(errFailed), 0, true},
		"slowly":    {pubsub.Permanent(errFailed), 30 * time.Second, false},
		"expected":  {pubsub.Permanent(pubsub.Expected(errFailed)), 0, false},
		"snoozed":   {pubsub.Snooze(time.Second, errFailed), 0, false},
		"well":      {nil, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := wrap(func(context.Context, *pubsub.Delivery) error { return c.says }, middleware.Breaker(middleware.BreakerOptions{Burst: 3}))
				opened := false
				for range 20 {
					time.Sleep(c.pause)
					o, _ := pubsub.OutcomeOf(h(t.Context(), &pubsub.Delivery{}))
					opened = opened || o == pubsub.OutcomePause
				}
				if opened != c.opens {
					t.Errorf("it opens: %v", opened)
				}
			})
		})
	}
	if err := middleware.Breaker(middleware.BreakerOptions{Burst: -1}).Err; err == nil || errors.Is(err, errFailed) {
		t.Errorf("a negative burst: %v", err)
	}
}
