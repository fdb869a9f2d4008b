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

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// The partner allows 50 requests a second, whichever subscription makes them.
func ExampleRateLimit() {
	limit := middleware.RateLimit(50, 1)
	b := memory.New(&pubsub.Options{Use: []pubsub.Middleware{limit}})
	defer b.Close()
	var wg sync.WaitGroup
	wg.Add(5)
	ask := func(context.Context, *pubsub.Delivery) error { wg.Done(); return nil }
	if _, err := b.Subscribe(context.Background(), pubsub.Subscription{Topic: "quotes", Group: "asks"}, ask); err != nil {
		fmt.Println(err)
	}
	start := time.Now()
	for range 5 {
		if err := b.Publish(context.Background(), "quotes", pubsub.Message{}); err != nil {
			fmt.Println(err)
		}
	}
	wg.Wait()
	fmt.Println(time.Since(start) >= 4*20*time.Millisecond)
	// Output: true
}

// Two subscriptions share four connections.
func ExampleConcurrencyLimit() {
	pool := middleware.ConcurrencyLimit(4)
	b := memory.New(nil)
	defer b.Close()
	var running, most atomic.Int32
	var wg sync.WaitGroup
	wg.Add(40)
	for _, group := range []string{"billing", "shipping"} {
		sub := pubsub.Subscription{Topic: "orders", Group: group, Concurrency: 10, Use: []pubsub.Middleware{pool}}
		_, err := b.Subscribe(context.Background(), sub, func(context.Context, *pubsub.Delivery) error {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			running.Add(-1)
			wg.Done()
			return nil
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	for range 20 {
		if err := b.Publish(context.Background(), "orders", pubsub.Message{}); err != nil {
			fmt.Println(err)
		}
	}
	wg.Wait()
	fmt.Println(most.Load() <= 4)
	// Output: true
}

// At no time more than burst + rate × time, in each form; nothing is lost, nothing is a failure.
func TestRateLimit(t *testing.T) {
	for _, rate := range []float64{10, 0.5} { // a wait within the handler, and a pause
		for _, form := range []string{"handler", "batch"} {
			t.Run(fmt.Sprint(rate, " a second, ", form), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const n, burst = 20, 3
					b := pubsubtest.Open(t, opts(middleware.RateLimit(rate, burst)))
					sub := pubsub.Subscription{Topic: "t", Group: "g", Order: pubsub.OrderNone, Concurrency: 4}
					var msgs []pubsub.Message
					for i := range n {
						msgs = append(msgs, message(fmt.Sprint(i)))
					}
					var mu sync.Mutex
					var at []time.Duration
					start := time.Now()
					handle := func() {
						mu.Lock()
						at = append(at, time.Since(start))
						mu.Unlock()
					}
					var fates []pubsubtest.Fate
					if form == "handler" {
						fates = b.Deliver(sub, func(context.Context, *pubsub.Delivery) error { handle(); return nil }, msgs...)
					} else {
						fates = b.DeliverBatch(sub, pubsub.Batch{Max: 5}, func(_ context.Context, ds []*pubsub.Delivery) error {
							for range ds {
								handle()
							}
							return nil
						}, msgs...)
					}
					for _, f := range fates {
						if !f.Acked || f.Attempts != 1 {
							t.Errorf("%v", f)
						}
					}
					for i, when := range at {
						if allowed := burst + rate*when.Seconds(); float64(i+1) > allowed+1e-6 {
							t.Errorf("%d messages after %v, at most %v", i+1, when, allowed)
						}
					}
					if ideal := time.Duration((n - burst) / rate * float64(time.Second)); len(at) != n || at[n-1] > ideal*3/2 {
						t.Errorf("%d messages, the last after %v instead of %v", len(at), at[len(at)-1], ideal)
					}
				})
			})
		}
	}
}

// Never more than n at once over both subscriptions, in each form, and no deadlock where one batch wants more slots than there are.
func TestConcurrencyLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, messages = 3, 40
		limit := middleware.ConcurrencyLimit(n)
		b := pubsubtest.Open(t, opts(limit), "t")
		var running, most, handled atomic.Int32
		work := func(k int) {
			if now := running.Add(int32(k)); now > most.Load() {
				most.Store(now)
			}
			time.Sleep(50 * time.Millisecond)
			running.Add(-int32(k))
			handled.Add(int32(k))
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		sub := pubsub.Subscription{Topic: "t", Order: pubsub.OrderNone, Concurrency: 5}
		sub.Group = "one"
		if _, err := b.Subscribe(ctx, sub, func(context.Context, *pubsub.Delivery) error { work(1); return nil }); err != nil {
			t.Fatal(err)
		}
		sub.Group = "batch"
		if _, err := b.SubscribeBatch(ctx, sub, pubsub.Batch{Max: 10}, func(_ context.Context, ds []*pubsub.Delivery) error { work(len(ds)); return nil }); err != nil {
			t.Fatal(err)
		}
		sub.Group = "pull"
		loop, err := b.Receive(ctx, sub)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for lease, err := range loop {
				if err != nil {
					t.Error(err)
					return
				}
				work(1)
				if err := lease.Settle(context.WithoutCancel(ctx), nil); err != nil {
					t.Error(err)
				}
			}
		}()
		for i := range messages {
			if err := b.Publish(ctx, "t", message(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		for range 1000 {
			if handled.Load() == 3*messages {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		stop()
		<-ended
		if handled.Load() != 3*messages || most.Load() != n {
			t.Errorf("%d handled of %d, %d at once, want %d", handled.Load(), 3*messages, most.Load(), n)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel() // whoever finds no slot does not wait
		depth := 0
		var h pubsub.Handler
		h = wrap(func(ctx context.Context, d *pubsub.Delivery) error {
			if depth++; depth < n {
				return h(ctx, d)
			}
			return nil
		}, limit)
		if err := h(over, &pubsub.Delivery{}); err != nil {
			t.Errorf("%d slots are free at the end, want %d", depth, n)
		}
	})
}

// Whoever waits for a turn when the consumer drains goes back uncounted, and holds nothing.
func TestLimitsAndDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := middleware.ConcurrencyLimit(1)
		for name, layer := range map[string]pubsub.Middleware{"concurrency": slots, "rate": middleware.RateLimit(2, 1)} {
			ctx, cancel := context.WithCancelCause(t.Context())
			release := make(chan struct{})
			h := wrap(func(context.Context, *pubsub.Delivery) error { <-release; return nil }, layer)
			var wg sync.WaitGroup
			wg.Go(func() { _ = h(t.Context(), &pubsub.Delivery{}) })
			synctest.Wait()
			wg.Go(func() {
				err := h(ctx, &pubsub.Delivery{})
				if o, _ := pubsub.OutcomeOf(err); o != pubsub.OutcomeSnooze {
					t.Errorf("%s: %v", name, err)
				}
			})
			synctest.Wait()
			cancel(errors.New("draining"))
			synctest.Wait()
			close(release)
			wg.Wait()
			time.Sleep(time.Second)
			if err := h(t.Context(), &pubsub.Delivery{}); err != nil {
				t.Errorf("%s: the next one: %v", name, err)
			}
		}
	})
}
