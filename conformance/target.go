package conformance

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Properties of the target of dead letters: when it fails, and whether it is there when a subscription starts.

func targetDenied(e *env) { e.deadLettersFail(brokerError{pubsub.ErrDenied, true}) }

func targetDown(e *env) { e.deadLettersFail(brokerError{pubsub.ErrUnavailable, false}) }

func targetFull(e *env) { e.deadLettersFail(brokerError{pubsub.ErrExhausted, true}) }

func targetTooSmall(e *env) { e.deadLettersFail(brokerError{pubsub.ErrTooLarge, true}) }

// deadLettersFail lets the dead letters answer with an error for a while.
func (e *env) deadLettersFail(because error) {
	e.Helper()
	const visible, n = 5 * time.Second, 10
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Retry = pubsub.Policy{MaxAttempts: 1}
	p.link.faults(func(o pubsub.Out) action {
		if o.To.Kind == pubsub.PlaceDead {
			return action{refuse, because}
		}
		return action{}
	})
	c := e.subscribe(p, s, l.handler(p, "g", onFails(fails)))
	msgs := e.failing(p, l, topic, n, 0)
	if !e.until(visible, func() bool { st := c.State(); return st.Phase == pubsub.Blocked && st.Reason != nil }) {
		e.Errorf("dead letters cannot be stored for %v (%v), and the state is %v because of %v, want blocked",
			visible, because, c.State().Phase, c.State().Reason)
	}
	time.Sleep(2 * time.Second)
	if e.caps.Lag == pubsub.LagExact {
		lag, err := p.Lag(e.Context(), topic, "g")
		e.must(err, "lag")
		if lag.Messages != n {
			e.Errorf("%d of %d messages are not acked while their dead letters cannot be stored", lag.Messages, n)
		}
	}
	if dead := len(e.dead(p, topic, "g")); dead > 0 {
		e.Errorf("%d dead letters are stored while the broker refuses them", dead)
	}
	p.link.faults(nil)
	e.wantDead(p, topic, "g", "max-attempts", n)
	e.wantCalls(l, msgs, 1)
	if !e.until(patience, func() bool { return c.State().Phase == pubsub.Running }) {
		e.Errorf("dead letters can be stored again, and the state is %v because of %v", c.State().Phase, c.State().Reason)
	}
	l.await("g")
	l.verify()
}

func targetMissing(e *env) {
	p, topic, l, dead := e.open(), e.topic("a"), e.ledger(), e.ledger()
	s := e.sub(topic, "g")
	c := e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.await("g")
	e.must(c.Drain(e.Context()), "drain")

	verify := e.openWith(&pubsub.Options{Manage: pubsub.Verify})
	give := onFails(func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errFails) })
	s.DeadLetter.Topic = e.topic("missing")
	_, err := verify.Subscribe(e.Context(), s, give)
	e.wantCode(err, pubsub.ErrNotFound, "subscribing with Verify, dead letters to go to a topic that is missing")
	if err != nil && !strings.Contains(err.Error(), s.DeadLetter.Topic) {
		e.Errorf("the error %q does not name the topic %q", err, s.DeadLetter.Topic)
	}
	s.DeadLetter.Topic = e.topic("made")
	e.subscribe(p, s, l.handler(p, "g", give))
	if err := verify.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: s.DeadLetter.Topic}}}); err != nil {
		e.Errorf("a topic for dead letters is to be there when Subscribe returns: %v", err)
	}
	e.subscribe(p, e.sub(s.DeadLetter.Topic, "readers"), dead.handler(p, "readers", nil))
	for _, m := range l.messages(10, 5) {
		m.Type = "fails"
		dead.tell(dead.note(m), nil) // it is to come there
		l.mustPublish(p, topic, m)
		l.excuse(m.ID)
	}
	dead.await("readers")
	dead.verify()
	l.verify()
}

func pointsAtSource(e *env) {
	const visible, n = 5 * time.Second, 3
	var refused atomic.Int64
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Retry = pubsub.Policy{MaxAttempts: 1}
	p.link.faults(func(o pubsub.Out) action {
		if o.To.Kind == pubsub.PlaceDead && len(o.Msg.Payload) > 0 {
			refused.Add(1)
			return action{refuse, brokerError{pubsub.ErrTooLarge, true}}
		}
		return action{}
	})
	c := e.subscribe(p, s, l.handler(p, "g", onFails(fails)))
	msgs := e.failing(p, l, topic, n, 0)
	points := 0
	letters := func() (whole, point map[string]dlq.Record) {
		whole, point, points = map[string]dlq.Record{}, map[string]dlq.Record{}, 0
		for r, err := range dlq.Open(p.Broker, topic, "g").List(e.Context(), dlq.Filter{}) {
			e.must(err, "list")
			if r.AtSource {
				point[r.Message.ID] = r
				points++
			} else {
				whole[r.Message.ID] = r
			}
		}
		return whole, point
	}
	e.until(visible, func() bool { _, point := letters(); return len(point) == n && c.State().Phase == pubsub.Blocked })
	whole, point := letters()
	if st := c.State(); len(point) != n || len(whole) > 0 || st.Phase != pubsub.Blocked {
		e.Errorf("of %d messages that do not fit %d dead letters say where they are, %d are whole, and the state is %v, want blocked", n, len(point), len(whole), st.Phase)
	}
	for id, r := range point {
		at := ""
		if pos := l.calls("g", id)[0].pos; pos != (pubsub.Position{}) { // not every broker knows where its messages are
			at = pos.String()
		}
		if r.SourcePosition != at || r.Group != "g" || r.Topic != topic || r.Reason != "max-attempts" || len(r.Message.Payload) > 0 {
			e.Errorf("what tells where %s is says topic %q, group %q, position %q, reason %q", id, r.Topic, r.Group, r.SourcePosition, r.Reason)
		}
	}
	if e.caps.Lag == pubsub.LagExact {
		var lag pubsub.Lag
		e.until(visible, func() bool { // the others are acked, which a log may commit later
			var err error
			lag, err = p.Lag(e.Context(), topic, "g")
			e.must(err, "lag")
			return lag.Messages <= n
		})
		if lag.Messages != n {
			e.Errorf("%d of %d messages are not acked while only what points at them is stored", lag.Messages, n)
		}
	}
	first := refused.Load()
	if !e.until(patience, func() bool { return refused.Load() > 2*first }) { // one is tried for the third time
		e.Errorf("what is kept is not tried again: %d times, then %d", first, refused.Load())
	}
	p.link.faults(nil)
	if !e.until(patience, func() bool { whole, _ = letters(); return len(whole) == n }) {
		e.Errorf("%d of %d whole dead letters are stored when there is room again", len(whole), n)
	}
	if points != n {
		e.Errorf("%d dead letters say where %d messages are that one consumer has kept", points, n)
	}
	for _, m := range msgs {
		if got := whole[m.ID].Message.Payload; !bytes.Equal(got, m.Payload) {
			e.Errorf("the whole dead letter of %s has the payload %q", m.ID, got)
		}
	}
	e.wantCalls(l, msgs, 1)
	l.await("g")
	l.verify()
}
