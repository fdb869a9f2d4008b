package redisstreams_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/poll"
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
	poll.Until(t, "all are handled", func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) == 2*each })
}

// Only the owner of an exclusive lane claims what is pending there.
func TestClaimIsFenced(t *testing.T) {
	s := startServer(t, "default")
	c := s.client(t)
	if err := c.XGroupCreateMkStream(t.Context(), "orders", "g", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.XAdd(t.Context(), &redis.XAddArgs{Stream: "orders", Values: []string{"payload", "x"}}).Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "g", Consumer: "owner", Streams: []string{"orders", ">"}}).Err(); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		lease string
		want  int
	}{{"owner", 0}, {"me", 1}} {
		if err := c.Set(t.Context(), redisstreams.LeaseKey("orders", "g"), x.lease, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if n, err := redisstreams.Claim(t.Context(), c, "orders", "g", "me", 10); n != x.want || err != nil {
			t.Errorf("the lease is that of %s: %d were claimed, %v", x.lease, n, err)
		}
	}
}

// More than a script can hand on is due at once: when many were left.
func TestManyLeft(t *testing.T) {
	const messages = 9000
	s := startServer(t, "default")
	c := s.client(t)
	b := s.open(t)
	sub := pubsub.Subscription{Topic: "orders", Group: "g", Order: pubsub.OrderNone, MaxInFlight: 2 * messages}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	pipe := c.Pipeline()
	for range messages {
		pipe.XAdd(t.Context(), &redis.XAddArgs{Stream: "orders", Values: []string{"payload", "x"}})
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "g", Consumer: "leaving", Streams: []string{"orders", ">"}, Count: messages}).Err(); err != nil {
		t.Fatal(err)
	}
	if err := redisstreams.Leave(t.Context(), c, "orders", "g", "leaving"); err != nil {
		t.Fatal(err)
	}
	var got received
	mustSubscribe(t, b, sub, got.handle)
	got.await(t, messages)
}
