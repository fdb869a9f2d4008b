package files

import (
	"bytes"
	"encoding/gob"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Bus is the broker of one folder. Safe for concurrent use.
type Bus struct {
	dir string

	mu     sync.Mutex        // guards the queues and their members, too
	down   bool              // it answers nobody
	queues map[string]*queue // by path; what is not here is only in its file
}

// NewBus makes a Bus of a folder, which holds what an earlier one has left there. Nothing is read before it is asked for.
func NewBus(dir string) *Bus { return &Bus{dir: dir, queues: map[string]*queue{}} }

// Driver is a new connection, for pubsub.New.
func (b *Bus) Driver() pubsub.Driver { return &driver{bus: b} }

// A queue is what lies before a group, or in its dead letters.
type queue struct {
	path    string
	ackWait time.Duration
	entries map[int]*entry // what is not acked, by number
	end     int            // the number of the next
	members []*source
}

// A change is what a file is made of: a message at the end, one that is acked, or else the settings of the queue.
type change struct {
	Msg     *pubsub.Message
	Empty   bool // Msg.Payload is empty and not nil: gob writes both alike
	Ack     int  // 1 + its number
	AckWait time.Duration
}

type entry struct {
	msg    *pubsub.Message
	owner  *source   // who has it; nil = nobody
	due    time.Time // not before that
	failed int32     // how often; lives as long as the Bus
}

// path is a queue's file. The part before the dot keeps the kinds apart, whatever a group is called.
func (b *Bus) path(p pubsub.Place) string {
	kind := "group."
	switch p.Kind {
	case pubsub.PlaceDead:
		kind = "dead."
	case pubsub.PlaceState:
		kind = "state."
	}
	return filepath.Join(b.dir, p.Topic, kind+p.Group)
}

// queue finds a queue; where there is none the error is ErrNotFound. What a process that was killed has not written to the end was not
// confirmed, and is cut off.
func (b *Bus) queue(path string) (*queue, error) {
	if q := b.queues[path]; q != nil {
		return q, nil
	}
	q := &queue{path: path, entries: map[int]*entry{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return q, codeError(pubsub.ErrNotFound)
	}
	for in := bytes.NewReader(text); err == nil && in.Len() > 0; {
		whole := in.Size() - int64(in.Len())
		var c change
		switch err = gob.NewDecoder(in).Decode(&c); {
		case errors.Is(err, io.ErrUnexpectedEOF):
			text, in = text[:whole], bytes.NewReader(nil)
			err = os.Truncate(path, whole)
		case err != nil:
		case c.Msg == nil && c.Ack == 0:
			q.ackWait = c.AckWait
		case c.Msg == nil:
			delete(q.entries, c.Ack-1)
		default:
			if c.Empty {
				c.Msg.Payload = []byte{}
			}
			q.entries[q.end] = &entry{msg: c.Msg}
			q.end++
		}
	}
	switch {
	case err == nil && len(text) == 0: // not even its settings
		err = codeError(pubsub.ErrNotFound)
	case err == nil:
		b.queues[path] = q
	}
	return q, err
}

// write appends to the file: whole, or not at all.
func (q *queue) write(c change) error {
	f, err := os.OpenFile(q.path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	before, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		if err = gob.NewEncoder(f).Encode(c); err != nil {
			err = errors.Join(err, f.Truncate(before))
		}
	}
	return errors.Join(err, f.Close())
}

func (q *queue) put(m *pubsub.Message) error {
	if err := q.write(change{Msg: m, Empty: m.Payload != nil && len(m.Payload) == 0}); err != nil {
		return err
	}
	q.entries[q.end] = &entry{msg: m}
	q.end++
	q.wake()
	return nil
}

func (q *queue) wake() {
	for _, s := range q.members {
		s.look()
	}
}

// ensure finds or makes a topic and, where a group is named, its queue.
func (b *Bus) ensure(p pubsub.Place, ackWait time.Duration, m pubsub.Manage) (*queue, error) {
	topic := filepath.Join(b.dir, p.Topic)
	if m == pubsub.Create {
		if err := os.MkdirAll(topic, 0o700); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(topic); err != nil {
		return nil, codeError(pubsub.ErrNotFound)
	}
	if p.Group == "" {
		return nil, nil
	}
	q, err := b.queue(b.path(p))
	switch {
	case err == nil && q.ackWait != ackWait:
		return nil, codeError(pubsub.ErrConflict)
	case m == pubsub.Create && errors.Is(err, codeError(pubsub.ErrNotFound)):
		b.queues[q.path], q.ackWait = q, ackWait
		return q, q.write(change{AckWait: ackWait})
	}
	return q, err
}
