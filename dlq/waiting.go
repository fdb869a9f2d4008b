package dlq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/internal/deadevent"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A Waiting is a message of a group that waits at the broker for its retry. It is no dead letter: by itself it comes when it is due.
type Waiting struct {
	ID      string         // names the message while it waits, and when it waits again: where it lay when it was published, or its own ID where nobody knows that
	Message pubsub.Message // as the next attempt will get it
	Topic   string         // the concrete one
	Attempt int            // the number of the next attempt
	Due     time.Time      // not before
}

// A WaitingFilter selects messages that wait. All that is set must hold; the zero value selects all of them.
type WaitingFilter struct {
	IDs  []string // Waiting.ID is one of these
	Type string   // of the message
	Key  string   // of the message
}

func (f *WaitingFilter) match(w *Waiting) bool {
	return (len(f.IDs) == 0 || slices.Contains(f.IDs, w.ID)) && (f.Type == "" || f.Type == w.Message.Type) && (f.Key == "" || f.Key == w.Message.Key)
}

// Waiting lists what waits for a retry at the broker, see pubsub.Broker.Waiting. Needs Capabilities.Waiting; a Queue of OpenTopic has no group, and is an ErrUnsupported.
func (q *Queue) Waiting(ctx context.Context, f WaitingFilter) iter.Seq2[Waiting, error] {
	return func(yield func(Waiting, error) bool) {
		for w, err := range q.waiting(ctx, &f) {
			if err != nil {
				yield(Waiting{}, err)
				return
			}
			if !yield(q.waitingOf(&w), nil) {
				return
			}
		}
	}
}

func (q *Queue) waiting(ctx context.Context, f *WaitingFilter) iter.Seq2[pubsub.Waiting, error] {
	return func(yield func(pubsub.Waiting, error) bool) {
		if err := q.keepsState("waiting"); err != nil {
			yield(pubsub.Waiting{}, err)
			return
		}
		for w, err := range q.b.Waiting(ctx, q.place.Topic, q.place.Group) {
			if err == nil {
				if shown := q.waitingOf(&w); !f.match(&shown) {
					continue
				}
			}
			if !yield(w, err) {
				return
			}
		}
	}
}

func (q *Queue) waitingOf(w *pubsub.Waiting) Waiting {
	r := &w.Record
	out := Waiting{ID: r.Msg.ID, Message: *r.Msg, Topic: r.Topic, Attempt: w.Attempt(), Due: w.Due}
	if r.Pos != (pubsub.Position{}) {
		if out.ID = r.Pos.String(); r.Topic != q.place.Topic { // two topics of a pattern may have the same positions
			out.ID = r.Topic + "@" + out.ID
		}
	}
	return out
}

// Released is what became of messages that waited.
type Released struct {
	Done int // so many
	Gone int // so many did not wait any more when their turn came: their retry had come
}

// RetryNow lets messages that wait be retried at once. With an error some may be; calling it again does the rest. Needs Capabilities.Waiting to be WaitingManaged.
func (q *Queue) RetryNow(ctx context.Context, f WaitingFilter, n Note) (Released, error) {
	return q.release(ctx, OpRetryNow, f, n, q.b.RetryNow)
}

// DeadLetterNow makes dead letters of messages that wait, instead of having them retried, see pubsub.Broker.DeadLetterNow. With an error some may be; calling it
// again does the rest. Needs Capabilities.Waiting to be WaitingManaged.
func (q *Queue) DeadLetterNow(ctx context.Context, f WaitingFilter, n Note) (Released, error) {
	why := n.by()
	if n.Why != "" {
		why += ": " + n.Why
	}
	return q.release(ctx, OpGiveUp, f, n, func(ctx context.Context, topic, group string, w pubsub.Waiting) error {
		return q.b.DeadLetterNow(ctx, topic, group, w, why)
	})
}

// releasePage is how many messages are released after one entry of the audit record. It tells of them before: who is cut off in between has released fewer.
const releasePage = 100

func (q *Queue) release(ctx context.Context, what Operation, f WaitingFilter, n Note, do func(context.Context, string, string, pubsub.Waiting) error) (Released, error) {
	var out Released
	op := string(what)
	if err := q.keepsState(op); err != nil {
		return out, err
	}
	if err := do(ctx, q.place.Topic, q.place.Group, pubsub.Waiting{}); !errors.Is(err, pubsub.ErrInvalid) { // it cannot at all
		return out, err
	}
	var page []pubsub.Waiting
	var names int64
	var twice error                // the first of those that are given up and retried
	begun := map[string]struct{}{} // what fails again meanwhile waits again, and is left to its time
	turn := func() error {
		e := Entry{Operation: what}
		for i := range page {
			e.Messages = append(e.Messages, page[i].Record.Msg.ID)
		}
		if len(page) == 0 {
			return nil
		}
		if err := q.tell(ctx, e, n); err != nil {
			return err
		}
		for _, w := range page {
			err := do(ctx, q.place.Topic, q.place.Group, w)
			switch code := pubsub.CodeOf(err); {
			case err == nil:
				out.Done++
			case code == pubsub.ErrNotFound:
				out.Gone++
			case code == pubsub.ErrConflict:
				out.Done++
				twice = cmp.Or(twice, err)
			default:
				return q.fail(op, pubsub.CodeOf(err), fmt.Errorf("after %d of them: %w", out.Done, err), "call it again for the rest")
			}
		}
		page, names = page[:0], 0
		return nil
	}
	for w, err := range q.waiting(ctx, &f) {
		if err != nil {
			return out, err
		}
		id := q.waitingOf(&w).ID
		if _, again := begun[id]; again {
			continue
		}
		begun[id] = struct{}{}
		size := deadevent.Size(w.Record.Msg.ID)
		if len(page) == releasePage || len(page) > 0 && names+size > q.room() {
			if err := turn(); err != nil {
				return out, err
			}
		}
		page, names = append(page, w), names+size
	}
	if err := turn(); err != nil || twice == nil {
		return out, err
	}
	return out, q.fail(op, pubsub.ErrConflict, twice, "look at what its handler has done")
}
