package conformance_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

var errNetworkCut = errors.New("network: the connection is cut")

// A network lies between clients and a broker. What clients say always arrives; what the broker says may not.
type network struct {
	mu        sync.Mutex
	half      chan struct{} // closed when the connections that are half-open are cut; nil = none is
	paused    bool          // the broker's followers: it has messages and confirms none
	swallowed int           // answers
	unsaid    int           // confirmations, for want of followers
	producers map[*netProducer]struct{}
}

func newNetwork() *network { return &network{producers: map[*netProducer]struct{}{}} }

// answer waits while the answer does not come. broken is told that there was one.
func (n *network) answer(ctx context.Context, broken *atomic.Bool) error {
	n.mu.Lock()
	half := n.half
	if half != nil {
		n.swallowed++
		broken.Store(true)
	}
	n.mu.Unlock()
	if half == nil {
		if broken.Load() {
			return errNetworkCut
		}
		return nil
	}
	select {
	case <-half:
		return errNetworkCut
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (n *network) halfOpen() conformance.Fault {
	return conformance.Fault{Name: conformance.HalfOpen, Strike: func(context.Context) (func(context.Context) (bool, error), error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		before := n.swallowed
		n.half = make(chan struct{})
		return func(context.Context) (bool, error) {
			n.mu.Lock()
			close(n.half)
			n.half = nil
			effect := n.swallowed > before
			n.mu.Unlock()
			n.tell(func(p *netProducer) bool { return p.broken.Load() })
			return effect, nil
		}, nil
	}}
}

func (n *network) pauseFollowers() conformance.Fault {
	return conformance.Fault{Name: "pause the followers", Strike: func(context.Context) (func(context.Context) (bool, error), error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		before := n.unsaid
		n.paused = true
		return func(context.Context) (bool, error) {
			n.mu.Lock()
			n.paused = false
			effect := n.unsaid > before
			n.mu.Unlock()
			return effect, n.tell(func(*netProducer) bool { return true })
		}, nil
	}}
}

// wipeLeader ends the broker. A follower takes over, which has everything that was ever confirmed.
func (n *network) wipeLeader(h conformance.Harness) conformance.Fault {
	return conformance.Fault{Name: "wipe the leader", Strike: func(ctx context.Context) (func(context.Context) (bool, error), error) {
		d, err := h.Driver(ctx)
		if err != nil {
			return nil, err
		}
		before := d.Ping(ctx)
		err = h.Kill(ctx)
		after := d.Ping(ctx)
		err = errors.Join(err, d.Close(ctx), h.Start(ctx))
		return func(context.Context) (bool, error) { return before == nil && after != nil, nil }, err
	}}
}

// tell lets producers know what they have waited for.
func (n *network) tell(which func(p *netProducer) bool) error {
	n.mu.Lock()
	var all []*netProducer
	for p := range n.producers {
		if which(p) {
			all = append(all, p)
		}
	}
	n.mu.Unlock()
	for _, p := range all {
		p.flush()
	}
	return nil
}

// A netDriver is a connection through the network.
type netDriver struct {
	pubsub.Driver
	pubsub.Browser
	pubsub.Lagger
	pubsub.Seeker
	pubsub.Purger
	pubsub.Waiter
	pubsub.Rescheduler
	pubsub.Lister
	n *network
}

func (n *network) over(d pubsub.Driver) pubsub.Driver {
	return netDriver{d, d.(pubsub.Browser), d.(pubsub.Lagger), d.(pubsub.Seeker), d.(pubsub.Purger), d.(pubsub.Waiter), d.(pubsub.Rescheduler), d.(pubsub.Lister), n}
}

func (d netDriver) Classify(err error) (pubsub.Code, bool) {
	if errors.Is(err, errNetworkCut) {
		return pubsub.ErrUnavailable, false
	}
	return d.Driver.Classify(err)
}

func (d netDriver) Ping(ctx context.Context) error {
	return errors.Join(d.n.answer(ctx, new(atomic.Bool)), d.Driver.Ping(ctx))
}

func (d netDriver) Ensure(ctx context.Context, t pubsub.Topology, m pubsub.Manage) error {
	if err := d.n.answer(ctx, new(atomic.Bool)); err != nil {
		return err
	}
	return d.Driver.Ensure(ctx, t, m)
}

func (d netDriver) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	if err := d.n.answer(ctx, new(atomic.Bool)); err != nil {
		return nil, err
	}
	p := &netProducer{n: d.n, report: report}
	below, err := d.Driver.OpenProducer(ctx, s, p.answers)
	if err != nil {
		return nil, err
	}
	p.Producer = below
	d.n.mu.Lock()
	defer d.n.mu.Unlock()
	d.n.producers[p] = struct{}{}
	return p, nil
}

type netProducer struct {
	pubsub.Producer
	n      *network
	report func([]pubsub.Result)
	broken atomic.Bool // an answer was swallowed

	mu   sync.Mutex
	late []pubsub.Result // held up
}

func (p *netProducer) answers(rs []pubsub.Result) {
	p.n.mu.Lock()
	half, paused := p.n.half != nil, p.n.paused
	if half {
		p.n.swallowed++
		p.broken.Store(true)
	}
	if paused {
		p.n.unsaid++
	}
	p.n.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if half || paused || p.broken.Load() {
		p.late = append(p.late, rs...)
		return
	}
	p.report(rs)
}

// flush says what was held up: nobody knows it of a connection that was cut.
func (p *netProducer) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.late {
		if p.broken.Load() {
			p.late[i] = pubsub.Result{Seq: p.late[i].Seq, Fate: pubsub.FateUnknown, Err: errNetworkCut}
		}
	}
	if len(p.late) > 0 {
		p.report(p.late)
	}
	p.late = nil
}

func (p *netProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	p.n.mu.Lock()
	cut := p.n.half == nil && p.broken.Load()
	p.n.mu.Unlock()
	if cut {
		return 0, errNetworkCut
	}
	return p.Producer.Send(ctx, run)
}

func (p *netProducer) Close(ctx context.Context) error {
	p.n.mu.Lock()
	delete(p.n.producers, p)
	waits := p.n.paused
	p.n.mu.Unlock()
	err := p.Producer.Close(ctx)
	if waits { // nobody knows
		p.broken.Store(true)
	}
	p.broken.CompareAndSwap(false, p.holds())
	p.flush()
	return err
}

// holds says whether there is something that nobody was told.
func (p *netProducer) holds() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.late) > 0
}

func (d netDriver) OpenSource(ctx context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	if err := d.n.answer(ctx, new(atomic.Bool)); err != nil {
		return nil, err
	}
	below, err := d.Driver.OpenSource(ctx, s)
	if err != nil {
		return nil, err
	}
	return &netSource{Source: below, n: d.n}, nil
}

type netSource struct {
	pubsub.Source
	n      *network
	broken atomic.Bool // an answer was swallowed
}

func (s *netSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := s.Source.Recv(ctx, buf, maxBytes)
	if n == 0 && len(events) == 0 && ctx.Err() != nil {
		return 0, nil, err
	}
	if cut := s.n.answer(ctx, &s.broken); cut != nil {
		return 0, nil, cut
	}
	return n, events, err
}

func (s *netSource) Settle(ctx context.Context, list []pubsub.Settlement, errs []error) error {
	err := s.Source.Settle(ctx, list, errs)
	return errors.Join(s.n.answer(ctx, &s.broken), err)
}

func (s *netSource) Renew(ctx context.Context, list []pubsub.Renewal, errs []error) error {
	err := s.Source.Renew(ctx, list, errs)
	return errors.Join(s.n.answer(ctx, &s.broken), err)
}

func (s *netSource) Sync(ctx context.Context) error {
	return errors.Join(s.Source.Sync(ctx), s.n.answer(ctx, &s.broken))
}

func (s *netSource) Quiesce(ctx context.Context) error {
	return errors.Join(s.Source.Quiesce(ctx), s.n.answer(ctx, &s.broken))
}

func (s *netSource) RecordAs(t pubsub.Token, target any) bool {
	a, ok := s.Source.(pubsub.RecordAser)
	return ok && a.RecordAs(t, target)
}
