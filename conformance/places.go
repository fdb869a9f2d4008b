package conformance

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Properties of the places that a topic and a group have, beside the path that every message takes.

// deliver sends a message to one group and records that.
func (l *ledger) deliver(p *process, topic, group string, m pubsub.Message) {
	l.e.Helper()
	s := l.note(m)
	err := p.DeliverTo(l.e.Context(), topic, group, m)
	l.tell(s, err)
	l.e.must(err, "deliver %s to %s", m.ID, group)
}

// sentToGroup mixes messages of the topic with messages for the group alone. How the two lie to each other is the broker's affair, but no
// key is handled twice at once.
func sentToGroup(e *env) {
	const keys, rounds = 4, 40
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency = 2 * keys
	spec := pubsub.TopicSpec{Name: topic}
	if e.caps.Partitions {
		spec.Partitions = keys
	}
	e.must(p.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{s}}), "ensure")
	var mu sync.Mutex
	running := map[string]string{}
	handle := func(ctx context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		if other, ok := running[d.Key]; ok {
			e.Errorf("%s starts while %s of the same key runs", d.ID, other)
		}
		running[d.Key] = d.ID
		mu.Unlock()
		err := e.busy(3*time.Millisecond)(ctx, d)
		mu.Lock()
		delete(running, d.Key)
		mu.Unlock()
		return err
	}
	for range 2 { // also over two members
		q := e.open()
		e.subscribe(q, s, l.handler(q, "g", handle))
	}
	for range rounds {
		msgs := l.messages(2*keys, keys)
		l.mustPublish(p, topic, msgs[:keys]...)
		for _, m := range msgs[keys:] {
			l.deliver(p, topic, "g", m)
		}
	}
	l.await("g")
	l.verify()
}

// copyConfirmationLost loses the confirmations of copies that go to the places of a group.
func copyConfirmationLost(e *env) {
	const replays = 10
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	e.subscribe(p, s, l.handler(p, "g", onFails(func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errFails) })))
	l.mustPublish(p, topic, l.messages(30, 0)...)
	var sent, cuts atomic.Int64
	p.link.faults(func(o pubsub.Out) action {
		if o.To.Kind == pubsub.PlaceMain || sent.Add(1)%2 == 0 { // what is sent again gets through
			return action{}
		}
		cuts.Add(1)
		return action{kind: cutAfter}
	})
	for _, m := range l.messages(replays, 0) {
		l.deliver(p, topic, "g", m)
	}
	l.await("g")
	failing := l.messages(replays, 0)
	for i := range failing { // one after the other: each has a fault of its own
		failing[i].Type = "fails"
		l.mustPublish(p, topic, failing[i])
		l.excuse(failing[i].ID)
		e.until(patience, func() bool { return sent.Load() == int64(2*(replays+i+1)) })
	}
	e.wantDead(p, topic, "g", "permanent", replays)
	p.link.faults(nil)
	if n := cuts.Load(); n != 2*replays {
		e.Fatalf(setupPrefix+"%d confirmations were lost, want %d", n, 2*replays)
	}
	copies := map[string]int{}
	for _, r := range e.dead(p, topic, "g") {
		copies[r.Msg.ID]++
	}
	for _, m := range failing {
		if copies[m.ID] != 1 {
			e.Errorf("%s has %d dead letters, want 1: the confirmation of the first was lost, and it was sent again with its token", m.ID, copies[m.ID])
		}
	}
	l.await("g")
	l.verify() // no replay came twice
}

// topicDisagrees asks for a topic that is there with other settings, one setting at a time.
func topicDisagrees(e *env) {
	p, l := e.open(), e.ledger()
	verify := e.openWith(&pubsub.Options{Manage: pubsub.Verify})
	asked := 0
	for _, x := range []struct {
		name        string
		spec, other pubsub.TopicSpec
	}{
		{"partitions", pubsub.TopicSpec{Partitions: 2}, pubsub.TopicSpec{Partitions: 3}},
		{"retention", pubsub.TopicSpec{Retention: time.Hour}, pubsub.TopicSpec{Retention: 2 * time.Hour}},
		{"maxbytes", pubsub.TopicSpec{MaxBytes: 64 << 20}, pubsub.TopicSpec{MaxBytes: 32 << 20}},
	} {
		topic := e.topic(x.name)
		x.spec.Name, x.other.Name = topic, topic
		ensure := func(p *process, s pubsub.TopicSpec) error {
			return p.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{s}})
		}
		err := ensure(p, x.spec)
		if errors.Is(err, pubsub.ErrUnsupported) {
			continue
		}
		e.must(err, "make %s", topic)
		asked++
		e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
		l.mustPublish(p, topic, l.messages(30, 3)...)
		for _, q := range []*process{p, verify} {
			if err := ensure(q, x.spec); err != nil {
				e.Errorf("asking again for a topic with the %s that it has returned %v", x.name, err)
			}
			if err := ensure(q, pubsub.TopicSpec{Name: topic}); err != nil {
				e.Errorf("asking for a topic with whatever %s it has returned %v", x.name, err)
			}
			e.wantCode(ensure(q, x.other), pubsub.ErrConflict, "asking for a topic with other %s than it has", x.name)
		}
	}
	if asked == 0 {
		e.skip("this broker has no settings of topics")
	}
	l.await("g")
	l.verify()
}

// browseOldestFirst reads a topic of several partitions whose messages came one after the other.
func browseOldestFirst(e *env) {
	const messages = 60
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	e.must(p.Ensure(e.Context(), pubsub.Topology{
		Topics: []pubsub.TopicSpec{{Name: topic, Partitions: 4}}, Groups: []pubsub.Subscription{s},
	}), "make 4 partitions")
	e.subscribe(p, s, l.handler(p, "g", nil))
	msgs := l.messages(messages, 11)
	for _, m := range msgs {
		l.mustPublish(p, topic, m)
		time.Sleep(2 * time.Millisecond) // brokers know times to the millisecond
	}
	l.await("g")
	i := 0
	for r, err := range p.Browse(e.Context(), pubsub.Place{Topic: topic}, pubsub.Position{}) {
		e.must(err, "browse")
		if i < messages && r.Msg.ID != msgs[i].ID {
			e.Errorf("message %d of a browse is %s, the oldest that was not shown is %s", i, r.Msg.ID, msgs[i].ID)
			break
		}
		i++
	}
	if i > messages || i < messages && !e.Failed() {
		e.Errorf("a browse showed %d messages of %d", i, messages)
	}
	l.verify()
}
