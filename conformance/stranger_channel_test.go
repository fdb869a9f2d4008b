package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A channelBus is an adapter as a stranger would write it, from the documentation of pubsub.Driver alone: a Go channel for each group. What was
// received is gone, so it claims next to nothing.
type channelBus struct {
	mu     sync.Mutex
	topics map[string]map[string]*channelGroup // by topic, by group
}

type channelGroup struct {
	messages chan *pubsub.Message
	mine     bool // of one Broadcast consumer
}

const channelRoom = 1 << 15

type channelError struct {
	code pubsub.Code
	text string
}

func (e channelError) Error() string { return "channels: " + e.text }

func newChannelBus() *channelBus {
	return &channelBus{topics: map[string]map[string]*channelGroup{}}
}

// topic finds a topic, or makes it. mu is held.
func (b *channelBus) topic(name string, m pubsub.Manage) (map[string]*channelGroup, error) {
	t, ok := b.topics[name]
	if !ok {
		if m != pubsub.Create {
			return nil, channelError{pubsub.ErrNotFound, "no topic " + name}
		}
		t = map[string]*channelGroup{}
		b.topics[name] = t
	}
	return t, nil
}

// group finds a group, or makes it. mu is held.
func (b *channelBus) group(topic, name string, m pubsub.Manage) (*channelGroup, error) {
	t, err := b.topic(topic, m)
	if err != nil {
		return nil, err
	}
	g, ok := t[name]
	if !ok {
		if m != pubsub.Create {
			return nil, channelError{pubsub.ErrNotFound, "no group " + name}
		}
		g = &channelGroup{messages: make(chan *pubsub.Message, channelRoom)}
		t[name] = g
	}
	return g, nil
}

// A channelDriver is a connection to a channelBus.
type channelDriver struct {
	b      *channelBus
	ctx    context.Context // ends when it is closed
	cancel context.CancelFunc
}

func (b *channelBus) driver() pubsub.Driver {
	d := &channelDriver{b: b}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

func (d *channelDriver) Name() string { return "channels" }

func (d *channelDriver) Capabilities() pubsub.Capabilities {
	return pubsub.Capabilities{Durability: pubsub.None, OptedDown: true}
}

func (d *channelDriver) Classify(err error) (pubsub.Code, bool) {
	if e, ok := errors.AsType[channelError](err); ok {
		return e.code, e.code != pubsub.ErrUnavailable
	}
	return pubsub.ErrBroker, true
}

func (d *channelDriver) Ensure(_ context.Context, t pubsub.Topology, m pubsub.Manage) error {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	for _, spec := range t.Topics {
		if spec != (pubsub.TopicSpec{Name: spec.Name}) {
			return channelError{pubsub.ErrUnsupported, "topics have no settings"}
		}
		if _, err := d.b.topic(spec.Name, m); err != nil {
			return err
		}
	}
	for _, g := range t.Groups {
		if _, err := d.b.group(g.Topic, g.Group, m); err != nil {
			return err
		}
	}
	return nil
}

func (d *channelDriver) Ping(context.Context) error  { return d.gone() }
func (d *channelDriver) As(any) bool                 { return false }
func (d *channelDriver) Close(context.Context) error { d.cancel(); return nil }

func (d *channelDriver) gone() error {
	if d.ctx.Err() != nil {
		return channelError{pubsub.ErrUnavailable, "the connection is closed"}
	}
	return nil
}

func (d *channelDriver) OpenProducer(_ context.Context, _ pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	return &channelProducer{d, report}, d.gone()
}

type channelProducer struct {
	d      *channelDriver
	report func([]pubsub.Result)
}

func (p *channelProducer) Send(_ context.Context, run []pubsub.Out) (int, error) {
	if err := p.d.gone(); err != nil {
		return 0, err
	}
	for _, o := range run {
		r := pubsub.Result{Seq: o.Seq, Fate: pubsub.FateAccepted}
		if r.Err = p.d.b.publish(o); r.Err != nil {
			r.Fate = pubsub.FateRefused
		}
		p.report([]pubsub.Result{r})
	}
	return len(run), nil
}

func (p *channelProducer) Close(context.Context) error { return nil }

func (b *channelBus) publish(o pubsub.Out) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	groups := b.topics[o.To.Topic]
	if o.To.Kind != pubsub.PlaceMain || len(groups) == 0 {
		return channelError{pubsub.ErrUnroutable, fmt.Sprintf("nobody receives from %v", o.To)}
	}
	for _, g := range groups {
		if len(g.messages) == cap(g.messages) { // only sent to with mu held
			return channelError{pubsub.ErrExhausted, "a group is behind"}
		}
	}
	for _, g := range groups {
		g.messages <- o.Msg
	}
	return nil
}

func (d *channelDriver) OpenSource(_ context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	if err := d.gone(); err != nil {
		return nil, err
	}
	if s.From.Kind != pubsub.PlaceMain {
		return nil, channelError{pubsub.ErrUnsupported, "only topics can be received from"}
	}
	m := s.Manage
	if m == pubsub.Off {
		m = pubsub.Verify
	}
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	src := &channelSource{
		d: d, spec: s, group: s.From.Group,
		gained: []pubsub.LaneEvent{{Kind: pubsub.LaneGained}}, settled: make(chan struct{}, 1), out: map[uint64]bool{},
	}
	if s.From.Group == pubsub.Broadcast {
		src.group = fmt.Sprintf("* %p", src)
		if _, err := d.b.topic(s.From.Topic, m); err != nil {
			return nil, err
		}
		m = pubsub.Create
	}
	g, err := d.b.group(s.From.Topic, src.group, m)
	if err != nil {
		return nil, err
	}
	g.mine = s.From.Group == pubsub.Broadcast
	src.g = g
	return src, nil
}

// A channelSource is a member of a group.
type channelSource struct {
	d       *channelDriver
	spec    pubsub.SourceSpec
	group   string
	g       *channelGroup
	gained  []pubsub.LaneEvent
	settled chan struct{} // one token: there may be room again
	next    uint64

	mu     sync.Mutex
	out    map[uint64]bool // received and not settled
	quiet  bool
	paused bool
}

// room says whether more may be received now.
func (s *channelSource) room() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.quiet && !s.paused && len(s.out) < s.spec.MaxInFlight
}

func (s *channelSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	if events := s.gained; events != nil {
		s.gained = nil
		return 0, events, nil
	}
	for {
		from := s.g.messages
		if len(buf) == 0 || !s.room() {
			from = nil
		}
		select {
		case m := <-from:
			for n := 0; ; {
				buf[n] = s.record(m)
				n, maxBytes = n+1, maxBytes-m.Size()
				if n == len(buf) || maxBytes <= 0 || !s.room() {
					return n, nil, nil
				}
				select {
				case m = <-from:
				default:
					return n, nil, nil
				}
			}
		case <-s.settled:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		case <-s.d.ctx.Done():
			return 0, nil, s.d.gone()
		}
	}
}

func (s *channelSource) record(m *pubsub.Message) pubsub.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	s.out[s.next] = true
	return pubsub.Record{Msg: m, Topic: s.spec.From.Topic, Token: pubsub.Token{A: s.next}}
}

// Settle counts only: what was received does not come again.
func (s *channelSource) Settle(_ context.Context, list []pubsub.Settlement, errs []error) error {
	s.set(func() {
		for i, x := range list {
			if !s.out[x.Token.A] {
				errs[i] = channelError{pubsub.ErrLeaseLost, "settled already"}
			}
			delete(s.out, x.Token.A)
		}
	})
	return s.d.gone()
}

func (s *channelSource) set(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	select {
	case s.settled <- struct{}{}:
	default:
	}
}

func (s *channelSource) Renew(context.Context, []pubsub.Renewal, []error) error { return s.d.gone() }
func (s *channelSource) Sync(context.Context) error                             { return s.d.gone() }
func (s *channelSource) LaneDone(context.Context, pubsub.LaneEvent) error       { return nil }
func (s *channelSource) Pause(_ int32, on bool)                                 { s.set(func() { s.paused = on }) }

func (s *channelSource) Quiesce(context.Context) error {
	s.set(func() { s.quiet = true })
	return s.d.gone()
}

func (s *channelSource) Close(context.Context) error {
	s.d.b.mu.Lock()
	defer s.d.b.mu.Unlock()
	if s.g.mine {
		delete(s.d.b.topics[s.spec.From.Topic], s.group)
	}
	return nil
}
