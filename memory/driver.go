package memory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A driver is one connection to a Server.
type driver struct {
	s         *Server
	closed    bool
	sources   map[*source]struct{}
	producers map[*producer]struct{}
}

var (
	_ pubsub.Driver      = (*driver)(nil)
	_ pubsub.Browser     = (*driver)(nil)
	_ pubsub.Lagger      = (*driver)(nil)
	_ pubsub.Seeker      = (*driver)(nil)
	_ pubsub.Purger      = (*driver)(nil)
	_ pubsub.Waiter      = (*driver)(nil)
	_ pubsub.Rescheduler = (*driver)(nil)
	_ pubsub.Lister      = (*driver)(nil)
)

// Name implements pubsub.Driver.
func (d *driver) Name() string { return "memory" }

// Capabilities implements pubsub.Driver.
func (d *driver) Capabilities() pubsub.Capabilities {
	return pubsub.Capabilities{
		Durability: pubsub.Memory, OptedDown: true, History: true, Redelivery: true, Order: pubsub.OrderInGroup, Exclusive: true,
		LeaseMax: pubsub.Forever, Deliveries: true, StoresAttempts: pubsub.StoresAll, FreeRelease: true, RetryIn: pubsub.Forever,
		RetryLate: 100 * time.Millisecond, Schedule: true, Priority: true, Patterns: true, Partitions: true, Dedup: dedupWindow,
		MaxMessage: d.s.cfg.MaxMessage, Lag: pubsub.LagExact, Waiting: pubsub.WaitingManaged,
	}
}

// Classify implements pubsub.Driver.
func (d *driver) Classify(err error) (pubsub.Code, bool) {
	if e, ok := errors.AsType[*brokerError](err); ok {
		return e.code, e.final
	}
	return pubsub.ErrBroker, true
}

// enter takes the server's lock once it answers.
func (d *driver) enter(ctx context.Context) error {
	if err := d.s.enter(ctx); err != nil {
		return err
	}
	if d.closed {
		d.s.mu.Unlock()
		return errGone
	}
	return nil
}

// Ensure implements pubsub.Driver.
func (d *driver) Ensure(ctx context.Context, t pubsub.Topology, m pubsub.Manage) error {
	if err := d.enter(ctx); err != nil {
		return err
	}
	defer d.s.mu.Unlock()
	for _, spec := range t.Topics {
		if err := d.s.ensureTopic(spec, m); err != nil {
			return err
		}
	}
	for _, g := range t.Groups {
		if !pubsub.IsPattern(g.Topic) {
			if err := d.s.ensureTopic(pubsub.TopicSpec{Name: g.Topic}, m); err != nil {
				return err
			}
		}
		if _, err := d.s.ensureGroup(pubsub.Place{Topic: g.Topic, Group: g.Group}, g.Order, g.AckWait, g.Start, m); err != nil {
			return err
		}
	}
	return nil
}

// OpenProducer implements pubsub.Driver.
func (d *driver) OpenProducer(ctx context.Context, _ pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	defer d.s.mu.Unlock()
	p := &producer{d: d, report: report}
	d.producers[p] = struct{}{}
	return p, nil
}

// OpenSource implements pubsub.Driver.
func (d *driver) OpenSource(ctx context.Context, spec pubsub.SourceSpec) (pubsub.Source, error) {
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	defer d.s.mu.Unlock()
	if spec.From.Kind == pubsub.PlaceRetry && spec.From.Tier == 0 {
		return nil, says(pubsub.ErrUnsupported, true, "what is sent to a group alone comes with the group's other messages, not by itself")
	}
	m := spec.Manage
	if m == pubsub.Off {
		m = pubsub.Verify
	}
	if spec.From.Kind == pubsub.PlaceMain && !pubsub.IsPattern(spec.From.Topic) {
		if err := d.s.ensureTopic(pubsub.TopicSpec{Name: spec.From.Topic}, m); err != nil {
			return nil, err
		}
	}
	place, key := spec.From, spec.From
	if place.Group == pubsub.Broadcast {
		d.s.stamp++
		key.Group, m = fmt.Sprintf("* %d", d.s.stamp), pubsub.Create // nobody else's, whatever its name
	}
	g, err := d.s.ensureGroup(key, spec.Order, spec.AckWait, spec.Start, m)
	if err != nil {
		return nil, err
	}
	src := &source{d: d, s: d.s, g: g, spec: spec, ready: make(chan struct{}, 1)}
	d.sources[src] = struct{}{}
	g.join(src)
	return src, nil
}

// Ping implements pubsub.Driver.
func (d *driver) Ping(ctx context.Context) error {
	if err := d.enter(ctx); err != nil {
		return err
	}
	d.s.mu.Unlock()
	return nil
}

// As implements pubsub.Driver: target may be a **Server.
func (d *driver) As(target any) bool {
	s, ok := target.(**Server)
	if ok {
		*s = d.s
	}
	return ok
}

// Close implements pubsub.Driver: what its sessions held goes back, as when their process ends.
func (d *driver) Close(context.Context) error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	if !d.closed {
		d.closed = true
		d.dropSessions(errGone)
		delete(d.s.live, d)
	}
	return nil
}

func (d *driver) dropSessions(err error) {
	for m := range d.sources {
		m.die(err)
	}
	for p := range d.producers {
		p.dead = err
		delete(d.producers, p)
	}
}

// Lag implements pubsub.Lagger.
func (d *driver) Lag(ctx context.Context, topic, name string) (pubsub.Lag, error) {
	if err := d.enter(ctx); err != nil {
		return pubsub.Lag{}, err
	}
	defer d.s.mu.Unlock()
	g := d.s.groups[pubsub.Place{Topic: topic, Group: name}]
	if g == nil {
		return pubsub.Lag{}, says(pubsub.ErrNotFound, true, "there is no group %q of %q", name, topic)
	}
	lag := pubsub.Lag{Kind: pubsub.LagExact}
	for ln := range d.s.lanesOf(g) {
		lag.Messages += ln.pending
		if at := ln.oldest(); !at.IsZero() && (lag.Oldest.IsZero() || at.Before(lag.Oldest)) {
			lag.Oldest = at
		}
	}
	return lag, nil
}

// Seek implements pubsub.Seeker.
func (d *driver) Seek(ctx context.Context, topic, name string, to pubsub.Start) error {
	if err := d.enter(ctx); err != nil {
		return err
	}
	defer d.s.mu.Unlock()
	g := d.s.groups[pubsub.Place{Topic: topic, Group: name}]
	switch {
	case g == nil:
		return says(pubsub.ErrNotFound, true, "there is no group %q of %q", name, topic)
	case len(g.members) > 0:
		return says(pubsub.ErrConflict, true, "group %q of %q has %d members", name, topic, len(g.members))
	}
	g.seek(to)
	return nil
}

// A producer stores what it is given and answers at once.
type producer struct {
	d       *driver
	report  func([]pubsub.Result)
	dead    error
	results []pubsub.Result
	topic   *topic // of the message before: most go to one
}

// topicOf finds a topic, nil if there is none of that name.
func (p *producer) topicOf(name string) *topic {
	if p.topic == nil || p.topic.deleted || p.topic.spec.Name != name {
		p.topic = p.d.s.topics[name]
	}
	return p.topic
}

// Send implements pubsub.Producer.
func (p *producer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	s := p.d.s
	if err := s.enter(ctx); err != nil {
		return 0, err
	}
	if p.dead != nil {
		s.mu.Unlock()
		return 0, p.dead
	}
	now := time.Now()
	s.last = max(s.last, now.UnixNano())
	results := slices.Grow(p.results[:0], len(run))
	for i := range run {
		results = append(results, pubsub.Result{Seq: run[i].Seq, Fate: pubsub.FateAccepted})
		r := &results[i]
		if err := s.faults.refusal(); err != nil {
			r.Fate, r.Err = pubsub.FateRefused, err
		} else if r.Pos, err = s.store(p.topicOf(run[i].To.Topic), &run[i], now); err != nil {
			r.Fate, r.Err = pubsub.FateRefused, err
		} else if s.faults.lose > 0 { // stored, but nobody will say so
			s.faults.lose--
			*r = pubsub.Result{Seq: r.Seq, Fate: pubsub.FateUnknown, Err: errGone}
			p.dead = errGone
			break
		}
	}
	p.results = results
	err := p.dead
	s.mu.Unlock()
	p.report(results)
	// only now: a handler may do what ends the publisher's wait, and the answer should have come by then
	s.mu.Lock()
	for i, ln := range s.stirred {
		ln.stirred = false
		ln.wake()
		s.stirred[i] = nil
	}
	s.stirred = s.stirred[:0]
	s.mu.Unlock()
	return len(results), err
}

// Close implements pubsub.Producer: every message has its answer already.
func (p *producer) Close(context.Context) error {
	p.d.s.mu.Lock()
	defer p.d.s.mu.Unlock()
	if p.dead == nil {
		p.dead = errGone
	}
	delete(p.d.producers, p)
	return nil
}
