package dlq

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Running is a replay that has begun and not said that it has ended, in whatever process. One whose process was killed looks like one that runs, but that Seen is
// long ago: who runs says something every ten seconds, also while it is paused, and within 30 s where it waits for the broker.
type Running struct {
	Plan    string    // its ID
	By, Why string    // its Note
	Started time.Time // by the clock of the process that began it first
	Seen    time.Time // when it said something last
	Total   int       // of messages
	Done    int       // confirmed by the broker
	Failed  int       // cannot be sent
	Paused  bool      // it was asked to; it does within about a second
	Cancel  bool      // the same
}

// Running lists the replays of this queue that have not ended, the oldest first.
func (q *Queue) Running(ctx context.Context) ([]Running, error) {
	if err := q.keepsState("running"); err != nil {
		return nil, err
	}
	var all []Running
	for e, err := range q.Audit(ctx) {
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(all, func(r Running) bool { return r.Plan == e.Plan })
		if i < 0 {
			if e.Operation == OpStart {
				all = append(all, Running{Plan: e.Plan, By: e.By, Why: e.Why, Started: e.At, Seen: e.At, Total: e.Total, Done: e.Done, Failed: e.Failed})
			}
			continue
		}
		r := &all[i]
		switch e.Operation {
		case OpEnd:
			all = slices.Delete(all, i, i+1)
		case OpStart: // again, by another process or after an error
			*r = Running{Plan: e.Plan, By: e.By, Why: e.Why, Started: r.Started, Seen: e.At, Total: e.Total, Done: e.Done, Failed: e.Failed}
		case OpReplayed, OpProgress:
			r.Seen, r.Done, r.Failed = e.At, max(r.Done, e.Done), max(r.Failed, e.Failed)
		case OpPause:
			r.Paused = true
		case OpResume:
			r.Paused = false
		case OpCancel:
			r.Cancel = true
		}
	}
	return all, nil
}

// PauseReplay asks the process that runs a plan to send nothing until ResumeReplay. It asks every second. A plan that does not run is an ErrNotFound.
func (q *Queue) PauseReplay(ctx context.Context, plan string, n Note) error {
	return q.ask(ctx, OpPause, plan, n)
}

// ResumeReplay takes PauseReplay back. See Queue.Resume for a replay whose process is gone.
func (q *Queue) ResumeReplay(ctx context.Context, plan string, n Note) error {
	return q.ask(ctx, OpResume, plan, n)
}

// CancelReplay asks the process that runs a plan to end: its Plan.Run returns an ErrCanceled that says who asked. What was sent stays sent; running the plan
// again goes on.
func (q *Queue) CancelReplay(ctx context.Context, plan string, n Note) error {
	return q.ask(ctx, OpCancel, plan, n)
}

func (q *Queue) ask(ctx context.Context, what Operation, plan string, n Note) error {
	all, err := q.Running(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(r Running) bool { return r.Plan == plan }) {
		return q.fail(string(what), pubsub.ErrNotFound, fmt.Errorf("no replay %q is running", plan), "")
	}
	return q.tell(ctx, Entry{Operation: what, Plan: plan}, n)
}

// Outcomes counts what became of the messages that a plan has replayed.
type Outcomes struct {
	Pending     int // sent, and the handler has not succeeded yet, or nobody has heard of it
	Resolved    int // the handler has succeeded
	FailedAgain int // given up again: a new dead letter is there
}

// Outcomes tells what became of what a plan has replayed so far, in whatever process.
func (q *Queue) Outcomes(ctx context.Context, plan string) (Outcomes, error) {
	if err := q.keepsState("outcomes"); err != nil {
		return Outcomes{}, err
	}
	mine := map[string]bool{}
	known := newStates()
	known.kept = true
	err := known.tail.read(ctx, q, func(e *Entry) {
		known.note(e)
		if e.Operation == OpReplayed && e.Plan == plan {
			for _, id := range e.IDs {
				mine[id] = true
			}
		}
	})
	if err != nil || len(mine) == 0 {
		return Outcomes{}, err
	}
	var ours []Record // without what they carry
	for r, err := range q.browse(ctx, pubsub.Position{}) {
		if err != nil {
			return Outcomes{}, err
		}
		known.noteReplay(&r)
		if mine[r.ID] {
			ours = append(ours, Record{ID: r.ID, Message: pubsub.Message{ID: r.Message.ID}, Replays: r.Replays})
		}
	}
	var o Outcomes
	for i := range ours {
		r := &ours[i]
		l := life{ID: r.ID, Message: r.Message.ID}
		switch {
		case known.FailedAgain(l, r.Replays):
			o.FailedAgain++
		case known.Resolved(l):
			o.Resolved++
		default:
			o.Pending++
		}
	}
	return o, nil
}
