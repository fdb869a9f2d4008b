package conformance

import (
	"context"
	"strings"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Properties of the target of dead letters: whether it is there when a subscription starts.

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
