package rabbitmq_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// The queue of a live tail goes with its only consumer: a drain, which ends that, needs it no more.
func TestBroadcastDrains(t *testing.T) {
	const n = 200
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	var got atomic.Int64
	c, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "parcels", Group: pubsub.Broadcast, Order: pubsub.OrderPerMember},
		func(context.Context, *pubsub.Delivery) error { got.Add(1); return nil })
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, n)
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	publish(t, b, "parcels", ids...)
	poll.Until(t, "all messages", func() bool { return got.Load() == n })
	if err := c.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}
