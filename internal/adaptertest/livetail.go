package adaptertest

import (
	"context"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// TestLiveTail cuts the connections of a Broadcast on a broker of its own, for an adapter on which one goes on where its session broke, and one that ends by itself
// is forgotten.
func TestLiveTail(t *testing.T, s *containers.Broker, b *pubsub.Broker, d pubsub.Driver) {
	t.Helper()
	var err error
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := b.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "tail"}}}); err != nil {
		t.Fatal(err)
	}
	publish := func(ids ...string) {
		for _, id := range ids {
			if err := b.Publish(ctx, "tail", pubsub.Message{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
	}
	spec := pubsub.SourceSpec{
		From: pubsub.Place{Topic: "tail", Group: pubsub.Broadcast}, Order: pubsub.OrderNone, AckWait: time.Minute, MaxInFlight: 10, MaxInFlightBytes: 1 << 20, Member: "m",
	}
	var src pubsub.Source
	open := func() {
		src, err = d.OpenSource(ctx, spec)
		for ; err != nil; src, err = d.OpenSource(ctx, spec) { // the broker is not there again yet
			if _, final := d.Classify(err); final || ctx.Err() != nil {
				t.Fatal(err)
			}
		}
	}
	buf := make([]pubsub.Record, 1)
	next := func(want string) {
		t.Helper()
		for n := 0; n == 0; {
			if n, _, err = src.Recv(ctx, buf, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if got := buf[0].Msg.ID; got != want {
			t.Fatalf("%q comes, want %q", got, want)
		}
	}
	settle := func(as pubsub.SettleAs, delay time.Duration) {
		t.Helper()
		if err := src.Settle(ctx, []pubsub.Settlement{{Token: buf[0].Token, As: as, Delay: delay}}, make([]error, 1)); err != nil {
			t.Fatal(err)
		}
	}
	breaks := func() {
		t.Helper()
		if err := s.Cut(); err != nil {
			t.Fatal(err)
		}
		for err = nil; err == nil; {
			_, _, err = src.Recv(ctx, buf, 1<<20)
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		if err := s.Mend(); err != nil {
			t.Fatal(err)
		}
		_ = src.Close(ctx) // its connection is gone
	}
	publish("before")
	open()
	breaks() // before anything has come
	publish("a", "b", "c")
	open()
	next("a")
	settle(pubsub.SettleAck, 0)
	next("b")
	settle(pubsub.SettleRetryIn, time.Hour)
	next("c")
	settle(pubsub.SettleAck, 0)
	breaks()
	publish("d")
	open()
	next("b")
	settle(pubsub.SettleAck, 0)
	next("c") // which nobody knows to be settled
	next("d")
	if err := src.Close(ctx); err != nil {
		t.Fatal(err)
	}
	publish("between")
	open()
	publish("e")
	next("e")
	if err := src.Close(ctx); err != nil {
		t.Fatal(err)
	}
}
