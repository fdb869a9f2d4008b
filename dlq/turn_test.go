package dlq_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Processes take turns: while one replays a queue no other does, and one that dies lets the next one go on.
func TestProcessesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b := open(t, s, nil)
		defer b.Close()
		kill(t, b, billing(), 50, 0)
		other := billing()
		other.Group = "audit"
		killThese(t, b, other, pubsub.Message{ID: "of another queue"})
		var in inbox
		subscribe(t, b, billing(), in.handle)
		slow := dlq.Replay{Turn: "turns", Rate: 1}
		begin := func(b *pubsub.Broker) (end context.CancelFunc, ended chan error) {
			ctx, stop := context.WithCancel(t.Context())
			ended = make(chan error, 1)
			go func() {
				_, err := dlq.Open(b, "orders", "billing").Replay(ctx, dlq.Filter{}, slow)
				ended <- err
			}()
			pause(t, 10*time.Second)
			return stop, ended
		}
		first := open(t, s, nil)
		stop, ended := begin(first)
		second := open(t, s, nil)
		defer second.Close()
		for range 2 {
			rep, err := dlq.Open(second, "orders", "billing").Replay(t.Context(), dlq.Filter{}, slow)
			if !errors.Is(err, pubsub.ErrConflict) || rep.Replayed > 0 {
				t.Errorf("while another process replays: %+v, %v", rep, err)
			}
		}
		if rep, err := dlq.Open(second, "orders", "audit").Replay(t.Context(), dlq.Filter{}, slow); err != nil || rep.Replayed != 1 {
			t.Errorf("another queue: %+v, %v", rep, err)
		}
		stop()
		if err := <-ended; !errors.Is(err, pubsub.ErrCanceled) {
			t.Error(err)
		}
		stop, ended = begin(first)
		defer stop()
		if err := first.Close(); err != nil { // its process ends
			t.Error(err)
		}
		if err := <-ended; err == nil {
			t.Error("a replay whose broker was closed has ended well")
		}
		if rep, err := dlq.Open(second, "orders", "billing").Replay(t.Context(), dlq.Filter{}, dlq.Replay{Turn: "turns"}); err != nil || rep.Replayed != 50 {
			t.Errorf("after the other: %+v, %v", rep, err)
		}
	})
}

func TestTurnRefuses(t *testing.T) {
	b, err := memory.NewServer(memory.Config{}).Open(t.Context(), &pubsub.Options{Manage: pubsub.Verify})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	q := dlq.Open(b, "orders", "billing")
	for turn, want := range map[string]pubsub.Code{"a.*": pubsub.ErrInvalid, "..": pubsub.ErrInvalid, "missing": pubsub.ErrNotFound} {
		if _, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{Turn: turn}); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", turn, err, want)
		}
	}
}
