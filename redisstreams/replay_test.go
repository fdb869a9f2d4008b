package redisstreams_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

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
	until := func(what string, want, replayed int64) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); handled.Load() < want || replays.Load() < replayed; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				break
			}
		}
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
	until("at first", n, 0)
	send()
	until("sent again", n, n)
	for _, b := range []*pubsub.Broker{first, second} {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	replica()
	send()
	until("after a restart", n, 2*n)
}
