package redisstreams_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// What one replica has handled no other handles when somebody sends it again, nor does one that has started meanwhile.
func TestReplayAcrossReplicas(t *testing.T) {
	const n = 20
	s := startServer(t, "default")
	k, err := security.GenerateKey(security.Ed25519, "orders-1", "orders")
	if err != nil {
		t.Fatal(err)
	}
	ring, err := security.NewKeyring(k)
	if err != nil {
		t.Fatal(err)
	}
	var handled, replays atomic.Int64
	replica := func() *pubsub.Broker {
		b, err := redisstreams.Open(t.Context(), s.address(nil), &pubsub.Options{Use: []pubsub.Middleware{
			security.Sign(security.SignOptions{Keys: ring}),
			security.Replay(security.ReplayOptions{
				Store: redisstreams.NewDedupStore(s.client(t)), Window: time.Hour, OnReplay: func(*pubsub.Delivery) { replays.Add(1) },
			}),
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() }) // two are closed by the test
		sub := pubsub.Subscription{Topic: "orders", Group: "g", Order: pubsub.OrderNone, Concurrency: 4}
		if _, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error { handled.Add(1); return nil }); err != nil {
			t.Fatal(err)
		}
		return b
	}
	counts := func(what string, want, replayed int64) {
		t.Helper()
		poll.Holds(poll.Patience, func() bool { return handled.Load() >= want && replays.Load() >= replayed })
		if handled.Load() != want || replays.Load() != replayed {
			t.Fatalf("%s: %d were handled and %d were replays, want %d and %d", what, handled.Load(), replays.Load(), want, replayed)
		}
	}
	first, second := replica(), replica()
	attacker := s.open(t)
	signs := security.Sign(security.SignOptions{Keys: ring, Producer: "orders"})
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i] = pubsub.Message{ID: string(rune('a' + i)), Type: "order", Payload: []byte("x"), Time: time.Now()}
		if err := signs.Outgoing(t.Context(), "orders", &msgs[i]); err != nil {
			t.Fatal(err)
		}
	}
	send := func() {
		t.Helper()
		if err := attacker.PublishBatch(t.Context(), "orders", msgs); err != nil {
			t.Fatal(err)
		}
	}
	send()
	counts("at first", n, 0)
	send()
	counts("sent again", n, n)
	for _, b := range []*pubsub.Broker{first, second} {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	replica()
	send()
	counts("after a restart", n, 2*n)
}

// A purge removes what a browse has shown, and nothing that came into another partition while it read.
func TestPurgeLeavesWhatNoBrowseHasShown(t *testing.T) {
	s := startServer(t, "default")
	b, c := s.open(t), s.client(t)
	ctx := t.Context()
	if err := b.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "orders", Partitions: 2}}}); err != nil {
		t.Fatal(err)
	}
	place := pubsub.Place{Topic: "orders", Group: "g", Kind: pubsub.PlaceDead}
	add := func(lane int32, id string) {
		t.Helper()
		entry := &redis.XAddArgs{Stream: redisstreams.PlaceKey(place, lane), Values: []any{":id", id}}
		if err := c.XAdd(ctx, entry).Err(); err != nil {
			t.Fatal(err)
		}
	}
	ids := func(each func()) (all []string, last pubsub.Position) {
		t.Helper()
		for r, err := range b.Browse(ctx, place, pubsub.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			all, last = append(all, r.Msg.ID), r.Pos
			each()
		}
		return all, last
	}
	const page = 128 // of which the second partition has a whole one: it is read once more
	add(0, "first")
	for range page {
		add(1, "old")
	}
	var meanwhile sync.Once
	shown, upTo := ids(func() { meanwhile.Do(func() { add(0, "unseen"); add(1, "newest") }) })
	if len(shown) < page+1 {
		t.Fatalf("%d dead letters are shown, and %d were there before", len(shown), page+1)
	}
	if err := b.Purge(ctx, place, upTo); err != nil {
		t.Fatal(err)
	}
	left, _ := ids(func() {})
	for _, id := range []string{"unseen", "newest"} {
		if slices.Contains(shown, id) == slices.Contains(left, id) {
			t.Errorf("%q: shown %v, left %v; up to %v", id, slices.Contains(shown, id), slices.Contains(left, id), upTo)
		}
	}
	if len(shown)+len(left) != page+3 {
		t.Errorf("%d were shown, %d are left, %d were there", len(shown), len(left), page+3)
	}
}
