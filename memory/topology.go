package memory

import (
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// ensureTopic makes a topic, or checks the one that is there. mu is held.
func (s *Server) ensureTopic(spec pubsub.TopicSpec, m pubsub.Manage) error {
	if spec.Replicas > 1 {
		return says(pubsub.ErrUnsupported, true, "topic %q: TopicSpec.Replicas of %d, there is one process", spec.Name, spec.Replicas)
	}
	if t := s.topics[spec.Name]; t != nil {
		switch is := t.spec; {
		case spec.Partitions != 0 && spec.Partitions != len(t.logs):
			return says(pubsub.ErrConflict, true, "topic %q has %d partitions, not %d", spec.Name, len(t.logs), spec.Partitions)
		case spec.Retention != 0 && spec.Retention != is.Retention:
			return says(pubsub.ErrConflict, true, "topic %q has a retention of %v (0 = no end), not %v", spec.Name, is.Retention, spec.Retention)
		case spec.MaxBytes != 0 && spec.MaxBytes != is.MaxBytes:
			return says(pubsub.ErrConflict, true, "topic %q has at most %d bytes (0 = the broker's), not %d", spec.Name, is.MaxBytes, spec.MaxBytes)
		}
		return nil
	}
	if m != pubsub.Create {
		return says(pubsub.ErrNotFound, true, "there is no topic %q", spec.Name)
	}
	t := &topic{spec: spec}
	for i := range max(spec.Partitions, 1) {
		p := &partition{s: s, t: t, topic: spec.Name, index: int32(i), history: true}
		t.logs = append(t.logs, p)
		s.logs = append(s.logs, p)
	}
	s.topics[spec.Name] = t
	for _, g := range s.groups {
		if g.at.Kind == pubsub.PlaceMain && g.covers(spec.Name) {
			g.addTopic(t)
			g.rebalance()
		}
	}
	return nil
}

// ensureGroup makes a group, or checks the one that is there. mu is held.
func (s *Server) ensureGroup(at pubsub.Place, order pubsub.Order, ackWait time.Duration, start pubsub.Start, m pubsub.Manage) (*group, error) {
	if g := s.groups[at]; g != nil {
		if g.exclusive != order.Exclusive() || g.ackWait != ackWait {
			return nil, says(pubsub.ErrConflict, true, "group %q of %q has an ack wait of %v and exclusive=%v, not %v and %v; all its members must agree",
				at.Group, at.Topic, g.ackWait, g.exclusive, ackWait, order.Exclusive())
		}
		return g, nil
	}
	if m != pubsub.Create {
		// a place of ours comes with its group
		if at.Kind == pubsub.PlaceMain || s.groups[pubsub.Place{Topic: at.Topic, Group: at.Group}] == nil {
			return nil, says(pubsub.ErrNotFound, true, "there is no group %q of %q", at.Group, at.Topic)
		}
	}
	g := &group{s: s, at: at, exclusive: order.Exclusive(), ackWait: ackWait, start: start}
	if at.Kind != pubsub.PlaceMain {
		g.start = pubsub.FromEarliest()
		for _, log := range s.privatePlace(at).logs {
			g.addLane(log)
		}
		s.groups[at] = g
		return g, nil
	}
	for _, t := range s.topics {
		if g.covers(t.spec.Name) {
			g.addTopic(t)
		}
	}
	g.start = pubsub.FromEarliest() // topics that appear later are covered from their beginning
	if pubsub.IsPattern(at.Topic) {
		g.own = s.privatePlace(pubsub.Place{Topic: at.Topic, Group: at.Group, Kind: pubsub.PlaceRetry})
		g.addLane(g.own.logs[0])
	} else {
		g.own = &place{logs: s.topics[at.Topic].logs}
	}
	s.groups[at] = g
	return g, nil
}

// privatePlace returns a place that a group has for itself. A tier has as many partitions as its topic.
func (s *Server) privatePlace(at pubsub.Place) *place {
	if p := s.private[at]; p != nil {
		return p
	}
	n := 1
	if t := s.topics[at.Topic]; t != nil && at.Tier > 0 {
		n = len(t.logs)
	}
	p := new(place)
	for i := range n {
		p.logs = append(p.logs, &partition{s: s, topic: at.Topic, index: int32(i), forever: at.Kind == pubsub.PlaceDead || at.Kind == pubsub.PlaceState})
	}
	s.private[at] = p
	s.logs = append(s.logs, p.logs...)
	return p
}

// discard forgets a log with all that is in it, whoever reads it.
func (s *Server) discard(p *partition) {
	for len(p.lanes) > 0 {
		p.lanes[0].g.lose(p.lanes[0])
	}
	p.count(-p.bytes)
	s.logs = slices.DeleteFunc(s.logs, func(o *partition) bool { return o == p })
}

// DeleteTopic removes a topic with all its groups and places, whoever uses them: their sessions die with ErrNotFound. Groups that read it
// through a pattern lose its lanes.
func (s *Server) DeleteTopic(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.topics[name]
	if t == nil {
		return
	}
	delete(s.topics, name)
	t.deleted = true
	for at, g := range s.groups {
		if at.Topic != name {
			continue
		}
		for len(g.members) > 0 {
			g.members[0].die(says(pubsub.ErrNotFound, false, "topic %q was deleted", name))
		}
		g.remove()
	}
	for _, p := range t.logs {
		s.discard(p)
	}
	for at, p := range s.private {
		if at.Topic == name {
			for _, log := range p.logs {
				s.discard(log)
			}
			delete(s.private, at)
		}
	}
}
