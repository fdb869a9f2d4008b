package redisstreams_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// What is due and does not fit into a claim, because older messages were left by others, stays due.
func TestDueIsKept(t *testing.T) {
	const each, ackWait = 10, time.Second
	s := startServer(t, "default")
	c := s.client(t)
	b := s.open(t)
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{{Topic: "orders", Group: "g", Order: pubsub.OrderNone, AckWait: ackWait}}}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * each {
		if err := b.Publish(t.Context(), "orders", pubsub.Message{ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	read := func(consumer string) {
		t.Helper()
		args := &redis.XReadGroupArgs{Group: "g", Consumer: consumer, Streams: []string{"orders", ">"}, Count: each}
		if err := c.XReadGroup(t.Context(), args).Err(); err != nil {
			t.Fatal(err)
		}
	}
	read("crashed")
	read("leaving")
	if err := redisstreams.Leave(t.Context(), c, "orders", "g", "leaving"); err != nil { // these are due, and newer than what was left
		t.Fatal(err)
	}
	time.Sleep(ackWait) // what "crashed" has is idle for that long
	var mu sync.Mutex
	seen := map[string]bool{}
	mustSubscribe(t, b, pubsub.Subscription{Topic: "orders", Group: "g", Order: pubsub.OrderNone, AckWait: ackWait, MaxInFlight: 4}, func(_ context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		seen[d.ID] = true
		return nil
	})
	await(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) == 2*each })
}

