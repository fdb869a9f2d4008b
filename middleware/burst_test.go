package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

// Where no message may overtake another one, what is given up again and again does not hold up what lies behind it for ever; and what of it
// becomes a dead letter is one message per Open.
func TestBreakerBurstInOrder(t *testing.T) {
	for name, order := range map[string]pubsub.Order{"strict": pubsub.OrderStrict, "two keys": pubsub.OrderByKey} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const burst, bad, all = 3, 6, 100
				b := pubsubtest.Open(t, opts(middleware.Breaker(middleware.BreakerOptions{Burst: burst, Open: time.Minute})))
				var msgs []pubsub.Message
				for i := range all {
					m := message(fmt.Sprint("m-", i))
					m.Key = fmt.Sprint("k-", i%2)
					msgs = append(msgs, m)
				}
				var mu sync.Mutex
				var probes []time.Time
				fates := b.Deliver(pubsub.Subscription{Topic: "t", Group: "g", Order: order}, func(_ context.Context, d *pubsub.Delivery) error {
					for i := range bad {
						if d.ID == fmt.Sprint("m-", i) {
							mu.Lock()
							probes = append(probes, time.Now())
							mu.Unlock()
							return pubsub.Permanent(errFailed)
						}
					}
					return nil
				}, msgs...)
				for i, f := range fates {
					if i < bad && f.Reason != "permanent" || i >= bad && !f.Acked || f.Elapsed > 15*time.Minute {
						t.Errorf("%d: %v", i, f)
					}
				}
				for i := burst; i < len(probes); i++ {
					if after := probes[i].Sub(probes[i-1]); after < time.Minute {
						t.Errorf("message %d was given up only %v after the one before it", i, after)
					}
				}
			})
		})
	}
}

// A message that is given up by a handler that began before the circuit opened and closed again says nothing about the time since.
func TestBreakerBurstOfAnEarlierState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		h := wrap(func(_ context.Context, d *pubsub.Delivery) error {
			switch d.Type {
			case "slow":
				time.Sleep(50 * time.Second)
				return pubsub.Permanent(errFailed)
			case "bad":
				return pubsub.Permanent(errFailed)
			case "down":
				return errPartner
			}
			return nil
		}, middleware.Breaker(middleware.BreakerOptions{Burst: 2, Open: 10 * time.Second, OnChange: func(c middleware.Circuit) {
			if c.State == middleware.CircuitOpen {
				opened++
			}
		}}))
		do := func(n int, typ string) (err error) {
			for range n {
				err = h(t.Context(), &pubsub.Delivery{Message: pubsub.Message{Type: typ}})
			}
			return err
		}
		slow := make(chan error, 1)
		go func() { slow <- do(1, "slow") }()
		time.Sleep(time.Second)
		_ = do(10, "down")
		time.Sleep(11 * time.Second)
		_ = do(1, "well")
		time.Sleep(30 * time.Second)
		_ = do(1, "bad")
		if o, _ := pubsub.OutcomeOf(<-slow); o != pubsub.OutcomePermanent {
			t.Errorf("the outcome of the slow one is %v", o)
		}
		time.Sleep(6 * time.Hour)
		_ = do(50, "well")
		if o, _ := pubsub.OutcomeOf(do(1, "down")); o == pubsub.OutcomePause || opened != 1 {
			t.Errorf("one failure among 51 results has the outcome %v, and the circuit opened %d times", o, opened)
		}
	})
}

// What a circuit keeps in mind of a burst has an end.
func TestBreakerKeepsAThousandProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		says := pubsub.Permanent(errFailed)
		h := wrap(func(context.Context, *pubsub.Delivery) error { return says }, middleware.Breaker(middleware.BreakerOptions{Burst: 1}))
		probe := func(i int) pubsub.Outcome {
			time.Sleep(time.Minute)
			o, _ := pubsub.OutcomeOf(h(t.Context(), &pubsub.Delivery{Message: pubsub.Message{ID: fmt.Sprint(i)}}))
			return o
		}
		if o := probe(-1); o != pubsub.OutcomePause {
			t.Errorf("what opens it has the outcome %v", o)
		}
		for range 2 { // the second time behind a success, which forgets them
			kept := 0
			for i := range 1003 {
				if probe(i) == pubsub.OutcomeSnooze {
					kept++
				}
			}
			if kept != 1000 {
				t.Errorf("%d of 1003 probes were kept", kept)
			}
			says = nil
			probe(-1)
			says = pubsub.Permanent(errFailed)
			probe(-1)
		}
	})
}
