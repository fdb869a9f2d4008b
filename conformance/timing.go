package conformance

import (
	"context"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func timing() []Property {
	return []Property{
		{
			Name: "Time/Delay", Promises: []int{21}, Gate: schedules(), run: delayed,
			Doc: "A message with a delay is delivered no earlier, soon after it, and does not hold up others.",
			refused: func(e *env) {
				e.wantUnsupported(e.open().Publish(e.Context(), e.topic("a"), pubsub.Message{Delay: time.Second}), "Message.Delay")
			},
		},
		{
			Name: "Time/TTL", Promises: []int{21}, Gate: redelivers(), run: expires,
			Doc: "A message whose TTL is over is not delivered any more, and one whose TTL is not over is.",
		},
		{
			Name: "Time/Priority", Promises: []int{21}, Gate: prioritizes().and(redelivers()), run: priority,
			Doc: "Of the messages that wait those with a higher priority are delivered first.",
			refused: func(e *env) {
				if prioritizes().Open(e.caps) {
					return
				}
				e.wantUnsupported(e.open().Publish(e.Context(), e.topic("a"), pubsub.Message{Priority: 5}), "Message.Priority")
			},
		},
	}
}

func delayed(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency = 4
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 0)...)
	l.await("g")
	begin := time.Now()
	late := l.messages(30, 0)
	for i := range late {
		late[i].Delay = time.Duration(1+i%3) * 700 * time.Millisecond
	}
	l.mustPublish(p, topic, late...)
	published := time.Now()
	l.mustPublish(p, topic, l.messages(20, 0)...)
	if !e.until(500*time.Millisecond, func() bool { return l.handled("g") >= 50 }) {
		e.Errorf("behind messages with a delay %d of 20 others came at once", l.handled("g")-30)
	}
	l.await("g")
	for _, m := range late {
		for _, r := range l.calls("g", m.ID) {
			if took := r.at.Sub(begin); took < m.Delay {
				e.Errorf("message %s has a delay of %v, and came after %v", m.ID, m.Delay, took)
			}
			if took := r.at.Sub(published); took > m.Delay+2*time.Second {
				e.Errorf("message %s has a delay of %v, and came only after %v", m.ID, m.Delay, took)
			}
		}
	}
	l.verify()
}

func expires(e *env) {
	const ttl = 300 * time.Millisecond
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.ensure(p, e.sub(topic, "g"))
	msgs := l.messages(enough, 5)
	for i := range msgs {
		switch i % 3 {
		case 0:
			msgs[i].TTL = ttl
		case 1:
			msgs[i].TTL = time.Hour
		}
	}
	l.mustPublish(p, topic, msgs...)
	time.Sleep(2 * ttl)
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.TTL == ttl {
			e.Errorf("message %s has a TTL of %v, and was delivered %v after it was published", d.ID, ttl, time.Since(d.Time))
		}
		return nil
	}))
	for _, m := range msgs {
		if m.TTL == ttl {
			l.excuse(m.ID)
		}
	}
	l.await("g")
	for _, m := range msgs {
		if n := len(l.calls("g", m.ID)); n > 0 && m.TTL == ttl {
			e.Errorf("message %s was delivered after its TTL", m.ID)
		}
	}
	l.verify()
}

func priority(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.MaxInFlight = 1 // what has been fetched cannot be overtaken
	e.ensure(p, s)
	l.mustPublish(p, topic, l.messages(30, 0)...)
	c := e.subscribe(p, s, l.handler(p, "g", nil))
	l.await("g")
	e.must(c.Drain(e.Context()), "drain")
	msgs := l.messages(60, 0)
	for i := range msgs {
		msgs[i].Priority = []uint8{0, 9, 4}[i%3]
	}
	l.mustPublish(p, topic, msgs...)
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.await("g")
	last := uint8(9)
	for _, r := range l.calls("g")[30:] {
		if r.msg.Priority > last {
			e.Errorf("message %s with priority %d came after one with %d", r.msg.ID, r.msg.Priority, last)
		}
		last = r.msg.Priority
	}
	l.verify()
}
