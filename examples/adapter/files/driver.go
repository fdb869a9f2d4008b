package files

import (
	"context"
	"errors"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A driver is a connection.
type driver struct {
	bus    *Bus
	closed bool
}

// A codeError is an error of the Bus itself. The engine adds what it was about.
type codeError pubsub.Code

func (e codeError) Error() string { return "files: " + pubsub.Code(e).Error() }

func (d *driver) Name() string { return "files" }
func (d *driver) As(any) bool  { return false } // there is no native client

const maxMessage = 1 << 20

func (d *driver) Capabilities() pubsub.Capabilities {
	return pubsub.Capabilities{
		Durability: pubsub.Process,
		Redelivery: true,
		LeaseMax:   pubsub.Forever,
		RetryIn:    pubsub.Forever, RetryLate: 50 * time.Millisecond,
		MaxMessage: maxMessage - pubsub.Headroom,
	}
}

func (d *driver) Classify(err error) (code pubsub.Code, final bool) {
	if e, ok := errors.AsType[codeError](err); ok {
		return pubsub.Code(e), e != codeError(pubsub.ErrUnavailable)
	}
	return pubsub.ErrBroker, true // of the file system: a full disk, no permission
}

// do calls f with the lock of a Bus that answers.
func (d *driver) do(f func() error) error {
	d.bus.mu.Lock()
	defer d.bus.mu.Unlock()
	if d.closed || d.bus.down {
		return codeError(pubsub.ErrUnavailable)
	}
	return f()
}

func (d *driver) Ping(context.Context) error { return d.do(func() error { return nil }) }

func (d *driver) Close(context.Context) error {
	d.bus.mu.Lock()
	defer d.bus.mu.Unlock()
	d.closed = true
	for _, q := range d.bus.queues {
		for _, s := range slices.Clone(q.members) {
			if s.d == d {
				s.die(codeError(pubsub.ErrUnavailable))
			}
		}
	}
	return nil
}

func (d *driver) Ensure(_ context.Context, t pubsub.Topology, m pubsub.Manage) error {
	return d.do(func() (err error) {
		for _, spec := range t.Topics {
			if spec != (pubsub.TopicSpec{Name: spec.Name}) { // a folder has no settings
				return codeError(pubsub.ErrUnsupported)
			}
			_, topicErr := d.bus.ensure(pubsub.Place{Topic: spec.Name}, 0, m)
			err = errors.Join(err, topicErr)
		}
		for _, g := range t.Groups {
			_, groupErr := d.bus.ensure(pubsub.Place{Topic: g.Topic, Group: g.Group}, g.AckWait, m)
			err = errors.Join(err, groupErr)
		}
		return err
	})
}

// Browse makes the driver a pubsub.Browser: dead letters can be looked at. What was never written to is empty.
func (d *driver) Browse(_ context.Context, p pubsub.Place, _ pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return func(yield func(pubsub.Record, error) bool) {
		var all []pubsub.Record // so that nobody's loop holds the lock
		err := d.do(func() error {
			q, err := d.bus.queue(d.bus.path(p))
			for _, n := range slices.Sorted(maps.Keys(q.entries)) {
				all = append(all, pubsub.Record{Msg: q.entries[n].msg, Topic: p.Topic, Pos: pubsub.NewPosition(1, int64(n), 0, 0)})
			}
			return err
		})
		if err != nil && !errors.Is(err, codeError(pubsub.ErrNotFound)) && !yield(pubsub.Record{}, err) {
			return
		}
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// A producer stores at once, and tells the fate of each message before Send returns.
type producer struct {
	d      *driver
	report func([]pubsub.Result)
}

func (d *driver) OpenProducer(_ context.Context, _ pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	return &producer{d, report}, d.Ping(context.Background())
}

func (p *producer) Close(context.Context) error { return nil }

func (p *producer) Send(_ context.Context, run []pubsub.Out) (int, error) {
	results := make([]pubsub.Result, 0, len(run))
	err := p.d.do(func() error {
		for _, o := range run {
			r := pubsub.Result{Seq: o.Seq, Fate: pubsub.FateAccepted}
			if r.Err = p.d.bus.store(o); r.Err != nil {
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

// store puts a message where it is to go: to every group of a topic, or to one place.
func (b *Bus) store(o pubsub.Out) (err error) {
	if o.Msg.Size() > maxMessage {
		return codeError(pubsub.ErrTooLarge)
	}
	paths := []string{b.path(o.To)}
	switch o.To.Kind {
	case pubsub.PlaceMain:
		paths, err = filepath.Glob(filepath.Join(b.dir, o.To.Topic, "group.*"))
	case pubsub.PlaceDead, pubsub.PlaceState:
		_, err = b.ensure(o.To, 0, pubsub.Create)
	}
	if err == nil && len(paths) == 0 {
		err = codeError(pubsub.ErrUnroutable)
	}
	if err != nil {
		return err
	}
	for _, path := range paths {
		q, openErr := b.queue(path)
		if openErr == nil {
			openErr = q.put(o.Msg)
		}
		err = errors.Join(err, openErr)
	}
	return err
}
