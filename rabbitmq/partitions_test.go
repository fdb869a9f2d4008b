package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What a topic has in its further partitions reaches the patterns that cover the topic, no other, and where there is none its publisher is told.
func TestPartitionIsNoTopic(t *testing.T) {
	const n = 30
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	topics := []pubsub.TopicSpec{{Name: "orders", Partitions: 3}}
	subscribe := func(topic string, group string, want bool) *atomic.Int64 {
		got := new(atomic.Int64)
		_, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: topic, Group: group}, func(_ context.Context, d *pubsub.Delivery) error {
			if !want || d.Topic != "orders" {
				t.Errorf("%s came from %s by %s", d.ID, d.Topic, topic)
			}
			got.Add(1)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	send := func(delay time.Duration) (errs []error) {
		for i := range n {
			errs = append(errs, b.Publish(t.Context(), "orders", pubsub.Message{ID: fmt.Sprint(i), Key: fmt.Sprint("key-", i), Delay: delay}))
		}
		return errs
	}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: topics}); err != nil {
		t.Fatal(err)
	}
	subscribe("*.>", "longer", false)
	for i, err := range send(0) {
		if !errors.Is(err, pubsub.ErrUnroutable) {
			t.Errorf("message %d, which no group takes: %v", i, err)
		}
	}
	all, own, live := subscribe(">", "all", true), subscribe("orders", "own", true), subscribe("orders", pubsub.Broadcast, true)
	for _, delay := range []time.Duration{0, 200 * time.Millisecond} {
		for i, err := range send(delay) {
			if err != nil {
				t.Errorf("message %d: %v", i, err)
			}
		}
		want := int64(n)
		if delay > 0 {
			want = 2 * n
		}
		poll.Until(t, "all partitions", func() bool { return all.Load() == want && own.Load() == want && live.Load() == want })
	}
}

// A group that keeps an order is read in all its partitions where it is used as it is, also by somebody who may hold fewer messages than there are partitions.
func TestPartitionsUnmanaged(t *testing.T) {
	const n = 20
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	order := pubsub.Topology{
		Topics: []pubsub.TopicSpec{{Name: "asis", Partitions: 4}}, Groups: []pubsub.Subscription{{Topic: "asis", Group: "g", Order: pubsub.OrderByKey}},
	}
	if err := b.Ensure(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := b.Publish(t.Context(), "asis", pubsub.Message{ID: fmt.Sprint(i), Key: fmt.Sprint("key-", i)}); err != nil {
			t.Fatal(err)
		}
	}
	spec := pubsub.SourceSpec{
		From: pubsub.Place{Topic: "asis", Group: "g"}, Order: pubsub.OrderByKey, AckWait: time.Minute, MaxInFlight: 2, MaxInFlightBytes: 1 << 20, Member: "m", Manage: pubsub.Off,
	}
	src := source(t, s.openDriver(t), spec)
	held, seen := recv(t, src, 2), map[string]bool{}
	for len(held) > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		for ctx.Err() == nil { // whatever comes beside lane events
			if got, _, err := src.Recv(ctx, make([]pubsub.Record, n), 1<<20); got > 0 {
				t.Errorf("%d messages and 2 more are ours, and MaxInFlight is 2", got)
			} else if err != nil {
				break
			}
		}
		cancel()
		for _, r := range held {
			seen[r.Msg.ID] = true
			settle(t, src, pubsub.Settlement{Token: r.Token, As: pubsub.SettleAck})
		}
		held = recv(t, src, min(2, n-len(seen)))
	}
	if len(seen) != n {
		t.Errorf("%d of %d messages came", len(seen), n)
	}
	if err := src.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
