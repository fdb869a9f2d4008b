package dlq_test

import (
	"context"
	"errors"
	"strings"
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
		if rep, err := dlq.Open(second, "orders", "billing").Replay(t.Context(), dlq.Filter{}, dlq.Replay{Turn: "turns"}); err != nil || rep.Replayed == 0 || rep.Replayed+rep.Skipped != 50 {
			t.Errorf("after the others, which have replayed some: %+v, %v", rep, err)
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

// Members share the partitions of a topic: one that has several gives several processes a turn.
func TestTurnHasOnePartition(t *testing.T) {
	b := memory.New(nil)
	defer b.Close()
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "turns", Partitions: 2}}}); err != nil {
		t.Fatal(err)
	}
	_, err := dlq.Open(b, "orders", "billing").Replay(t.Context(), dlq.Filter{}, dlq.Replay{Turn: "turns"})
	if !errors.Is(err, pubsub.ErrConflict) || !strings.Contains(err.Error(), "2 partitions") {
		t.Errorf("a topic with two partitions: %v", err)
	}
}

// A Run that is cancelled returns, whatever it waits for.
func TestTurnIsCancelled(t *testing.T) {
	for name, c := range map[string]struct {
		stalls time.Duration // after so long
		ends   time.Duration
		within time.Duration
		want   pubsub.Code
	}{
		"while it opens":           {0, time.Second, 3 * time.Second, pubsub.ErrCanceled},
		"while it replays":         {time.Second, 2 * time.Second, time.Second, pubsub.ErrCanceled},
		"while nothing stalls":     {time.Hour, 2 * time.Second, time.Second, pubsub.ErrCanceled},
		"not, and nobody answered": {0, time.Hour, 0, pubsub.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := memory.NewServer(memory.Config{})
				b := open(t, s, nil)
				defer b.Close()
				kill(t, b, billing(), 50, 0)
				plan, err := dlq.Open(b, "orders", "billing").Plan(t.Context(), dlq.Filter{}, dlq.Replay{Turn: "turns", Rate: 10})
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithTimeout(t.Context(), c.ends)
				defer stop()
				resume := make(chan func(), 1)
				if c.stalls == 0 {
					resume <- s.Stall()
				} else {
					time.AfterFunc(c.stalls, func() { resume <- s.Stall() })
				}
				begin := time.Now()
				_, err = plan.Run(ctx)
				if late := time.Since(begin) - c.ends; late > c.within || pubsub.CodeOf(err) != c.want {
					t.Errorf("%v after its context has ended: %v", late, err)
				}
				(<-resume)()
			})
		})
	}
}

// Why the turn is not ours is told as it is, and is no failure of the whole Broker.
func TestTurnIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b := open(t, s, nil)
		defer b.Close()
		running, end := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(running) }()
		kill(t, b, billing(), 50, 0)
		time.AfterFunc(10*time.Second, func() { s.DeleteTopic("turns") })
		_, err := dlq.Open(b, "orders", "billing").Replay(t.Context(), dlq.Filter{}, dlq.Replay{Turn: "turns", Rate: 0.5})
		if !errors.Is(err, pubsub.ErrNotFound) || !strings.Contains(err.Error(), "Replay.Turn") {
			t.Errorf("the topic is gone: %v", err)
		}
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("Broker.Run has ended: %v", err)
		default:
		}
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Where the connection breaks as it waits, no other process is to blame.
func TestTurnWhileItReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		first, second := open(t, s, nil), open(t, s, nil)
		defer second.Close()
		defer first.Close()
		kill(t, first, billing(), 50, 0)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = dlq.Open(first, "orders", "billing").Replay(ctx, dlq.Filter{}, dlq.Replay{Turn: "turns", Rate: 1})
		}()
		pause(t, 2*time.Second)
		time.AfterFunc(time.Second, s.Crash)
		_, err := dlq.Open(second, "orders", "billing").Replay(t.Context(), dlq.Filter{}, dlq.Replay{Turn: "turns"})
		if !errors.Is(err, pubsub.ErrUnavailable) || !strings.Contains(err.Error(), "reconnecting") {
			t.Errorf("the broker is away: %v", err)
		}
		stop()
		<-ended
		s.Restart()
	})
}
