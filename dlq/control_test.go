package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// slow begins a replay of one message a second in the background.
func slow(t *testing.T, b *pubsub.Broker, n int) (*dlq.Plan, <-chan error) {
	t.Helper()
	kill(t, b, billing(), n, 0)
	plan, err := dlq.Open(b, "orders", "billing").Plan(t.Context(), dlq.Filter{}, dlq.Replay{Rate: 1, Note: dlq.Note{By: "ann", Why: "PAY-1"}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := plan.Run(t.Context())
		ended <- err
	}()
	return plan, ended
}

func running(t *testing.T, q *dlq.Queue) []dlq.Running {
	t.Helper()
	all, err := q.Running(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestReplayIsReachedFromAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b, other := open(t, s, nil), open(t, s, nil)
		defer b.Close()
		defer other.Close()
		var in inbox
		plan, ended := slow(t, b, 60)
		subscribe(t, b, billing(), in.handle)
		q := dlq.Open(other, "orders", "billing")
		pause(t, 10500*time.Millisecond)
		all := running(t, q)
		if len(all) != 1 || all[0].Plan != plan.ID || all[0].By != "ann" || all[0].Why != "PAY-1" || all[0].Total != 60 || all[0].Done < 10 || all[0].Paused {
			t.Fatalf("%+v", all)
		}
		if err := q.PauseReplay(t.Context(), plan.ID, dlq.Note{By: "bob"}); err != nil {
			t.Fatal(err)
		}
		pause(t, 2*time.Second)
		n := len(in.all())
		pause(t, time.Minute)
		if all = running(t, q); len(all) != 1 || !all[0].Paused || all[0].Done != n || len(in.all()) != n || time.Since(all[0].Seen) > 11*time.Second {
			t.Errorf("paused at %d, now %d: %+v", n, len(in.all()), all)
		}
		if err := q.ResumeReplay(t.Context(), plan.ID, dlq.Note{}); err != nil {
			t.Fatal(err)
		}
		pause(t, 10*time.Second)
		if got := len(in.all()); got < n+8 || running(t, q)[0].Paused {
			t.Errorf("resumed at %d, now %d", n, got)
		}
		if err := q.CancelReplay(t.Context(), plan.ID, dlq.Note{By: "bob", Why: "it does not help"}); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, pubsub.ErrCanceled) || !strings.Contains(err.Error(), "bob: it does not help") {
			t.Error(err)
		}
		if all := running(t, q); len(all) != 0 {
			t.Errorf("%+v", all)
		}
		for _, err := range []error{
			q.PauseReplay(t.Context(), plan.ID, dlq.Note{}), q.ResumeReplay(t.Context(), "none", dlq.Note{}), q.CancelReplay(t.Context(), plan.ID, dlq.Note{}),
		} {
			if !errors.Is(err, pubsub.ErrNotFound) {
				t.Error(err)
			}
		}
		if rep, err := plan.Run(t.Context()); err != nil || rep.Replayed != 60 { // what was asked of it then is over
			t.Errorf("%+v, %v", rep, err)
		}
		settle(t, b, billing())
		if n := len(in.all()); n != 60 {
			t.Errorf("%d messages came, want 60", n)
		}
	})
}

// A pause is not longer than its context.
func TestPausedReplayIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 10, 0)
		q := dlq.Open(b, "orders", "billing")
		ctx, stop := context.WithCancel(t.Context())
		plan, err := q.Plan(ctx, dlq.Filter{}, dlq.Replay{Rate: 1})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(2*time.Second, func() { _ = q.PauseReplay(ctx, plan.ID, dlq.Note{}) })
		var canceled time.Time
		time.AfterFunc(20*time.Second, func() { canceled = time.Now(); stop() })
		rep, err := plan.Run(ctx)
		if !errors.Is(err, pubsub.ErrCanceled) || rep.Replayed > 5 || time.Since(canceled) > time.Second {
			t.Errorf("%+v, %v, %v later", rep, err, time.Since(canceled))
		}
		if all := running(t, q); len(all) != 0 {
			t.Errorf("%+v", all)
		}
	})
}

func TestDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newProcess(t, memory.NewServer(memory.Config{}))
		defer b.Close()
		kill(t, b, billing(), 10, 0)
		p.stray = func(r *pubsub.Record) {
			if r.Msg.ID == "m-00003" {
				r.Bad = errDeclined
			}
		}
		q := dlq.Open(b, "orders", "billing")
		p.out = func(*pubsub.Out) error { t.Error("something was sent"); return nil }
		p.state = p.out
		j := &journal{}
		rep := replay(t, q, dlq.Filter{}, dlq.Replay{DryRun: true, Journal: j})
		if rep.Total != 10 || rep.Replayed != 9 || rep.Failed != 1 || !rep.DryRun || len(rep.Failures) != 1 || len(audit(t, q)) != 0 {
			t.Errorf("%+v", rep)
		}
		if _, read := j.next(nil); read.Len() > 0 {
			t.Error("the journal was written to")
		}
	})
}

func TestCanary(t *testing.T) {
	errOpen := errors.New("the breaker is open")
	for name, c := range map[string]struct {
		fails  func(n int64) bool // the n-th replay
		canary dlq.Canary
		hangs  bool // a handler, which holds all others up
		code   pubsub.Code
		sent   [2]int
	}{
		"all is well":          {func(int64) bool { return false }, dlq.Canary{First: 1}, false, 0, [2]int{1000, 1000}},
		"the first fails":      {func(int64) bool { return true }, dlq.Canary{First: 1}, false, pubsub.ErrConflict, [2]int{1, 1}},
		"of the second step":   {func(n int64) bool { return n > 5 }, dlq.Canary{First: 1, Next: 9, MaxFailed: 10}, false, pubsub.ErrConflict, [2]int{10, 10}},
		"few enough":           {func(n int64) bool { return n%20 == 0 }, dlq.Canary{First: 20, Next: 20, MaxFailed: 5}, false, 0, [2]int{1000, 1000}},
		"of the last step":     {func(n int64) bool { return n > 100 }, dlq.Canary{First: 10, Next: 10, MaxFailed: 50}, false, pubsub.ErrConflict, [2]int{100, 999}},
		"nobody handles":       {func(int64) bool { return false }, dlq.Canary{First: 3, Within: time.Minute}, true, pubsub.ErrTimeout, [2]int{3, 3}},
		"a breaker opens":      {func(int64) bool { return false }, dlq.Canary{First: 3, Stop: func() error { return errOpen }}, true, pubsub.ErrConflict, [2]int{3, 3}},
		"fewer than the steps": {func(int64) bool { return true }, dlq.Canary{First: 2000}, false, 0, [2]int{1000, 1000}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := memory.New(nil)
				defer b.Close()
				kill(t, b, billing(), 1000, 0)
				var n atomic.Int64
				sub := billing()
				sub.HandlerTimeout = 2 * time.Hour
				subscribe(t, b, sub, func(ctx context.Context, d *pubsub.Delivery) error {
					if c.hangs {
						<-ctx.Done()
						return ctx.Err()
					}
					if c.fails(n.Add(1)) {
						return pubsub.Permanent(errDeclined)
					}
					return nil
				})
				q := dlq.Open(b, "orders", "billing")
				rep, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{Canary: c.canary, Rate: 500})
				if pubsub.CodeOf(err) != c.code || rep.Replayed < c.sent[0] || rep.Replayed > c.sent[1] {
					t.Errorf("%d replayed, %v", rep.Replayed, err)
				}
				if name == "a breaker opens" && !errors.Is(err, errOpen) {
					t.Error(err)
				}
				if !c.hangs {
					settle(t, b, billing())
				}
			})
		})
	}
}

func TestCanaryRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, other := memory.New(nil), memory.New(nil)
		defer b.Close()
		defer other.Close()
		q := dlq.Open(b, "orders", "billing")
		for i, c := range []struct {
			o    dlq.Replay
			want pubsub.Code
		}{
			{dlq.Replay{Canary: dlq.Canary{First: -1}}, pubsub.ErrInvalid},
			{dlq.Replay{Canary: dlq.Canary{Next: 3}}, pubsub.ErrInvalid},
			{dlq.Replay{Canary: dlq.Canary{First: 1, MaxFailed: 101}}, pubsub.ErrInvalid},
			{dlq.Replay{Canary: dlq.Canary{First: 1, Within: -1}}, pubsub.ErrInvalid},
			{dlq.Replay{Canary: dlq.Canary{First: 1}, Topic: "orders"}, pubsub.ErrUnsupported},
			{dlq.Replay{Canary: dlq.Canary{First: 1}, Broker: other}, pubsub.ErrUnsupported},
		} {
			if _, err := q.Plan(t.Context(), dlq.Filter{}, c.o); !errors.Is(err, c.want) {
				t.Errorf("%d: %v, want %v", i, err, fmt.Sprint(c.want))
			}
		}
	})
}

// A canary that cannot say what becomes of its messages says so before it sends one, as often as it is run.
func TestCanaryThatMayNotTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newProcess(t, memory.NewServer(memory.Config{}))
		defer b.Close()
		kill(t, b, billing(), 3, 0)
		denied := true
		p.state = func(*pubsub.Out) error {
			if denied {
				return &pubsub.Error{Code: pubsub.ErrDenied}
			}
			return nil
		}
		plan, err := dlq.Open(b, "orders", "billing").Plan(t.Context(), dlq.Filter{}, dlq.Replay{Canary: dlq.Canary{First: 1}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if rep, err := plan.Run(t.Context()); !errors.Is(err, pubsub.ErrDenied) || rep.Replayed != 0 {
				t.Errorf("%+v, %v", rep, err)
			}
		}
		denied = false // nothing is on its way
		subscribe(t, b, billing(), func(context.Context, *pubsub.Delivery) error { return nil })
		if rep, err := plan.Run(t.Context()); err != nil || rep.Replayed != 3 {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

// A run ends within a second with its context, also while what becomes of its dead letters waits for room.
func TestRunEndsThoughNothingCanBeTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b, to := open(t, s, nil), memory.New(nil)
		defer b.Close()
		defer to.Close()
		kill(t, b, billing(), 10, 0)
		got := make(chan struct{}, 10)
		subscribe(t, to, billing(), func(context.Context, *pubsub.Delivery) error {
			got <- struct{}{}
			return nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		plan, err := dlq.Open(b, "orders", "billing").Plan(ctx, dlq.Filter{}, dlq.Replay{Broker: to, Rate: 10})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := plan.Run(ctx)
			ended <- err
		}()
		<-got
		pause(t, 10*time.Millisecond) // it is told
		resume := s.Stall()
		defer resume()
		for range 4096 { // the window
			b.Resend(t.Context(), pubsub.Place{Topic: "orders", Group: "billing", Kind: pubsub.PlaceDead}, pubsub.Message{}, pubsub.Dedup{}, func(pubsub.Receipt, error) {})
		}
		<-got
		pause(t, 200*time.Millisecond)
		cancel()
		since := time.Now()
		if err := <-ended; !errors.Is(err, pubsub.ErrCanceled) {
			t.Error(err)
		}
		if took := time.Since(since); took > time.Second {
			t.Errorf("it has ended after %v", took)
		}
	})
}
