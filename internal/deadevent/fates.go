package deadevent

import (
	"iter"
	"time"
)

// A Life names a dead letter with its message: what a forged header says of another message is not taken for an outcome of this one.
type Life struct{ ID, Message string }

// Lives are those that a Resolved event names.
func Lives(ids, messages []string) iter.Seq[Life] {
	return func(yield func(Life) bool) {
		for i := range min(len(ids), len(messages)) {
			if !yield(Life{ids[i], messages[i]}) {
				return
			}
		}
	}
}

// A Stamp is who gave a dead letter its state.
type Stamp struct {
	At      time.Time
	By, Why string
}

// A Fate is what became of a dead letter.
type Fate uint8

// The fates, see package dlq, which has them as states.
const (
	FateOpen Fate = iota
	FatePending
	FateFailedAgain
	FateResolved
	FateDiscarded
)

// Done says that nobody waits for anything of this dead letter: of one that failed again there is a new one.
func (f Fate) Done() bool { return f >= FateFailedAgain }

// Fates are what is known of all dead letters of a group.
type Fates struct {
	pending   map[string]Stamp
	discarded map[string]Stamp
	resolved  map[Life]Stamp
	again     map[Life]int // dead letters that were replayed and failed again, and after how many replays
}

// NewFates knows nothing.
func NewFates() *Fates {
	return &Fates{pending: map[string]Stamp{}, discarded: map[string]Stamp{}, resolved: map[Life]Stamp{}, again: map[Life]int{}}
}

// Note takes in what an event says, in the order in which events lie there. The outcome of a replay may be told before the replay itself is, and anything before
// its dead letter was read.
func (f *Fates) Note(op string, ids, messages []string, s Stamp) {
	switch op {
	case Replayed:
		for _, id := range ids {
			f.pending[id] = s
		}
	case Resolved:
		for l := range Lives(ids, messages) {
			f.resolved[l] = s
		}
	case Discard:
		for _, id := range ids {
			f.discarded[id] = s
		}
	case Edit:
		if len(ids) > 0 {
			f.discarded[ids[0]] = s
		}
	case Restore:
		for _, id := range ids {
			delete(f.discarded, id)
		}
	}
}

// NoteReplay takes in what a dead letter, after so many replays, says of the one that it was replayed from.
func (f *Fates) NoteReplay(of Life, replays int) { f.again[of] = max(f.again[of], replays) }

// Resolved says whether the handler has succeeded on a replay of a dead letter, whatever else became of it.
func (f *Fates) Resolved(l Life) bool {
	_, ok := f.resolved[l]
	return ok
}

// FailedAgain says whether a dead letter, after so many replays, was replayed once more and its replay is a dead letter, too.
func (f *Fates) FailedAgain(l Life, replays int) bool { return f.again[l] > replays }

// Of is the fate of a dead letter that had so many replays before. A replay may be handled twice: where one succeeded and one failed there is a new dead
// letter, which counts.
func (f *Fates) Of(l Life, replays int) (Fate, Stamp) {
	if s, ok := f.discarded[l.ID]; ok {
		return FateDiscarded, s
	}
	pending, isPending := f.pending[l.ID]
	if f.FailedAgain(l, replays) {
		return FateFailedAgain, pending
	}
	if s, ok := f.resolved[l]; ok {
		return FateResolved, s
	}
	if isPending {
		return FatePending, pending
	}
	return FateOpen, Stamp{}
}
