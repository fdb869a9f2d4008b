package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// passing is a middleware that does nothing: with one, batches and Receive loops run coroutines.
func passing() []pubsub.Middleware {
	return []pubsub.Middleware{{Name: "passing", Incoming: func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error { return next(ctx, d) }
	}}}
}

func publish(t *testing.T, b *pubsub.Broker, n int) {
	t.Helper()
	for i := range n {
		if err := b.Publish(t.Context(), "t", pubsub.Message{Key: "k", Payload: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
}

// settled waits until the group has nothing left.
func settled(t *testing.T, b *pubsub.Broker) {
	t.Helper()
	for range 1000 {
		synctest.Wait()
		lag, err := b.Lag(t.Context(), "t", "g")
		if err != nil {
			t.Fatal(err)
		}
		if lag.Messages == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond) // of the bubble
	}
	t.Fatal("messages are left")
}

func TestGoexitInAHandlerIsAFailure(t *testing.T) {
	fails := func(calls *atomic.Int32) {
		if calls.Add(1) == 1 {
			runtime.Goexit()
		}
	}
	for name, subscribe := range map[string]func(*pubsub.Broker, pubsub.Subscription, *atomic.Int32) error{
		"handler": func(b *pubsub.Broker, s pubsub.Subscription, calls *atomic.Int32) error {
			_, err := b.Subscribe(context.Background(), s, func(context.Context, *pubsub.Delivery) error { fails(calls); return nil })
			return err
		},
		"batch": func(b *pubsub.Broker, s pubsub.Subscription, calls *atomic.Int32) error {
			_, err := b.SubscribeBatch(context.Background(), s, pubsub.Batch{}, func(context.Context, []*pubsub.Delivery) error { fails(calls); return nil })
			return err
		},
		"middleware of a batch": func(b *pubsub.Broker, s pubsub.Subscription, calls *atomic.Int32) error {
			s.Use = []pubsub.Middleware{{Name: "fails", Incoming: func(next pubsub.Handler) pubsub.Handler {
				return func(ctx context.Context, d *pubsub.Delivery) error { fails(calls); return next(ctx, d) }
			}}}
			_, err := b.SubscribeBatch(context.Background(), s, pubsub.Batch{}, func(context.Context, []*pubsub.Delivery) error { return nil })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := memory.New(&pubsub.Options{Use: passing()})
				defer b.Close()
				var calls atomic.Int32
				if err := subscribe(b, pubsub.Subscription{Topic: "t", Group: "g"}, &calls); err != nil {
					t.Fatal(err)
				}
				publish(t, b, 2)
				settled(t, b)
				if n := calls.Load(); n < 2 {
					t.Errorf("called %d times: the message was not tried again", n)
				}
				if n := deadLetters(t, b); n != 0 {
					t.Errorf("%d dead letters", n)
				}
			})
		})
	}
}

func deadLetters(t *testing.T, b *pubsub.Broker) (n int) {
	t.Helper()
	for _, err := range b.Browse(t.Context(), pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceDead}, pubsub.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

func TestPanicInAReceiveLoopEndsTheConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&pubsub.Options{Use: passing()})
		defer b.Close()
		sub := pubsub.Subscription{Topic: "t", Group: "g"}
		loop, err := b.Receive(t.Context(), sub)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, b, 1)
		func() {
			defer func() { _ = recover() }()
			for range loop {
				panic("in the loop")
			}
		}()
		var got atomic.Int32
		if _, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error { got.Add(1); return nil }); err != nil {
			t.Fatal(err)
		}
		settled(t, b)
		if got.Load() != 1 {
			t.Errorf("the next member got %d messages: the loop's consumer has it still", got.Load())
		}
	})
}

func TestLeavingAReceiveLoopWhoseConsumerFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b, err := s.Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		loop, err := b.Receive(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
		if err != nil {
			t.Fatal(err)
		}
		publish(t, b, 1)
		for range loop {
			s.DeleteTopic("t")
			time.Sleep(time.Minute) // past the grace of a topic that vanished
			break                   // must not be told anything more: that would panic
		}
	})
}

// The bubble does not end while a coroutine is left.
func TestReceiveLoopThatOutlivesItsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(&pubsub.Options{Use: passing(), DrainTimeout: time.Second})
		loop, err := b.Receive(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
		if err != nil {
			t.Fatal(err)
		}
		publish(t, b, 1)
		for range loop {
			if err := b.Close(); !errors.Is(err, pubsub.ErrTimeout) {
				t.Errorf("Close says %v, not that a lease is out", err)
			}
		}
	})
}

// A middleware of a batch that calls next again when all is over gets the outcome that there was: it must not panic.
func TestNextCalledAfterABatchIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late []func() error
		b := memory.New(&pubsub.Options{Use: []pubsub.Middleware{{Name: "late", Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				late = append(late, func() error { return next(ctx, d) })
				return next(ctx, d)
			}
		}}}})
		defer b.Close()
		_, err := b.SubscribeBatch(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"}, pubsub.Batch{}, func(context.Context, []*pubsub.Delivery) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		publish(t, b, 3)
		settled(t, b)
		if len(late) != 3 {
			t.Fatalf("%d messages passed the middleware", len(late))
		}
		for _, next := range late {
			if err := next(); err != nil {
				t.Errorf("next returned %v, not the outcome", err)
			}
		}
	})
}

func TestKeptDeliveriesStayValid(t *testing.T) {
	for _, use := range [][]pubsub.Middleware{nil, passing()} {
		synctest.Test(t, func(t *testing.T) {
			b := memory.New(&pubsub.Options{Use: use})
			defer b.Close()
			var mu sync.Mutex
			var kept []*pubsub.Delivery
			_, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", MaxInFlight: 4}, func(_ context.Context, d *pubsub.Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				kept = append(kept, d)
				if d.Attempt == 1 && len(kept)%10 == 0 {
					return errors.New("again")
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			publish(t, b, 1000)
			settled(t, b)
			mu.Lock()
			defer mu.Unlock()
			seen := map[string]bool{}
			for _, d := range kept {
				what := fmt.Sprintf("%s of %d", d.Payload, d.Attempt)
				if seen[what] {
					t.Fatalf("two deliveries became the same: %s", what)
				}
				seen[what] = true
				if string(d.Raw().Payload) != string(d.Payload) {
					t.Fatalf("Raw is %s, the message %s", d.Raw().Payload, d.Payload)
				}
			}
			if len(seen) != len(kept) || len(kept) <= 1000 {
				t.Fatalf("%d deliveries, %d different", len(kept), len(seen))
			}
		})
	}
}

func TestSessionDroppedInQuarantineIsNoProcessKiller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b, err := s.Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		starts := make(chan struct{}, 10)
		var calls atomic.Int32
		_, err = b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Retry: pubsub.Policy{MaxAttempts: 2}},
			func(ctx context.Context, _ *pubsub.Delivery) error {
				starts <- struct{}{}
				if calls.Add(1) > 4 {
					return nil
				}
				<-ctx.Done() // until its session drops
				return ctx.Err()
			})
		if err != nil {
			t.Fatal(err)
		}
		publish(t, b, 1)
		for range 4 { // two in the topic, then two in the quarantine
			<-starts
			s.DropSessions()
		}
		settled(t, b)
		<-starts
		if n := deadLetters(t, b); n != 0 {
			t.Errorf("%d dead letters, although no process ended", n)
		}
	})
}

// undecodable is a connection whose records cannot be decoded.
type undecodable struct{ pubsub.Driver }

func (d undecodable) OpenSource(ctx context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	src, err := d.Driver.OpenSource(ctx, s)
	return badSource{src}, err
}

type badSource struct{ pubsub.Source }

func (s badSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := s.Source.Recv(ctx, buf, maxBytes)
	for i := range buf[:n] {
		buf[i].Bad = errors.New("not ours")
	}
	return n, events, err
}

func TestRouteSeesTheUndecodableMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := pubsub.New(t.Context(), undecodable{memory.NewServer(memory.Config{}).Driver()}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var routed, told []string
		_, err = b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", DeadLetter: pubsub.DeadLetter{
			Route:        func(d *pubsub.Delivery, _ error) string { routed = append(routed, string(d.Payload)); return "" },
			OnDeadLetter: func(d *pubsub.Delivery, _ error) { told = append(told, string(d.Payload)) },
		}}, func(context.Context, *pubsub.Delivery) error { t.Error("the handler is called"); return nil })
		if err != nil {
			t.Fatal(err)
		}
		publish(t, b, 2)
		synctest.Wait()
		if want := []string{"0", "1"}; !slices.Equal(routed, want) || !slices.Equal(told, want) {
			t.Errorf("Route saw %q, OnDeadLetter %q", routed, told)
		}
	})
}

// wrapping is a Publisher of the user's, around another.
type wrapping struct{ pubsub.Publisher }

func TestDeadLettersGoThroughAPublisherThatWrapsABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, other := memory.New(nil), memory.New(nil)
		defer other.Close()
		defer b.Close()
		if err := other.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "failed"}}}); err != nil {
			t.Fatal(err)
		}
		_, err := b.Subscribe(t.Context(), pubsub.Subscription{
			Topic: "t", Group: "g", DeadLetter: pubsub.DeadLetter{Topic: "failed", To: wrapping{other}},
		}, func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errors.New("bad")) })
		if err != nil {
			t.Fatal(err)
		}
		publish(t, b, 2)
		settled(t, b)
		n := 0
		for r, err := range other.Browse(t.Context(), pubsub.Place{Topic: "failed"}, pubsub.Position{}) {
			if err != nil || r.Msg.Headers.Get("omnibus-dlq-reason") != "permanent" {
				t.Errorf("%v, %v", r.Msg, err)
			}
			n++
		}
		if n != 2 {
			t.Errorf("%d dead letters, want 2", n)
		}
	})
}
