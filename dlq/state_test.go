package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// count counts the states of a queue's dead letters.
func count(t *testing.T, q *dlq.Queue) map[dlq.State]int {
	t.Helper()
	n := map[dlq.State]int{}
	for _, r := range list(t, q, dlq.Filter{}) {
		n[r.State]++
	}
	return n
}

func wantStates(t *testing.T, q *dlq.Queue, want map[dlq.State]int) {
	t.Helper()
	if got := count(t, q); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the states are %v, want %v", got, want)
	}
}

func replay(t *testing.T, q *dlq.Queue, f dlq.Filter, o dlq.Replay) dlq.Report {
	t.Helper()
	rep, err := q.Replay(t.Context(), f, o)
	if err != nil {
		t.Fatalf("%+v, %v", rep, err)
	}
	return rep
}

// audit is what was done, in order, but for what the engine tells.
func audit(t *testing.T, q *dlq.Queue) (all []dlq.Entry) {
	t.Helper()
	for e, err := range q.Audit(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Operation != dlq.OpResolved {
			all = append(all, e)
		}
	}
	return all
}

func TestReplayedIsNotSolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 10, 0)
		q := dlq.Open(b, "orders", "billing")
		wantStates(t, q, map[dlq.State]int{dlq.StateOpen: 10})
		replay(t, q, dlq.Filter{}, dlq.Replay{Note: dlq.Note{By: "ann", Why: "the card service is back"}})
		wantStates(t, q, map[dlq.State]int{dlq.StatePending: 10})
		if rep := replay(t, q, dlq.Filter{}, dlq.Replay{}); rep.Total != 0 || rep.Skipped != 10 {
			t.Errorf("while all are pending: %+v", rep)
		}
		subscribe(t, b, billing(), func(_ context.Context, d *pubsub.Delivery) error {
			if d.ID < "m-00003" && d.Headers.Get("omnibus-replays") == "1" {
				return pubsub.Permanent(errDeclined)
			}
			return nil
		})
		settle(t, b, billing())
		wantStates(t, q, map[dlq.State]int{dlq.StateResolved: 7, dlq.StateFailedAgain: 3, dlq.StateOpen: 3})
		if rep := replay(t, q, dlq.Filter{}, dlq.Replay{}); rep.Total != 3 || rep.Skipped != 10 {
			t.Errorf("when three have failed again: %+v", rep)
		}
		settle(t, b, billing())
		wantStates(t, q, map[dlq.State]int{dlq.StateResolved: 10, dlq.StateFailedAgain: 3})
		if rep := replay(t, q, dlq.Filter{}, dlq.Replay{}); rep.Total != 0 {
			t.Errorf("when all are resolved: %+v", rep)
		}
		r := list(t, q, dlq.Filter{States: []dlq.State{dlq.StateFailedAgain}})[0]
		if r.StateBy != "ann" || r.StateWhy != "the card service is back" || r.StateSince.IsZero() {
			t.Errorf("by %q because %q since %v", r.StateBy, r.StateWhy, r.StateSince)
		}
		groups, err := q.Groups(t.Context(), dlq.Filter{})
		if err != nil || len(groups) != 1 || groups[0].States[dlq.StateResolved] != 10 || groups[0].Status != dlq.GroupOpen {
			t.Errorf("%+v, %v", groups, err)
		}
		first := audit(t, q)[0]
		if first.Operation != dlq.OpStart || first.By != "ann" || first.Total != 10 || first.Plan == "" {
			t.Errorf("%+v", first)
		}
		o, err := q.Outcomes(t.Context(), first.Plan)
		if err != nil || o != (dlq.Outcomes{Resolved: 7, FailedAgain: 3}) {
			t.Errorf("%+v, %v", o, err)
		}
	})
}

// A forged header names a dead letter of another message.
func TestOutcomeOfAnotherMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 1, 0)
		q := dlq.Open(b, "orders", "billing")
		id := list(t, q, dlq.Filter{})[0].ID
		subscribe(t, b, billing(), func(context.Context, *pubsub.Delivery) error { return nil })
		if err := b.Publish(t.Context(), "orders", pubsub.Message{ID: "other", Headers: headers("omnibus-replay-of", id)}); err != nil {
			t.Fatal(err)
		}
		settle(t, b, billing())
		wantStates(t, q, map[dlq.State]int{dlq.StateOpen: 1})
	})
}

// The outcome of a replay waits for a place that is away, or may be, its message with it, and one that is denied lets it go.
func TestOutcomeThatCannotBeStored(t *testing.T) {
	for code, want := range map[pubsub.Code]dlq.State{pubsub.ErrUnavailable: dlq.StateResolved, pubsub.ErrDenied: dlq.StatePending, pubsub.ErrBroker: dlq.StateResolved} {
		synctest.Test(t, func(t *testing.T) {
			s := memory.NewServer(memory.Config{})
			b := open(t, s, nil)
			defer b.Close()
			kill(t, b, billing(), 1, 0)
			q := dlq.Open(b, "orders", "billing")
			replay(t, q, dlq.Filter{}, dlq.Replay{})
			other := open(t, s, nil)
			defer other.Close()
			calls := 0
			subscribe(t, other, billing(), func(context.Context, *pubsub.Delivery) error {
				calls++
				s.Refuse(3, code)
				return nil
			})
			settle(t, b, billing())
			wantStates(t, q, map[dlq.State]int{want: 1})
			if calls != 1 {
				t.Errorf("%v: the handler was called %d times", code, calls)
			}
		})
	}
}

// What became of dead letters must not fail what they are there for.
func TestStatesThatCannotBeTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newProcess(t, memory.NewServer(memory.Config{}))
		defer b.Close()
		kill(t, b, billing(), 3, 0)
		p.state = func(*pubsub.Out) error { return &pubsub.Error{Code: pubsub.ErrUnsupported} }
		q := dlq.Open(b, "orders", "billing")
		rep := replay(t, q, dlq.Filter{}, dlq.Replay{})
		if rep.Replayed != 3 || !errors.Is(rep.Untold, pubsub.ErrUnsupported) {
			t.Errorf("%+v", rep)
		}
		wantStates(t, q, map[dlq.State]int{dlq.StateOpen: 3})
	})
}

// A process that dies when the broker has confirmed replays, and before that is told, leaves it to the next one.
func TestWhatWasReplayedIsToldLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b := open(t, s, nil)
		defer b.Close()
		kill(t, b, billing(), 20, 0)
		p, victim := newProcess(t, s)
		ctx, stop := context.WithCancel(t.Context())
		j := &journal{}
		sent := 0
		p.state = func(*pubsub.Out) error { // all but the first are lost, and the process with them
			if sent++; sent == 1 {
				return nil
			}
			stop()
			return &pubsub.Error{Code: pubsub.ErrClosed}
		}
		plan, err := dlq.Open(victim, "orders", "billing").Plan(ctx, dlq.Filter{}, dlq.Replay{Journal: j, Rate: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := plan.Run(ctx); err == nil || rep.Replayed == 0 {
			t.Fatalf("%+v, %v", rep, err)
		}
		victim.Close()
		q := dlq.Open(b, "orders", "billing")
		wantStates(t, q, map[dlq.State]int{dlq.StateOpen: 20})
		_, read := j.next(nil)
		plan, err = q.Resume(t.Context(), read, dlq.Replay{})
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := plan.Run(t.Context()); err != nil || rep.Replayed != 20 {
			t.Fatalf("%+v, %v", rep, err)
		}
		wantStates(t, q, map[dlq.State]int{dlq.StatePending: 20})
	})
}

func TestDiscardAndRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 600, 0) // more than one entry
		q := dlq.Open(b, "orders", "billing")
		n, err := q.Discard(t.Context(), dlq.Filter{Where: func(r *dlq.Record) bool { return r.Message.ID < "m-00500" }}, dlq.Note{By: "ann", Why: "a test"})
		if err != nil || n != 500 {
			t.Errorf("%d, %v", n, err)
		}
		wantStates(t, q, map[dlq.State]int{dlq.StateDiscarded: 500, dlq.StateOpen: 100})
		if n, err := q.Discard(t.Context(), dlq.Filter{Where: func(r *dlq.Record) bool { return r.Message.ID < "m-00500" }}, dlq.Note{}); err != nil || n != 0 {
			t.Errorf("again: %d, %v", n, err)
		}
		if rep := replay(t, q, dlq.Filter{}, dlq.Replay{}); rep.Total != 100 || rep.Skipped != 500 {
			t.Errorf("%+v", rep)
		}
		if n, err := q.Restore(t.Context(), dlq.Filter{Where: func(r *dlq.Record) bool { return r.Message.ID < "m-00010" }}, dlq.Note{}); err != nil || n != 10 {
			t.Errorf("%d, %v", n, err)
		}
		wantStates(t, q, map[dlq.State]int{dlq.StateDiscarded: 490, dlq.StateOpen: 10, dlq.StatePending: 100})
		// what was replayed meanwhile has the state that it has got when its discard is taken back
		if n, err := q.Discard(t.Context(), dlq.Filter{States: []dlq.State{dlq.StatePending}}, dlq.Note{}); err != nil || n != 100 {
			t.Errorf("%d, %v", n, err)
		}
		subscribe(t, b, billing(), func(context.Context, *pubsub.Delivery) error { return nil })
		settle(t, b, billing())
		wantStates(t, q, map[dlq.State]int{dlq.StateDiscarded: 590, dlq.StateOpen: 10})
		if n, err := q.Restore(t.Context(), dlq.Filter{}, dlq.Note{}); err != nil || n != 590 {
			t.Errorf("%d, %v", n, err)
		}
		wantStates(t, q, map[dlq.State]int{dlq.StateResolved: 100, dlq.StateOpen: 500})
		e := audit(t, q)[0]
		if e.Operation != dlq.OpDiscard || e.By != "ann" || e.Why != "a test" || len(e.IDs) != 256 || e.At.IsZero() || e.ID == "" {
			t.Errorf("%+v", e)
		}
		if by := audit(t, q)[3].By; !strings.Contains(by, "@") {
			t.Errorf("nobody named is %q", by)
		}
	})
}

func TestGroupsLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 3, 0)
		q := dlq.Open(b, "orders", "billing")
		one := func() dlq.Group {
			groups, err := q.Groups(t.Context(), dlq.Filter{})
			if err != nil || len(groups) != 1 {
				t.Fatalf("%+v, %v", groups, err)
			}
			return groups[0]
		}
		if g := one(); g.Status != dlq.GroupOpen || !g.StatusSince.IsZero() || g.Reopened {
			t.Errorf("%+v", g)
		}
		kind := one().Fingerprint
		for i, status := range []dlq.GroupStatus{dlq.GroupAcknowledged, dlq.GroupResolved, dlq.GroupIgnored, dlq.GroupOpen} {
			if err := q.SetGroup(t.Context(), kind, status, dlq.Note{By: "ann", Why: "PAY-" + string(status)}); err != nil {
				t.Fatal(err)
			}
			if g := one(); g.Status != status || g.StatusBy != "ann" || g.Note != "PAY-"+string(status) || g.Reopened {
				t.Errorf("%s: %+v", status, g)
			}
			pause(t, time.Second)
			killThese(t, b, billing(), pubsub.Message{ID: fmt.Sprint("another ", i)})
			want := status
			if status == dlq.GroupResolved {
				want = dlq.GroupOpen
			}
			if g := one(); g.Status != want || g.Reopened != (status == dlq.GroupResolved) || g.Note != "PAY-"+string(status) {
				t.Errorf("%s, and it has come since: %+v", status, g)
			}
			// a filter that does not show what has come does not change that
			groups, err := q.Groups(t.Context(), dlq.Filter{Where: func(r *dlq.Record) bool { return strings.HasPrefix(r.Message.ID, "m-") }})
			if err != nil || len(groups) != 1 || groups[0].Status != want || groups[0].Count != 3 {
				t.Errorf("%s, filtered: %+v, %v", status, groups, err)
			}
		}
		if err := q.SetGroup(t.Context(), "1:none", dlq.GroupOpen, dlq.Note{}); !errors.Is(err, pubsub.ErrNotFound) {
			t.Error(err)
		}
		if err := q.SetGroup(t.Context(), kind, "solved", dlq.Note{}); !errors.Is(err, pubsub.ErrInvalid) {
			t.Error(err)
		}
	})
}

// Nobody keeps what becomes of dead letters in a topic.
func TestTopicsKeepNoStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		sub := billing()
		sub.DeadLetter.Topic = "graveyard"
		kill(t, b, sub, 3, 0)
		q := dlq.OpenTopic(b, "graveyard")
		wantStates(t, q, map[dlq.State]int{dlq.StateUnknown: 3})
		if rep := replay(t, q, dlq.Filter{}, dlq.Replay{}); rep.Replayed != 3 || rep.Untold != nil {
			t.Errorf("%+v", rep)
		}
		groups, err := q.Groups(t.Context(), dlq.Filter{})
		if err != nil || groups[0].Status != "" {
			t.Errorf("%+v, %v", groups, err)
		}
		_, err = q.Discard(t.Context(), dlq.Filter{}, dlq.Note{})
		_, err1 := q.Restore(t.Context(), dlq.Filter{}, dlq.Note{})
		_, err2 := q.Running(t.Context())
		_, err3 := q.Outcomes(t.Context(), "p")
		_, err4 := q.Plan(t.Context(), dlq.Filter{}, dlq.Replay{Canary: dlq.Canary{First: 1}})
		errs := []error{err, err1, err2, err3, err4, q.SetGroup(t.Context(), "1:a", dlq.GroupOpen, dlq.Note{}), q.PauseReplay(t.Context(), "p", dlq.Note{})}
		for _, e := range q.Audit(t.Context()) {
			errs = append(errs, e)
		}
		if len(errs) != 8 || slices.ContainsFunc(errs, func(err error) bool { return !errors.Is(err, pubsub.ErrUnsupported) }) {
			t.Errorf("%v", errs)
		}
	})
}
