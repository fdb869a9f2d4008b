package dlq

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/user"
	"time"

	"github.com/omnibus-go/omnibus/internal/deadevent"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A Note is who does something, and why, for the audit record of it.
type Note struct {
	By  string // "" = the user of this process, "name@host"
	Why string // any text
}

func (n Note) by() string {
	if n.By != "" {
		return n.By
	}
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname() // without it the name says something still
	return name + "@" + host
}

// An Operation is what was done, from a closed set.
type Operation string

const (
	OpReplayed Operation = deadevent.Replayed // the broker has confirmed the replays of Entry.IDs
	OpResolved Operation = deadevent.Resolved // the handler has succeeded on the replays of Entry.IDs
	OpDiscard  Operation = deadevent.Discard  // of Entry.IDs
	OpRestore  Operation = deadevent.Restore  // of Entry.IDs, which were discarded
	OpGroup    Operation = "group"            // Entry.Group has Entry.Status from then on
	OpImport   Operation = "import"           // of Entry.IDs
	OpEdit     Operation = deadevent.Edit     // of the first of Entry.IDs, which is discarded, into the second
	OpPurge    Operation = "purge"            // Entry.Total dead letters are to be removed; Entry.Text says up to where
	OpStart    Operation = "replay-started"   // of Entry.Plan, with Entry.Total messages
	OpProgress Operation = "replay-progress"  // Entry.Done are confirmed and Entry.Failed cannot be sent
	OpEnd      Operation = "replay-ended"     // the same; Entry.Text says why, if not because it is complete
	OpPause    Operation = "replay-pause"     // somebody asks for it
	OpResume   Operation = "replay-resume"    // the same
	OpCancel   Operation = "replay-cancel"    // the same
	OpRetryNow Operation = "retry-now"        // the waiting retries of Entry.Messages are to come at once
	OpGiveUp   Operation = "dead-letter-now"  // the same, are to become dead letters
)

// An Entry is an audit record: one thing that was done to the dead letters of a group, or that the engine has told of them.
type Entry struct {
	ID        string      // its own
	Operation Operation   // what was done; one that a later version knows may be none of the constants
	At        time.Time   // by the clock of who did it
	By, Why   string      // who did it and why, see Note
	IDs       []string    // of dead letters, at most some hundred: an operation on more of them has several entries
	Messages  []string    // of OpResolved: the IDs of their messages; of OpRetryNow and OpGiveUp those of the messages that waited
	Plan      string      // the replay
	Group     string      // its fingerprint
	Status    GroupStatus // of it
	Through   time.Time   // of it: the latest failure that whoever set the status knew of
	Total     int         // messages of a plan, or dead letters of a purge
	Done      int         // of a plan: confirmed by the broker
	Failed    int         // of a plan: cannot be sent
	Text      string      // why a plan has ended before its end, or up to where a purge went; "" = nothing to say
}

// Audit yields what was done to the dead letters, the oldest first. It is kept as long as they are; where a broker can bound that, see its adapter. Of a
// Queue of OpenTopic nothing is kept: an ErrUnsupported.
func (q *Queue) Audit(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := q.keepsState("audit"); err != nil {
			yield(Entry{}, err)
			return
		}
		for rec, err := range q.b.Browse(ctx, q.stateAt(), pubsub.Position{}) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if e, ok := entryOf(rec.Msg); ok && !yield(e, nil) {
				return
			}
		}
	}
}

// entryOf reads an entry; what is none says nothing.
func entryOf(m *pubsub.Message) (Entry, bool) {
	e, ok := deadevent.Decode(m.Type, m.Payload)
	return Entry{
		ID: m.ID, Operation: Operation(e.Operation), At: e.At, By: e.By, Why: e.Why, IDs: e.IDs, Messages: e.Messages, Plan: e.Plan,
		Group: e.Group, Status: GroupStatus(e.Status), Through: e.Through, Total: e.Total, Done: e.Done, Failed: e.Failed, Text: e.Text,
	}, ok
}

func (q *Queue) stateAt() pubsub.Place {
	return pubsub.Place{Topic: q.place.Topic, Group: q.place.Group, Kind: pubsub.PlaceState}
}

// keepsState says whether there is a place for what becomes of these dead letters.
func (q *Queue) keepsState(op string) error {
	switch {
	case q.place.Topic == "" || q.place.Kind == pubsub.PlaceDead && q.place.Group == "":
		return q.fail(op, pubsub.ErrInvalid, errNoPlace, "")
	case q.place.Kind != pubsub.PlaceDead:
		return q.fail(op, pubsub.ErrUnsupported, errors.New("what becomes of dead letters in a topic is kept nowhere"),
			"only a group's own dead letters, see Open, have a state")
	}
	return nil
}

var errNoPlace = errors.New("no topic, or no group")

// tell writes an entry, and returns when the broker has confirmed it.
func (q *Queue) tell(ctx context.Context, e Entry, n Note) error {
	m, token, err := e.message(n)
	if err != nil { // a time beyond the year 9999
		return q.fail("audit", pubsub.ErrInvalid, err, "")
	}
	return q.store(ctx, q.b, q.stateAt(), m, token)
}

// message is what is stored of an entry, and the token by which a broker with Capabilities.Dedup knows it again.
func (e Entry) message(n Note) (m pubsub.Message, token pubsub.Dedup, err error) {
	id, at := rand.Text(), time.Now().UTC()
	payload, key, err := deadevent.Encode(&deadevent.Event{
		Operation: string(e.Operation), At: at, By: n.by(), Why: n.Why, IDs: e.IDs, Messages: e.Messages, Plan: e.Plan,
		Group: e.Group, Status: string(e.Status), Through: e.Through, Total: e.Total, Done: e.Done, Failed: e.Failed, Text: e.Text,
	})
	sum := hash("event", id)
	copy(token[:], sum[:])
	return pubsub.Message{ID: id, Type: deadevent.Type, Key: key, Payload: payload, ContentType: "application/json", Time: at}, token, err
}

// store sends a message to a place and waits for its answer. When ctx ends before that nobody knows whether it is there.
func (q *Queue) store(ctx context.Context, b *pubsub.Broker, to pubsub.Place, m pubsub.Message, token pubsub.Dedup) error {
	answer := make(chan error, 1)
	b.Resend(ctx, to, m, token, func(_ pubsub.Receipt, err error) { answer <- err })
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return q.fail("store", pubsub.ErrCanceled, fmt.Errorf("without an answer of the broker: %w", context.Cause(ctx)), "")
	}
}

// tellOf writes entries about many dead letters.
func (q *Queue) tellOf(ctx context.Context, e Entry, ids []string, n Note) (told int, err error) {
	most := deadevent.MaxNames
	for len(ids) > 0 {
		e.IDs = q.together(ids[:min(len(ids), most)])
		err := q.tell(ctx, e, n)
		switch {
		case err == nil:
			told += len(e.IDs)
			ids = ids[len(e.IDs):]
		case errors.Is(err, pubsub.ErrTooLarge) && len(e.IDs) > 1:
			most = 1
		default:
			return told, err
		}
	}
	return told, nil
}

// together are as many of the first of some IDs as fit into one entry, and at least one.
func (q *Queue) together(ids []string) []string {
	room := q.room()
	for i, id := range ids {
		if room -= deadevent.Size(id); room < 0 && i > 0 {
			return ids[:i]
		}
	}
	return ids
}

func (q *Queue) room() int64 { return deadevent.Room(q.b.Capabilities().MaxMessage) }

// A tail reads the entries that were added since it was asked last.
type tail struct {
	at pubsub.Position // of the last one that was read
	n  int             // how many were read, where there are no positions
}

func (t *tail) read(ctx context.Context, q *Queue, f func(*Entry)) error {
	seen := 0
	for rec, err := range q.b.Browse(ctx, q.stateAt(), t.at) {
		switch {
		case err != nil:
			return err
		case rec.Pos == (pubsub.Position{}):
			if seen++; seen <= t.n {
				continue
			}
			t.n = seen
		case rec.Pos == t.at:
			continue
		}
		t.at = rec.Pos
		if e, ok := entryOf(rec.Msg); ok {
			f(&e)
		}
	}
	return nil
}
