// Package adaptertest has what the tests of several adapters have in common besides the suite: tests of what only some brokers can be asked, and a few words.
package adaptertest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Unique is a topic that no other run has: the broker may be one that others use.
func Unique(name string) string { return fmt.Sprintf("%s-%x", name, time.Now().UnixNano()) }

// DeadLetters are those of a group.
func DeadLetters(tb testing.TB, b *pubsub.Broker, topic, group string) (all []pubsub.Record) {
	tb.Helper()
	for r, err := range b.Browse(tb.Context(), pubsub.Place{Topic: topic, Group: group, Kind: pubsub.PlaceDead}, pubsub.Position{}) {
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// PublishAll publishes in batches that any broker takes.
func PublishAll(tb testing.TB, b *pubsub.Broker, topic string, msgs []pubsub.Message) {
	tb.Helper()
	for batch := range slices.Chunk(msgs, 500) {
		if err := b.PublishBatch(tb.Context(), topic, batch); err != nil {
			tb.Fatal(err)
		}
	}
}

// Settled says whether a group has nothing before it.
func Settled(tb testing.TB, b *pubsub.Broker, topic, group string) bool {
	tb.Helper()
	lag, err := b.Lag(tb.Context(), topic, group)
	return err == nil && lag.Messages == 0
}

// Receive takes n messages of a subscription, and acks them.
func Receive(tb testing.TB, b *pubsub.Broker, sub pubsub.Subscription, n int) (list []pubsub.Message) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), poll.Patience)
	defer cancel()
	seq, err := b.Receive(ctx, sub)
	if err != nil {
		tb.Fatal(err)
	}
	for d, err := range seq {
		if err != nil {
			tb.Fatalf("after %d messages: %v", len(list), err)
		}
		list = append(list, d.Message)
		if err := d.Settle(ctx, nil); err != nil {
			tb.Fatal(err)
		}
		if len(list) == n {
			return list
		}
	}
	tb.Fatalf("%d messages, want %d", len(list), n)
	return nil
}
