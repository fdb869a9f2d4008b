package dlq

import (
	"context"
	"iter"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A State is what became of a dead letter.
//
// It is read from what lies beside a group's dead letters: this package and the engine append to it, and nothing is changed there. A replay of which
// the broker had confirmed the message, but not yet what was to be written of it when its process died, leaves a dead letter open until the handler
// succeeds or fails on the replay.
type State string

const (
	StateUnknown     State = ""             // it lies in a topic, see OpenTopic: nobody keeps what becomes of it
	StateOpen        State = "open"         // nothing was done
	StatePending     State = "pending"      // it was replayed, and has no outcome yet
	StateResolved    State = "resolved"     // it was replayed, and the handler has succeeded
	StateFailedAgain State = "failed-again" // it was replayed, and there is a new dead letter, with Record.ReplayOf, which is the one to look at
	StateDiscarded   State = "discarded"    // somebody wants no more of it, see Queue.Discard; it is there until its retention is over
)

// A life names a dead letter with its message: what a forged header says of another message is not taken for an outcome of this one.
type life struct{ id, message string }

// A stamp is who gave a dead letter its state.
type stamp struct {
	at      time.Time
	by, why string
}

// lives are the dead letters of OpResolved.
func (e *Entry) lives() iter.Seq[life] {
	return func(yield func(life) bool) {
		for i := range min(len(e.IDs), len(e.Messages)) {
			if !yield(life{e.IDs[i], e.Messages[i]}) {
				return
			}
		}
	}
}

func (e *Entry) stamp() stamp { return stamp{e.At, e.By, e.Why} }

// states are what is known of all dead letters of a queue.
type states struct {
	kept      bool // anything is kept at all
	pending   map[string]stamp
	discarded map[string]stamp
	resolved  map[life]stamp
	groups    map[string]Entry
	recurs    map[string]bool // groups of which there is a failure that was later than what their status knows of
	again     map[life]int    // dead letters that were replayed and failed again, and after how many replays
	any       bool            // something was replayed
	tail      tail
}

func newStates() *states {
	return &states{pending: map[string]stamp{}, discarded: map[string]stamp{}, resolved: map[life]stamp{}, groups: map[string]Entry{}, again: map[life]int{}, recurs: map[string]bool{}}
}

// states reads all that was told. Of what failed again, which dead letters themselves say, it reads those, too, where something was replayed.
func (q *Queue) states(ctx context.Context) (*states, error) {
	s := newStates()
	if q.place.Kind != pubsub.PlaceDead || q.keepsState("browse") != nil { // the second is said by who browses
		return s, nil
	}
	s.kept = true
	if err := s.tail.read(ctx, q, s.note); err != nil {
		return nil, err
	}
	if !s.any {
		return s, nil
	}
	for r, err := range q.browse(ctx, pubsub.Position{}) {
		if err != nil {
			return nil, err
		}
		s.noteReplay(&r)
	}
	return s, nil
}

// note takes an entry in, in the order in which they lie there. The outcome of a replay may be told before the replay itself is.
func (s *states) note(e *Entry) {
	switch e.Operation {
	case OpReplayed:
		for _, id := range e.IDs {
			s.pending[id] = e.stamp()
		}
	case OpResolved:
		for k := range e.lives() {
			s.resolved[k] = e.stamp()
		}
	case OpDiscard:
		for _, id := range e.IDs {
			s.discarded[id] = e.stamp()
		}
	case OpEdit:
		if len(e.IDs) > 0 {
			s.discarded[e.IDs[0]] = e.stamp()
		}
	case OpRestore:
		for _, id := range e.IDs {
			delete(s.discarded, id)
		}
	case OpGroup:
		s.groups[e.Group] = *e
	}
	s.any = s.any || e.Operation == OpStart || e.Operation == OpReplayed || e.Operation == OpResolved
}

// noteReplay takes in what a dead letter says of the one that it was replayed from.
func (s *states) noteReplay(r *Record) {
	if r.ReplayOf != "" {
		k := life{r.ReplayOf, r.Message.ID}
		s.again[k] = max(s.again[k], r.Replays)
	}
}

// failedAgain says whether a dead letter was replayed and its replay lies among these, too.
func (s *states) failedAgain(r *Record) bool { return s.again[life{r.ID, r.Message.ID}] > r.Replays }

// mark gives a dead letter its state. A replay may be handled twice: where one succeeded and one failed there is a new dead letter, which counts.
func (s *states) mark(r *Record) {
	if !s.kept {
		return
	}
	if e, ok := s.groups[r.Fingerprint]; ok && r.when().After(e.Through) {
		s.recurs[r.Fingerprint] = true
	}
	var by stamp
	pending, isPending := s.pending[r.ID]
	resolved, isResolved := s.resolved[life{r.ID, r.Message.ID}]
	discarded, isDiscarded := s.discarded[r.ID]
	switch {
	case isDiscarded:
		r.State, by = StateDiscarded, discarded
	case s.failedAgain(r):
		r.State, by = StateFailedAgain, pending
	case isResolved:
		r.State, by = StateResolved, resolved
	case isPending:
		r.State, by = StatePending, pending
	default:
		r.State = StateOpen
	}
	r.StateSince, r.StateBy, r.StateWhy = by.at, by.by, by.why
}
