package dlq

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Queue is a place where dead letters lie. Safe for concurrent use.
type Queue struct {
	b     *pubsub.Broker
	place pubsub.Place

	mu     sync.Mutex
	active *Plan // that runs
}

// Open looks into the dead letters of a group: where they go when its subscription names no other place. The topic is that of the
// subscription, also if it is a pattern: Record.Topic is the one where it failed, and so is Delivery.Topic of what is replayed, where the pattern
// covers it. A place in which nothing was ever kept is empty; what is wrong shows in the first call.
func Open(b *pubsub.Broker, topic, group string) *Queue {
	return &Queue{b: b, place: pubsub.Place{Topic: topic, Group: group, Kind: pubsub.PlaceDead}}
}

// OpenTopic looks into a topic that dead letters are sent to: of DeadLetter.Topic, DeadLetter.Route, or of another library. The broker needs
// Capabilities.History, else every call is an ErrUnsupported. Nobody keeps what becomes of dead letters in a topic: their State is unknown, a plan
// selects what an earlier one has replayed, and what changes or follows states is an ErrUnsupported: Discard, Restore, SetGroup, Audit, Edit,
// Running, Outcomes and what is asked of running replays, and Replay.Canary.
func OpenTopic(b *pubsub.Broker, topic string) *Queue {
	return &Queue{b: b, place: pubsub.Place{Topic: topic}}
}

// List yields the dead letters that a filter selects, as they lie there: the oldest first. An error ends it.
func (q *Queue) List(ctx context.Context, f Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		known, err := q.states(ctx)
		if err != nil {
			yield(Record{}, err)
			return
		}
		q.list(ctx, known, f, yield)
	}
}

// list yields what a filter selects, with the states that are known.
func (q *Queue) list(ctx context.Context, known *states, f Filter, yield func(Record, error) bool) {
	for r, err := range q.browse(ctx, pubsub.Position{}) {
		if err != nil {
			yield(Record{}, err)
			return
		}
		known.mark(&r)
		if f.match(&r) && !yield(r, nil) {
			return
		}
	}
}

// browse yields every dead letter from a position on.
func (q *Queue) browse(ctx context.Context, from pubsub.Position) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if q.place.Topic == "" || q.place.Kind == pubsub.PlaceDead && q.place.Group == "" {
			yield(Record{}, q.fail("browse", pubsub.ErrInvalid, errNoPlace, ""))
			return
		}
		for stored, err := range q.b.Browse(ctx, q.place, from) {
			if err == nil && ctx.Err() != nil { // a broker that has it all at hand may not look
				err = q.fail("browse", pubsub.ErrCanceled, context.Cause(ctx), "")
			}
			if err != nil {
				yield(Record{}, err)
				return
			}
			if !yield(read(stored), nil) {
				return
			}
		}
	}
}

// Show finds one dead letter by its Record.ID; ErrNotFound if it is not there.
func (q *Queue) Show(ctx context.Context, id string) (Record, error) {
	for r, err := range q.List(ctx, Filter{IDs: []string{id}}) {
		return r, err
	}
	return Record{}, q.fail("show", pubsub.ErrNotFound, fmt.Errorf("there is no dead letter %q", id), "")
}

// A Group is dead letters with one fingerprint. By pubsub.Fingerprint all errors that errors.New makes are of one kind, but for their categories: give
// failures types of their own, or call pubsub.WithStack.
type Group struct {
	Fingerprint string        // of all of them, see pubsub.Fingerprint; "" = they have none
	Count       int           // how many the filter selects
	First, Last time.Time     // of their failures
	Reason      string        // as Category, ErrorType and Error that of Sample
	Category    string        // see Record.Category
	ErrorType   string        // see Record.ErrorType
	Error       string        // see Record.Error
	Sample      Record        // the latest of them
	States      map[State]int // how many of Count have which state

	Status         GroupStatus // "" where nothing is kept, see OpenTopic
	StatusSince    time.Time   // zero = always
	StatusBy, Note string      // who gave it that, and what he noted
	Reopened       bool        // it was resolved, and has come since
}

// Groups counts what a filter selects by fingerprint, the largest group first.
func (q *Queue) Groups(ctx context.Context, f Filter) ([]Group, error) {
	known, err := q.states(ctx)
	if err != nil {
		return nil, err
	}
	at := map[string]int{}
	var groups []Group
	var failure error
	q.list(ctx, known, f, func(r Record, err error) bool {
		if err != nil {
			failure = err
			return false
		}
		i, known := at[r.Fingerprint]
		if !known {
			i = len(groups)
			at[r.Fingerprint] = i
			groups = append(groups, Group{Fingerprint: r.Fingerprint, States: map[State]int{}})
		}
		g := &groups[i]
		g.Count++
		g.States[r.State]++
		when := r.when()
		if g.First.IsZero() || when.Before(g.First) {
			g.First = when
		}
		if g.Count == 1 || !when.Before(g.Last) {
			g.Last, g.Sample = when, r
			g.Reason, g.Category, g.ErrorType, g.Error = r.Reason, r.Category, r.ErrorType, r.Error
		}
		return true
	})
	if failure != nil {
		return nil, failure
	}
	if known.kept {
		for i := range groups {
			groups[i].follow(known)
		}
	}
	slices.SortStableFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), b.Last.Compare(a.Last))
	})
	return groups, nil
}

func (q *Queue) fail(op string, code pubsub.Code, err error, hint string) error {
	return &pubsub.Error{Op: op, Topic: q.place.Topic, Code: code, Err: err, Hint: hint}
}
