package pubsub_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/internal/deadevent"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// told are the dead letters whose replays have succeeded, as their group's place has it.
func told(t *testing.T, b *pubsub.Broker) (ids []string) {
	t.Helper()
	for r, err := range b.Browse(t.Context(), pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceState}, pubsub.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		e, ok := deadevent.Decode(r.Msg.Type, r.Msg.Payload)
		if !ok || e.Operation != deadevent.Resolved || len(e.IDs) != len(e.Messages) {
			t.Errorf("%+v", e)
		}
		ids = append(ids, e.IDs...)
	}
	slices.Sort(ids)
	return ids
}

// Every form of a subscription tells of replays that succeed, and of nothing else.
func TestEachFormTellsOfReplays(t *testing.T) {
	const n = 20
	want := make([]string, 0, n)
	for i := range n {
		want = append(want, fmt.Sprintf("dead-%02d", i))
	}
	for _, order := range []pubsub.Order{pubsub.OrderByKey, pubsub.OrderByKeyLoose, pubsub.OrderNone, pubsub.OrderStrict} {
		for name, consume := range map[string]func(ctx context.Context, b *pubsub.Broker, sub pubsub.Subscription) error{
			"handlers": func(ctx context.Context, b *pubsub.Broker, sub pubsub.Subscription) error {
				_, err := b.Subscribe(ctx, sub, func(context.Context, *pubsub.Delivery) error { return nil })
				return err
			},
			"batches": func(ctx context.Context, b *pubsub.Broker, sub pubsub.Subscription) error {
				_, err := b.SubscribeBatch(ctx, sub, pubsub.Batch{Max: 7, Wait: time.Second}, func(context.Context, []*pubsub.Delivery) error { return nil })
				return err
			},
			"pull": func(ctx context.Context, b *pubsub.Broker, sub pubsub.Subscription) error {
				seq, err := b.Receive(ctx, sub)
				go func() {
					for l, err := range seq {
						if err == nil {
							_ = l.Settle(ctx, nil)
						}
					}
				}()
				return err
			},
		} {
			t.Run(fmt.Sprint(order, "/", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := memory.NewServer(memory.Config{})
					b := open(t, s)
					defer b.Close()
					ctx, stop := context.WithCancel(t.Context())
					defer stop()
					sub := pubsub.Subscription{Topic: "t", Group: "g", Order: order, Concurrency: 3}
					if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
						t.Fatal(err)
					}
					expired := pubsub.Message{TTL: time.Second, Headers: pubsub.Headers{{Name: "omnibus-replay-of", Value: "expired"}}}
					if err := b.Publish(t.Context(), "t", expired); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute) // of the bubble
					if err := consume(ctx, b, sub); err != nil {
						t.Fatal(err)
					}
					for i, id := range want {
						m := pubsub.Message{ID: fmt.Sprint(i), Key: fmt.Sprint("k", i%3)}
						for _, h := range []pubsub.Headers{nil, {{Name: "omnibus-replay-of", Value: id}}} {
							m.Headers = h
							if err := b.DeliverTo(t.Context(), "t", "g", m); err != nil {
								t.Fatal(err)
							}
						}
					}
					time.Sleep(time.Minute)
					if got := told(t, b); !slices.Equal(got, want) {
						t.Errorf("told are %v", got)
					}
					if lag, err := b.Lag(t.Context(), "t", "g"); err != nil || lag.Messages != 0 {
						t.Errorf("%+v, %v: replays are not acked", lag, err)
					}
				})
			})
		}
	}
}

// A drain waits for the outcomes of what has run, and a broadcast, which has no dead letters, tells of none.
func TestDrainTellsOfReplays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b, other := open(t, s), open(t, s)
		defer b.Close()
		defer other.Close()
		live, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: pubsub.Broadcast}, func(context.Context, *pubsub.Delivery) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		ran := make(chan struct{})
		c, err := other.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"}, func(context.Context, *pubsub.Delivery) error {
			s.Refuse(2, pubsub.ErrUnavailable)
			close(ran)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(t.Context(), "t", pubsub.Message{Headers: pubsub.Headers{{Name: "omnibus-replay-of", Value: "dead"}}}); err != nil {
			t.Fatal(err)
		}
		<-ran
		if err := c.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if err := live.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if got := told(t, b); !slices.Equal(got, []string{"dead"}) {
			t.Errorf("told are %v", got)
		}
	})
}
