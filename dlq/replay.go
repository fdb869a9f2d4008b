package dlq

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Replay says how dead letters are sent again. The zero value gives each to the group that failed, as fast as the broker confirms them.
type Replay struct {
	Topic    string                // send to this topic instead, where every group gets them; "" = to the group that failed alone
	Broker   *pubsub.Broker        // where the group or topic is; nil = the Queue's
	Rate     float64               // messages a second; 0 = no bound; Plan.SetRate changes it
	Progress func(done, total int) // told as messages are confirmed or reported as failed, on the goroutine of Run; nil = nobody asks

	// MaxReplays is how often a message may have been replayed; what has been that often is skipped. 0 = 10; pubsub.Unlimited. The count is in the
	// header omnibus-replays, which a publisher could set, too: it guards against going in circles, not against a publisher who means harm. So a follower that came back
	// as key-blocked counts.
	MaxReplays int

	// Turn names a topic in which processes take turns, so that one of them at a time replays a Queue: a plan of the same place that runs in another
	// process is an ErrConflict. Nothing is published to it, and it is made, or has to be there, as Options.Manage says; one is enough for all
	// queues of a broker. It has one partition, else it is an ErrConflict; with Manage Off nobody looks, and with more of them several
	// processes have a turn at once. It needs exclusive groups, and is as good as these are: after a broken connection another process may have the
	// turn before this one knows, and stops. "" = only plans of this Queue exclude each other.
	Turn string

	// Note is who replays, and why, for the audit record. Canary lets a few messages go first, and the others when these have succeeded. DryRun lets Run
	// send and write nothing: its report says what would be sent, and what cannot be.
	Note   Note   // zero = the user of this process, without a reason
	Canary Canary // zero = all at once
	DryRun bool   // false = it sends

	// Journal is written what another process needs to go on where this one was killed, see Queue.Resume: the plan before its first message is sent,
	// then what was confirmed, a line at a time. It should be opened for appending. An error of it stops the replay. nil = only this process can go on.
	Journal io.Writer
}

const defaultMaxReplays = 10

func (o Replay) withDefaults(q *Queue) Replay {
	if o.Broker == nil {
		o.Broker = q.b
	}
	if o.MaxReplays == 0 {
		o.MaxReplays = defaultMaxReplays
	}
	o.Canary.withDefaults()
	return o
}

// check names the field that is out of its bounds.
func (o Replay) check() error {
	switch {
	case !(o.Rate >= 0): // also not a number
		return fmt.Errorf("Replay.Rate is %v; it cannot be negative", o.Rate)
	case o.MaxReplays < pubsub.Unlimited:
		return fmt.Errorf("Replay.MaxReplays is %d; it is at least 1, 0 for the default, or Unlimited", o.MaxReplays)
	case o.Canary.check() != nil:
		return o.Canary.check()
	case pubsub.IsPattern(o.Topic):
		return fmt.Errorf("Replay.Topic %q is a pattern", o.Topic)
	case pubsub.IsPattern(o.Turn):
		return fmt.Errorf("Replay.Turn %q is a pattern", o.Turn)
	}
	return nil
}

// A Report says what became of the messages of a plan, those of earlier runs included.
type Report struct {
	Plan     string    // its ID
	Total    int       // in the plan
	Replayed int       // confirmed by the broker
	Skipped  int       // not in the plan, though the filter selects them, see Plan.Skipped
	Failed   int       // cannot be sent; they are dead letters as before
	Failures []Failure // each of Failed, with the reason
	DryRun   bool      // nothing was sent: Replayed are those that would be

	// Untold is why StatePending could not be stored of what was replayed, in a way that trying again does not mend; nil if it could. Nothing else is
	// wrong then, but until the handler has succeeded or failed another plan selects these messages, too, and nobody can pause or cancel this one.
	Untold error
}

// A Failure is a message that cannot be sent. Filter.IDs selects it for another plan.
type Failure struct {
	ID       string          // of the dead letter
	Position pubsub.Position // where it lies; zero where the broker does not say
	Err      error           // why
}

// Replay makes a plan of what a filter selects and runs it. Who needs to look at it before, to change its rate or to go on with it, calls Plan.
// With an error the report says how far it came. Nothing is lost then, but another call begins anew: it sends what was replayed already
// once more.
func (q *Queue) Replay(ctx context.Context, f Filter, o Replay) (Report, error) {
	p, err := q.Plan(ctx, f, o)
	if err != nil {
		return Report{}, err
	}
	return p.Run(ctx)
}

// begin makes a plan the one that runs.
func (q *Queue) begin(p *Plan) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.active != nil {
		return q.fail("replay", pubsub.ErrConflict, errors.New("a plan of this queue is running"), "wait for its end, or cancel its context")
	}
	q.active = p
	return nil
}

func (q *Queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.active = nil
}

// ofMessage says whether an error is about one message, so that the others can be sent. Of ErrBroker, which is whatever nobody has classified, nobody
// knows before other messages have their answers: where it is the broker's trouble, every message of the plan would be reported as one that
// cannot be sent.
func ofMessage(err error) bool {
	switch pubsub.CodeOf(err) {
	case pubsub.ErrInvalid, pubsub.ErrUnsupported, pubsub.ErrNotFound, pubsub.ErrDenied, pubsub.ErrUnroutable, pubsub.ErrTooLarge,
		pubsub.ErrRefused:
		return true
	}
	return false
}
