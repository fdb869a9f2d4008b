package kafka_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// TestStuckPartition lets one message of partition 0 be stuck, with more behind it than the member may hold: all that is in partition 1 is handled.
func TestStuckPartition(t *testing.T) {
	const inFlight, behind = 32, 200
	s := startServer(t, "default")
	keys := make([]string, 2)
	for i := 0; keys[0] == "" || keys[1] == ""; i++ {
		key := fmt.Sprint("key", i)
		keys[kafka.PartitionOf(key, 2)] = key
	}
	for _, order := range []pubsub.Order{pubsub.OrderByKey, pubsub.OrderStrict} {
		t.Run(order.String(), func(t *testing.T) {
			b := s.open(t)
			topic := unique("stuck")
			sub := pubsub.Subscription{Topic: topic, Group: "g", Order: order, Concurrency: 4, MaxInFlight: inFlight}
			spec := pubsub.TopicSpec{Name: topic, Partitions: 2}
			if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{sub}}); err != nil {
				t.Fatal(err)
			}
			stop, hangs := make(chan struct{}), make(chan struct{})
			release := sync.OnceFunc(func() { close(stop) })
			defer release()
			var c tally
			_, err := b.Subscribe(t.Context(), sub, func(ctx context.Context, d *pubsub.Delivery) error {
				if d.Type == "hangs" {
					close(hangs)
					<-stop
				}
				return c.handle(ctx, d)
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Publish(t.Context(), topic, pubsub.Message{Key: keys[0], Type: "hangs", Payload: []byte("hangs")}); err != nil {
				t.Fatal(err)
			}
			<-hangs
			var list []pubsub.Message
			for i := range behind {
				for p, key := range keys {
					list = append(list, pubsub.Message{Key: key, Payload: fmt.Append(nil, p, i)})
				}
			}
			if err := b.PublishBatch(t.Context(), topic, list); err != nil {
				t.Fatal(err)
			}
			poll.Until(t, "what is in partition 1", func() bool { return c.count() == behind })
			release()
			poll.Until(t, "what is in partition 0", func() bool { return c.count() == 2*behind+1 })
		})
	}
}
