package rabbitmq_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A group that keeps an order goes on while any one node of the cluster is away, also that on which all was declared, and new members join it.
func TestMembersWithoutNode(t *testing.T) {
	s := ownServer(t, "cluster")
	b := s.open(t, nil, nil)
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "counted", Partitions: 2}}}); err != nil {
		t.Fatal(err)
	}
	sub := pubsub.Subscription{Topic: "counted", Group: "g", Order: pubsub.OrderByKey}
	var got atomic.Int64
	handle := func(context.Context, *pubsub.Delivery) error { got.Add(1); return nil }
	first, err := b.Subscribe(t.Context(), sub, handle)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, "counted", "a", "b", "c")
	poll.Until(t, "the first messages", func() bool { return got.Load() == 3 })
	if err := s.Nodes()[0].Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // the others take a while to find that it is gone
	defer cancel()
	second, err := s.open(t, nil, nil).Subscribe(ctx, sub, handle)
	if err != nil {
		t.Fatalf("a member that joins while a node is away: %v", err)
	}
	publish(t, b, "counted", "d", "e", "f")
	poll.Until(t, "the next messages", func() bool { return got.Load() >= 6 })
	for _, m := range []*pubsub.Consumer{first, second} {
		if err := m.Err(); err != nil {
			t.Errorf("a member ended: %v", err)
		}
	}
}
