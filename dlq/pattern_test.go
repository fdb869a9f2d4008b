package dlq_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A group that reads a pattern has one place for the dead letters of all its topics.
func TestReplayToAGroupOfAPattern(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		sub := pubsub.Subscription{Topic: "orders.*", Group: "billing"}
		if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "orders.eu"}, {Name: "orders.us"}}}); err != nil {
			t.Fatal(err)
		}
		var in inbox
		var topics []string
		subscribe(t, b, sub, func(ctx context.Context, d *pubsub.Delivery) error {
			if d.Headers.Get("omnibus-replays") == "" {
				return pubsub.Permanent(errDeclined)
			}
			topics = append(topics, d.Topic)
			return in.handle(ctx, d)
		})
		for _, topic := range []string{"orders.eu", "orders.us"} {
			if err := b.Publish(t.Context(), topic, pubsub.Message{ID: topic}); err != nil {
				t.Fatal(err)
			}
		}
		settle(t, b, sub)
		q := dlq.Open(b, "orders.*", "billing")
		plan, err := q.Plan(t.Context(), dlq.Filter{Topic: "orders.us"}, dlq.Replay{})
		if err != nil || plan.Count != 1 || plan.Sample[0].Topic != "orders.us" || plan.Sample[0].Group != "billing" {
			t.Fatalf("%+v, %v", plan, err)
		}
		if rep, err := plan.Run(t.Context()); err != nil || rep.Replayed != 1 {
			t.Fatalf("%+v, %v", rep, err)
		}
		settle(t, b, sub)
		if got := in.all(); len(got) != 1 || got[0].ID != "orders.us" || !slices.Equal(topics, []string{"orders.us"}) || got[0].Headers.Get("omnibus-topic") != "" {
			t.Errorf("%+v of %q", got, topics)
		}
	})
}
