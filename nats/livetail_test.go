package nats_test

import (
	"context"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What a live tail has acked before its connection broke is remembered for nobody: the next session has another consumer.
func TestLiveTailLeavesNothing(t *testing.T) {
	s := ownServer(t, "default")
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	b := s.open(t)
	for group, want := range map[string]int{pubsub.Broadcast: 0, "g": 1} {
		spec := pubsub.SourceSpec{
			From: pubsub.Place{Topic: "seen", Group: group}, Order: pubsub.OrderNone, AckWait: time.Minute, MaxInFlight: 10, MaxInFlightBytes: 1 << 20, Member: "m" + group,
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		src, err := d.OpenSource(ctx, spec)
		for ; err != nil; src, err = d.OpenSource(ctx, spec) { // the connection of the round before
			if _, final := d.Classify(err); final || ctx.Err() != nil {
				t.Fatal(err)
			}
		}
		if err := b.Publish(ctx, "seen", pubsub.Message{ID: "a"}); err != nil {
			t.Fatal(err)
		}
		buf, n := make([]pubsub.Record, 1), 0
		for n == 0 {
			if n, _, err = src.Recv(ctx, buf, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if err := src.Settle(ctx, []pubsub.Settlement{{Token: buf[0].Token, As: pubsub.SettleAck}}, make([]error, 1)); err != nil {
			t.Fatal(err)
		}
		if err := s.Cut(); err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, _, err = src.Recv(ctx, buf, 1<<20)
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		_ = src.Close(ctx) // its connection is gone
		if got := nats.Remembered(d); got != want {
			t.Errorf("of %s the acks of %d consumers are remembered, want %d", group, got, want)
		}
		if err := s.Mend(); err != nil {
			t.Fatal(err)
		}
	}
}

// A live tail reads on behind what is settled.
func TestLiveTailGoesOn(t *testing.T) {
	s := ownServer(t, "default")
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	adaptertest.TestLiveTail(t, s.Broker, s.open(t), d)
}
