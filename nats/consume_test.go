package nats_test

import (
	"context"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Messages that lie in the client's buffer while handlers are slow keep their leases, and the server has more than one out.
func TestSlowHandlersGetEachMessageOnce(t *testing.T) {
	s := startServer(t, "default")
	for _, concurrency := range []int{1, 4} {
		t.Run("concurrency="+strconv.Itoa(concurrency), func(t *testing.T) {
			const all = 20
			topic := "slow-" + strconv.Itoa(concurrency)
			b := s.open(t)
			sub := pubsub.Subscription{Topic: topic, Group: "g", AckWait: time.Second, Concurrency: concurrency}
			if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
				t.Fatal(err)
			}
			for i := range all {
				if err := b.Publish(t.Context(), topic, pubsub.Message{Key: strconv.Itoa(i)}); err != nil {
					t.Fatal(err)
				}
			}
			var calls atomic.Int64
			if _, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error {
				calls.Add(1)
				time.Sleep(200 * time.Millisecond) // of work, each: 20 of them are more than a lease
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			js := s.jetStream(t.Context(), t)
			most := 0
			poll.Until(t, "all is settled", func() bool {
				c, err := js.Consumer(t.Context(), "omnibus", topic+"__g")
				if err != nil {
					t.Fatal(err)
				}
				info := c.CachedInfo()
				most = max(most, info.NumAckPending)
				return info.NumPending == 0 && info.NumAckPending == 0
			})
			poll.Holds(1500*time.Millisecond, func() bool { return calls.Load() > all }) // a lease and more: whatever comes again comes
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			if n := calls.Load(); n != all {
				t.Errorf("%d messages made %d deliveries", all, n)
			}
			if most < 2 {
				t.Errorf("the server never had more than %d messages out", most)
			}
		})
	}
}

// A subscription that is cancelled while messages pour in ends, with its goroutines.
func TestCancelledWithBacklog(t *testing.T) {
	const backlog, rounds = 2000, 1000
	s := startServer(t, "default")
	b := s.open(t)
	sub := pubsub.Subscription{Topic: "backlog", Group: "g", Order: pubsub.OrderNone, MaxInFlight: 64, Retry: pubsub.Policy{MaxAttempts: pubsub.Unlimited}}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	if err := b.PublishBatch(t.Context(), "backlog", make([]pubsub.Message, backlog)); err != nil {
		t.Fatal(err)
	}
	run := func() {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c, err := b.Subscribe(ctx, sub, func(context.Context, *pubsub.Delivery) error {
			cancel()
			time.Sleep(time.Millisecond) // of work: more come meanwhile
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		<-c.Done()
		if err := c.Err(); err != nil {
			t.Fatal(err)
		}
		if err := b.PublishBatch(t.Context(), "backlog", make([]pubsub.Message, 10)); err != nil {
			t.Fatal(err)
		}
	}
	run()
	before := runtime.NumGoroutine()
	for range rounds {
		run()
	}
	if !poll.Holds(5*time.Second, func() bool { return runtime.NumGoroutine() <= before+5 }) {
		t.Errorf("%d goroutines after %d subscriptions, %d before", runtime.NumGoroutine(), rounds, before)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
