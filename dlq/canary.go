package dlq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/omnibus-go/omnibus/internal/deadevent"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A Canary lets a replay go in three steps: First messages, Next messages, all others. Before each step it waits until those of the one before have an outcome,
// and it looks again every 256 messages of the last step. The zero value has no steps.
//
// It ends the replay when more than MaxFailed per cent of what has an outcome has failed again, an ErrConflict, and when the messages of a step have none
// after Within, an ErrTimeout: nobody handles them, they wait for their retries, or a breaker has opened, which lets its group take nothing. What was sent
// by then stays sent. Running the plan again begins with the first step.
//
// It needs what the group tells of outcomes, so it is an ErrUnsupported where Replay.Topic or another Replay.Broker is named, and with OpenTopic.
type Canary struct {
	First     int           // messages of the first step; 0 = no canary, then the others are 0, too
	Next      int           // of the second; 0 = ten times First
	MaxFailed float64       // per cent; 0 = none may fail
	Within    time.Duration // for the outcomes of a step; 0 = 1 min
	Stop      func() error  // asked before each step and while it waits, e.g. whether a breaker has opened: an error ends the replay; nil = nobody is asked
}

const defaultWithin = time.Minute

func (c *Canary) withDefaults() {
	if c.First == 0 {
		return
	}
	if c.Next == 0 {
		c.Next = 10 * c.First
	}
	if c.Within == 0 {
		c.Within = defaultWithin
	}
}

func (c *Canary) check() error {
	switch {
	case c.First < 0 || c.Next < 0 || c.Within < 0:
		return errors.New("Replay.Canary has a negative bound")
	case c.First == 0 && (c.Next != 0 || c.MaxFailed != 0 || c.Within != 0 || c.Stop != nil):
		return errors.New("Replay.Canary has no First")
	case !(c.MaxFailed >= 0 && c.MaxFailed <= 100): // also not a number
		return fmt.Errorf("Replay.Canary.MaxFailed is %v; it is between 0 and 100", c.MaxFailed)
	}
	return nil
}

var errNoOutcomes = errors.New("Replay.Canary: nobody tells what becomes of messages that go to a topic, or to another broker")

// hearsOutcomes says whether the group tells what becomes of replays.
func (q *Queue) hearsOutcomes(o *Replay) bool {
	return q.place.Kind == pubsub.PlaceDead && o.Topic == "" && o.Broker == q.b
}

const canaryLooks = 200 * time.Millisecond

// A watch follows what becomes of the messages of one run with a canary; nil follows nothing.
type watch struct {
	sent             map[string]string // dead letters, and the IDs of their messages
	resolved, failed map[string]bool
}

func newWatch() *watch {
	return &watch{sent: map[string]string{}, resolved: map[string]bool{}, failed: map[string]bool{}}
}

// note takes an entry in, if it is an outcome.
func (w *watch) note(e *Entry) {
	if w == nil || e.Operation != OpResolved {
		return
	}
	for k := range deadevent.Lives(e.IDs, e.Messages) {
		if message, mine := w.sent[k.ID]; mine && message == k.Message {
			w.resolved[k.ID] = true
		}
	}
}

// noteDead takes a dead letter in, which may be the outcome of a replay.
func (w *watch) noteDead(r *Record) {
	if message, mine := w.sent[r.ReplayOf]; mine && message == r.Message.ID {
		w.failed[r.ReplayOf] = true
	}
}

// counts are those of the outcomes: what has both has failed.
func (w *watch) counts() (o Outcomes) {
	o.FailedAgain = len(w.failed)
	for id := range w.resolved {
		if !w.failed[id] {
			o.Resolved++
		}
	}
	o.Pending = len(w.sent) - o.FailedAgain - o.Resolved
	return o
}

// look reads what became of the messages of the run: what was told, and the dead letters behind those of the plan.
func (r *run) look(ctx context.Context) (Outcomes, error) {
	if r.hear(ctx); r.stop != nil {
		return Outcomes{}, nil
	}
	for rec, err := range r.p.q.browse(ctx, r.p.items[len(r.p.items)-1].At) {
		if err != nil {
			return Outcomes{}, err
		}
		r.watch.noteDead(&rec)
	}
	return r.watch.counts(), nil
}

// gate waits before each step of a canary for the outcomes of the one before.
func (r *run) gate(ctx context.Context) {
	c := &r.p.opts.Canary
	if c.First == 0 || r.stop != nil {
		return
	}
	step := r.sent == c.First || r.sent == c.First+c.Next
	if !step && (r.sent < c.First+c.Next || (r.sent-c.First-c.Next)%window != 0) {
		return
	}
	if r.await(ctx); r.stop != nil { // those of the step that have no answer yet
		return
	}
	end := time.Now().Add(c.Within)
	for r.stop == nil {
		if c.Stop != nil {
			if err := c.Stop(); err != nil {
				r.end(r.p.q.fail("replay", pubsub.ErrConflict, fmt.Errorf("Replay.Canary.Stop: %w", err), "nothing is lost: run the plan again"))
				return
			}
		}
		o, err := r.look(ctx)
		switch known := o.Resolved + o.FailedAgain; {
		case r.stop != nil:
		case err != nil && ctx.Err() != nil:
			r.cancel(ctx)
		case err != nil:
			r.end(err)
		case known > 0 && 100*float64(o.FailedAgain) > c.MaxFailed*float64(known):
			r.end(r.p.q.fail("replay", pubsub.ErrConflict, fmt.Errorf("%d of %d replayed messages have failed again", o.FailedAgain, known), "their dead letters say why"))
		case !step || o.Pending == 0:
			return
		case !time.Now().Before(end):
			r.end(r.p.q.fail("replay", pubsub.ErrTimeout, fmt.Errorf("%d of %d replayed messages have no outcome after %v", o.Pending, o.Pending+known, c.Within),
				"is the group running, and its breaker closed?"))
		default:
			r.rest(ctx, canaryLooks)
		}
	}
}
