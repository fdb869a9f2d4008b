package conformance_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A fileBus is an adapter as a stranger would write it, from the documentation of pubsub.Driver alone: a folder for each topic, in it a file for
// each group, to which every change is appended. Its lock guards whatever belongs to it.
type fileBus struct {
	dir string

	sync.Mutex
	down   bool
	queues map[string]*fileQueue // by path; what is not there is in the files
}

// A fileQueue is what a group has before it.
type fileQueue struct {
	first   fileLine
	path    string
	entries map[int]*fileEntry // those that nobody has acked
	end     int
	members []*fileSource
}

// A fileLine makes a queue, puts a message at its end, or takes the one away that Ack is one more than.
type fileLine struct {
	AckWait   time.Duration
	Exclusive bool
	Msg       *pubsub.Message
	Empty     bool // its payload is: gob does not tell that from none
	Ack       int
}

type fileEntry struct {
	msg    *pubsub.Message
	owner  *fileSource
	due    time.Time
	failed int32
}

type fileError pubsub.Code

func (e fileError) Error() string { return "files: " + pubsub.Code(e).Error() }

// end ends the sessions of one connection (nil: of all).
func (b *fileBus) end(of *fileDriver, down bool) error {
	b.Lock()
	defer b.Unlock()
	b.down = down
	for _, q := range b.queues {
		for _, s := range slices.Clone(q.members) {
			if of == nil || s.d == of {
				s.die(fileError(pubsub.ErrUnavailable))
			}
		}
	}
	if of == nil {
		clear(b.queues)
	}
	return nil
}

func (b *fileBus) path(p pubsub.Place) string {
	switch p.Kind {
	case pubsub.PlaceDead:
		p.Group += ".dead"
	case pubsub.PlaceState:
		p.Group += ".state"
	}
	return filepath.Join(b.dir, p.Topic, p.Group)
}

// open finds a queue; without one the error is ErrNotFound.
func (b *fileBus) open(path string) (*fileQueue, error) {
	if q := b.queues[path]; q != nil {
		return q, nil
	}
	q := &fileQueue{path: path, entries: map[int]*fileEntry{}}
	text, err := os.ReadFile(path)
	if err != nil {
		return q, fileError(pubsub.ErrNotFound)
	}
	for in := bytes.NewBuffer(text); in.Len() > 0; {
		var l fileLine
		if err := gob.NewDecoder(in).Decode(&l); err != nil {
			return q, err
		}
		switch {
		case l.Msg != nil:
			if l.Empty {
				l.Msg.Payload = []byte{}
			}
			q.entries[q.end] = &fileEntry{msg: l.Msg}
			q.end++
		case l.Ack > 0:
			delete(q.entries, l.Ack-1)
		default:
			q.first = l
		}
	}
	b.queues[path] = q
	return q, nil
}

func (q *fileQueue) write(l fileLine) error {
	f, err := os.OpenFile(q.path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(gob.NewEncoder(f).Encode(l), f.Close())
}

func (q *fileQueue) put(m *pubsub.Message) error {
	if err := q.write(fileLine{Msg: m, Empty: m.Payload != nil && len(m.Payload) == 0}); err != nil {
		return err
	}
	q.entries[q.end] = &fileEntry{msg: m}
	q.end++
	q.wake()
	return nil
}

func (q *fileQueue) wake() {
	for _, s := range q.members {
		s.look()
	}
}

// ensure finds or makes a topic and, where a group is named, its queue.
func (b *fileBus) ensure(p pubsub.Place, want fileLine, m pubsub.Manage) (*fileQueue, error) {
	topic := filepath.Join(b.dir, p.Topic)
	if m == pubsub.Create {
		if err := os.MkdirAll(topic, 0o755); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(topic); err != nil {
		return nil, fileError(pubsub.ErrNotFound)
	}
	if p.Group == "" {
		return nil, nil
	}
	q, err := b.open(b.path(p))
	switch {
	case err == nil && q.first != want:
		return nil, fileError(pubsub.ErrConflict)
	case errors.Is(err, fileError(pubsub.ErrNotFound)) && m == pubsub.Create:
		q.first, b.queues[q.path] = want, q
		return q, q.write(want)
	}
	return q, err
}

// A fileDriver is a connection to a fileBus.
type fileDriver struct {
	*fileBus
	closed bool
}

func (d *fileDriver) Name() string { return "files" }
func (d *fileDriver) As(any) bool  { return false }

// maxFileMessage is what a file takes at a time.
const maxFileMessage = 1 << 20

func (d *fileDriver) Capabilities() pubsub.Capabilities {
	return pubsub.Capabilities{
		Durability: pubsub.Process, Redelivery: true, Exclusive: true, LeaseMax: pubsub.Forever, RetryIn: pubsub.Forever, RetryLate: 50 * time.Millisecond,
		MaxMessage: maxFileMessage - pubsub.Headroom,
	}
}

func (d *fileDriver) Classify(err error) (pubsub.Code, bool) {
	if e, ok := errors.AsType[fileError](err); ok {
		return pubsub.Code(e), e != fileError(pubsub.ErrUnavailable)
	}
	return pubsub.ErrBroker, true
}

// do calls f with the lock of a bus that is there.
func (d *fileDriver) do(f func() error) error {
	d.Lock()
	defer d.Unlock()
	if d.closed || d.down {
		return fileError(pubsub.ErrUnavailable)
	}
	return f()
}

func (d *fileDriver) Ping(context.Context) error { return d.do(func() error { return nil }) }

func (d *fileDriver) Close(context.Context) error {
	_ = d.do(func() error { d.closed = true; return nil })
	return d.end(d, d.down)
}

func (d *fileDriver) Ensure(_ context.Context, t pubsub.Topology, m pubsub.Manage) error {
	return d.do(func() (err error) {
		for _, spec := range t.Topics {
			if spec != (pubsub.TopicSpec{Name: spec.Name}) { // a directory has no settings
				return fileError(pubsub.ErrUnsupported)
			}
			_, topicErr := d.ensure(pubsub.Place{Topic: spec.Name}, fileLine{}, m)
			err = errors.Join(err, topicErr)
		}
		for _, g := range t.Groups {
			_, groupErr := d.ensure(pubsub.Place{Topic: g.Topic, Group: g.Group}, fileLine{AckWait: g.AckWait, Exclusive: g.Order.Exclusive()}, m)
			err = errors.Join(err, groupErr)
		}
		return err
	})
}

func (d *fileDriver) Browse(_ context.Context, p pubsub.Place, _ pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return func(yield func(pubsub.Record, error) bool) {
		var all []pubsub.Record
		err := d.do(func() error {
			q, err := d.open(d.path(p))
			for n := range q.end {
				all = append(all, pubsub.Record{Msg: q.entries[n].msg, Topic: p.Topic, Pos: pubsub.NewPosition(1, int64(n), 0, 0)})
			}
			return err
		})
		if err != nil && !errors.Is(err, fileError(pubsub.ErrNotFound)) && !yield(pubsub.Record{}, err) {
			return
		}
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// A fileProducer stores at once.
type fileProducer struct {
	d      *fileDriver
	report func([]pubsub.Result)
}

func (d *fileDriver) OpenProducer(_ context.Context, _ pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	return &fileProducer{d: d, report: report}, d.do(func() error { return nil })
}

func (p *fileProducer) Close(context.Context) error { return nil }

func (p *fileProducer) Send(_ context.Context, run []pubsub.Out) (int, error) {
	var results []pubsub.Result
	err := p.d.do(func() error {
		for _, o := range run {
			r := pubsub.Result{Seq: o.Seq, Fate: pubsub.FateAccepted}
			if r.Err = p.d.store(o); r.Err != nil {
				r.Fate = pubsub.FateRefused
			}
			results = append(results, r)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	p.report(results)
	return len(run), nil
}

func (b *fileBus) store(o pubsub.Out) (err error) {
	if o.Msg.Size() > maxFileMessage {
		return fileError(pubsub.ErrTooLarge)
	}
	paths := []string{b.path(o.To)}
	switch o.To.Kind {
	case pubsub.PlaceMain:
		paths, err = filepath.Glob(filepath.Join(b.dir, o.To.Topic, "*"))
		paths = slices.DeleteFunc(paths, func(path string) bool { return slices.Contains([]string{".dead", ".state"}, filepath.Ext(path)) })
	case pubsub.PlaceDead, pubsub.PlaceState:
		_, err = b.ensure(pubsub.Place{Topic: o.To.Topic, Group: filepath.Base(paths[0])}, fileLine{}, pubsub.Create)
	}
	if err == nil && len(paths) == 0 {
		err = fileError(pubsub.ErrUnroutable)
	}
	for _, path := range paths {
		q, openErr := b.open(path)
		if openErr == nil {
			openErr = q.put(o.Msg)
		}
		err = errors.Join(err, openErr)
	}
	return err
}
