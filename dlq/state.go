package dlq

import (
	"context"

	"github.com/omnibus-go/omnibus/internal/deadevent"
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

// A life names a dead letter with its message.
type life = deadevent.Life

// states are what is known of all dead letters of a queue.
type states struct {
	*deadevent.Fates
	kept   bool // anything is kept at all
	groups map[string]Entry
	recurs map[string]bool // groups of which there is a failure that was later than what their status knows of
	any    bool            // something was replayed
	tail   tail
}

func newStates() *states {
	return &states{Fates: deadevent.NewFates(), groups: map[string]Entry{}, recurs: map[string]bool{}}
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

// note takes an entry in, in the order in which they lie there.
func (s *states) note(e *Entry) {
	s.Note(string(e.Operation), e.IDs, e.Messages, deadevent.Stamp{At: e.At, By: e.By, Why: e.Why})
	if e.Operation == OpGroup {
		s.groups[e.Group] = *e
	}
	s.any = s.any || e.Operation == OpStart || e.Operation == OpReplayed || e.Operation == OpResolved
}

// noteReplay takes in what a dead letter says of the one that it was replayed from.
func (s *states) noteReplay(r *Record) {
	if r.ReplayOf != "" {
		s.NoteReplay(life{ID: r.ReplayOf, Message: r.Message.ID}, r.Replays)
	}
}

// mark gives a dead letter its state.
func (s *states) mark(r *Record) {
	if !s.kept {
		return
	}
	if e, ok := s.groups[r.Fingerprint]; ok && r.when().After(e.Through) {
		s.recurs[r.Fingerprint] = true
	}
	fate, by := s.Of(life{ID: r.ID, Message: r.Message.ID}, r.Replays)
	r.State = [...]State{
		deadevent.FateOpen: StateOpen, deadevent.FatePending: StatePending, deadevent.FateFailedAgain: StateFailedAgain,
		deadevent.FateResolved: StateResolved, deadevent.FateDiscarded: StateDiscarded,
	}[fate]
	r.StateSince, r.StateBy, r.StateWhy = by.At, by.By, by.Why
}
