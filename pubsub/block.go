package pubsub

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/internal/deadevent"
)

// headerDeadEditOf and headerReplays are written by package dlq.
const (
	headerDeadEditOf = headerDead + "edit-of" // of a dead letter that was made of another one
	headerReplays    = headerReplay + "s"     // how often a message has been replayed
)

// A letter is a dead letter, as far as it matters for the later messages of its key.
type letter struct {
	deadevent.Life
	key     string
	source  string // where its message lay
	parent  string // the dead letter in whose turn it is: it was replayed from that, or is an edited one
	again   bool   // it was replayed from parent
	replays int
	turn    int       // in its key
	stored  time.Time // by this process, and no look has shown it yet; zero = it was read
}

// letterOf reads what can block a key: a dead letter of ours that has one. What only points at a message blocks nothing, for that is still with the group, and
// blocks its key by itself.
func letterOf(m *Message) (*letter, bool) {
	id := m.Headers.Get(headerDeadID)
	if id == "" || m.Key == "" || m.Headers.Get(headerDeadPayload) != "" {
		return nil, false
	}
	// not what the message shares its memory with: a letter is kept for long
	l := &letter{
		Life: deadevent.Life{ID: strings.Clone(id), Message: strings.Clone(m.ID)}, key: strings.Clone(m.Key),
		source: strings.Clone(m.Headers.Get(headerDeadPosition)), parent: strings.Clone(m.Headers.Get(headerReplayOf)),
	}
	if l.again = l.parent != ""; l.again {
		l.replays, _ = strconv.Atoi(m.Headers.Get(headerReplays)) // somebody else's says nothing
	}
	if of := m.Headers.Get(headerDeadEditOf); of != "" { // it has what its original had of replays, too
		l.parent, l.again = strings.Clone(of), false
	}
	return l, true
}

// A book knows the dead letters of a group, and which of them are open: nobody has resolved or discarded them. It keeps those that are done with, too: one may be
// restored, and a replay that was handled may come again.
type book struct {
	fates   *deadevent.Fates
	letters map[string]*letter
	spots   map[spot]*letter // the last one of a message that lay there
	keys    map[string]*line
	open    map[string]*letter // the first open one of each key that has any
	mine    []*letter          // that this process has stored, and no look has shown, oldest first; some are not so any more
	turns   int
	twins   map[string]int               // the turns of dead letters of ours of which the broker may have made none
	told    func(l *letter, opened bool) // of a key that is blocked by a letter, or that was and is open; nil = nobody
}

// A spot names what a dead letter was made of: where the broker knows that it has one of it, it takes another for a duplicate.
type spot struct{ message, source string }

func (l *letter) spot() spot { return spot{l.Message, l.source} }

func (b *book) done(l *letter) bool {
	fate, _ := b.fates.Of(l.Life, l.replays)
	return fate.Done()
}

// A line has the dead letters of a key in their turns.
type line struct {
	letters []*letter
	done    int // so many of the first are done with
}

func newBook() *book {
	return &book{fates: deadevent.NewFates(), letters: map[string]*letter{}, spots: map[spot]*letter{}, keys: map[string]*line{}, open: map[string]*letter{}, twins: map[string]int{}}
}

// add takes a dead letter in. What was replayed and failed again keeps the turn of the one that it was replayed from: its followers, replayed behind it, are
// not to pass it.
func (b *book) add(l *letter) {
	if l.again {
		b.fates.NoteReplay(deadevent.Life{ID: l.parent, Message: l.Message}, l.replays)
	}
	parent := b.letters[l.parent]
	if parent != nil && (parent.key != l.key || l.again && parent.Message != l.Message) { // it is of another key, or says so only
		parent = nil
	}
	if known := b.letters[l.ID]; known != nil {
		if l.stored.IsZero() {
			known.stored = time.Time{}
		}
		return
	}
	if l.turn = b.turns; parent != nil {
		l.turn = parent.turn
	}
	switch same := b.spots[l.spot()]; {
	case same == nil || same.key != l.key:
	case l.stored.IsZero() && !same.stored.IsZero():
		b.twins[same.ID] = same.turn
		b.forget(same) // the broker took it for a duplicate of this one; or it has both, and shows it yet
		l.turn = same.turn
	case !l.stored.IsZero() && !b.done(same):
		b.twins[l.ID] = l.turn // the same the other way round; if it has both, what follows comes behind both
		b.turns++
		return
	}
	if turn, ok := b.twins[l.ID]; ok && l.stored.IsZero() {
		l.turn = turn
		delete(b.twins, l.ID)
	}
	b.turns++
	b.letters[l.ID], b.spots[l.spot()] = l, l
	if !l.stored.IsZero() {
		b.mine = append(b.mine, l)
	}
	k := b.keys[l.key]
	if k == nil {
		k = &line{}
		b.keys[l.key] = k
	}
	at, _ := slices.BinarySearchFunc(k.letters, l.turn+1, func(o *letter, turn int) int { return o.turn - turn })
	k.letters = slices.Insert(k.letters, at, l)
	k.done = min(k.done, at)
	b.weigh(l.key)
}

// forget takes a dead letter out.
func (b *book) forget(l *letter) {
	delete(b.letters, l.ID)
	k := b.keys[l.key]
	if i := slices.Index(k.letters, l); i >= 0 {
		k.letters = slices.Delete(k.letters, i, i+1)
		k.done = min(k.done, i)
	}
}

// missing are those that this process has stored since a time, and that no look has shown. The others it forgets: a look that began later has not shown
// them, so they are gone, or the broker took them for duplicates.
func (b *book) missing(since time.Time) []*letter {
	b.mine = slices.DeleteFunc(b.mine, func(l *letter) bool {
		switch {
		case b.letters[l.ID] != l || l.stored.IsZero():
			return true
		case l.stored.After(since):
			return false
		}
		b.forget(l)
		b.weigh(l.key)
		return true
	})
	return b.mine
}

// note takes in what became of dead letters.
func (b *book) note(e *deadevent.Event) {
	b.fates.Note(e.Operation, e.IDs, e.Messages, deadevent.Stamp{})
	for _, id := range e.IDs {
		l := b.letters[id]
		if l == nil {
			continue
		}
		if e.Operation == deadevent.Restore {
			b.keys[l.key].done = 0
		}
		b.weigh(l.key)
	}
}

// weigh finds the first open one of a key.
func (b *book) weigh(key string) {
	k, was := b.keys[key], b.open[key]
	for k.done < len(k.letters) {
		if l := k.letters[k.done]; !b.done(l) {
			b.open[key] = l
			if was == nil && b.told != nil {
				b.told(l, false)
			}
			return
		}
		k.done++
	}
	delete(b.open, key)
	if was != nil && b.told != nil {
		b.told(was, true)
	}
}

// before is the dead letter behind which a message has to stay, nil if it may be handled: its key is open, or it is the replay of a dead letter before whose turn
// none is open. A replay is what it says only if that dead letter is known, has its key and is of this message.
func (b *book) before(m *Message, replay bool) *letter {
	first := b.open[m.Key]
	if first == nil || !replay {
		return first
	}
	if l := b.letters[m.Headers.Get(headerReplayOf)]; l != nil && l.Message == m.ID && l.key == m.Key && l.turn <= first.turn {
		return nil
	}
	return first
}

// A keyBlockedError is why a message follows another one to the dead letters.
type keyBlockedError struct{ deadevent.Life }

func (e *keyBlockedError) Error() string {
	return fmt.Sprintf("its key is blocked: message %q is a dead letter, %s, that is neither resolved nor discarded", e.Message, e.ID)
}

// follow lets an item go to the dead letters if its key is blocked. It is the first of its key that is not settled, so nothing before it is on its way
// there. One that is on its way there gets there also when its key opens meanwhile, since it may be stored already.
//
// A suspect of a key goes there, too: in the quarantine it would be handled behind its followers, which know nothing of it. mu is held.
func (c *Consumer) follow(it *item) {
	if it.job != taskHandle && it.job != taskQuarantine {
		return
	}
	if l := c.blocks.book.before(it.rec.Msg, it.replay); l != nil {
		it.job, it.why = taskDeadLetter, verdict{reason: ReasonKeyBlocked, err: &keyBlockedError{l.Life}}
	} else if it.job == taskQuarantine && it.rec.Msg.Key != "" {
		it.job, it.why = taskDeadLetter, verdict{reason: ReasonProcessKiller, err: suspectError(it.rec.Deliveries)}
	}
}

// A suspectError is why a message is given up that nobody has seen end a process: it is how often that was delivered.
type suspectError int32

func (e suspectError) Error() string {
	return fmt.Sprintf("it was delivered %d times without an outcome, so its handler may take the process down; in the quarantine its key would pass it", int32(e))
}

// blockKey blocks the key of an item whose dead letter is stored. It comes before the key is let go. mu is held.
func (c *Consumer) blockKey(it *item) {
	it.letter.stored = time.Now()
	c.blocks.book.add(it.letter)
	it.letter = nil
	c.watchKeys()
}

// resolvesKey takes in that the success of a replay is stored. mu is held.
func (c *Consumer) resolvesKey(it *item) {
	m := it.rec.Msg
	e := deadevent.Event{Operation: deadevent.Resolved, IDs: deadevent.Texts{m.Headers.Get(headerReplayOf)}, Messages: deadevent.Texts{m.ID}}
	if c.blocks.reading {
		c.blocks.missed = append(c.blocks.missed, e)
	}
	c.blocks.book.note(&e)
}
