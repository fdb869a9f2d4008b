package conformance

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/pubsub"
)

func faults() []Property {
	return append([]Property{
		{
			Name: "Faults/ConfirmationLost", Promises: []int{1, 2}, Gate: keepsAnything(), run: confirmationLost,
			Doc: "Confirmations that are lost in mid-publish lose no confirmed message, and duplicate no more than was in flight.",
		},
		{
			Name: "Faults/CopyConfirmationLost", Promises: []int{2, 19}, Gate: redelivers().and(deduplicates()), run: copyConfirmationLost, waits: 15 * time.Second,
			Doc: "A replay and a dead letter whose confirmation is lost are sent again and stored once.",
		},
		{
			Name: "Faults/RefusedForAWhile", Promises: []int{2, 3}, Gate: keepsAnything(), run: refusedForAWhile, waits: 2 * time.Second,
			Doc: "A broker that is unavailable for a while costs a publisher time, not messages nor their order.",
		},
		{
			Name: "Faults/SessionsDropped", Promises: []int{5, 6, 14}, Gate: redelivers(), run: sessionsDropped,
			Doc: "Sessions that are cut again and again under load lose nothing and keep keys in order.",
		},
		{
			Name: "Faults/ConsumersKilled", Promises: []int{5}, Gate: redelivers(), run: consumersKilled, waits: 30 * time.Second,
			Doc: "Consumers that are killed at random points lose nothing, and duplicate no more than they held.",
		},
		{
			Name: "Faults/BrokerStalls", Promises: []int{1, 5, 14}, Gate: redelivers(), run: brokerStalls, waits: 9 * time.Second,
			Doc: "A broker that answers nothing for a while costs time, not messages: who publishes and consumes goes on by itself.",
		},
		{
			Name: "Faults/CredentialsRotate", Promises: []int{14}, Gate: redelivers(), run: credentialsRotate, waits: 6 * time.Second,
			Doc: "Sessions that are refused as unauthenticated for some seconds come back by themselves.",
		},
		{
			Name: "Faults/BrokerRestarts", Promises: []int{1, 5, 14}, Gate: redelivers(), run: brokerRestarts, needs: restarts, alone: true,
			Doc: "Publishers and consumers go on by themselves after the broker was killed and started under load, and lose nothing that it had stored.",
		},
		{
			Name: "Faults/Schedules", Promises: []int{1, 3, 5, 6, 14}, Gate: redelivers(), run: schedulesOfFaults, alone: true,
			Doc: "Faults of all kinds at random times under load lose nothing confirmed, keep keys in order, and duplicate no more than was in flight.",
		},
		halfOpenProperty(),
	}, outages()...)
}

// restarts says what a harness lacks to kill and start its broker.
func restarts(h Harness) string {
	if h.Kill == nil {
		return "Kill and Start"
	}
	return ""
}

func confirmationLost(e *env) {
	const pending, rounds = 64, 6
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency = 4
	e.subscribe(p, s, l.handler(p, "g", nil))
	pub, err := p.Publisher(pubsub.PublisherOptions{MaxPending: pending})
	e.must(err, "make a publisher")
	l.mustPublish(pub, topic, l.messages(30, 0)...)
	cuts := 0
	for range rounds {
		at, n := 10+e.rng.below(30), 0
		p.link.faults(func(pubsub.Out) action {
			switch n++; {
			case n < at:
				return action{}
			case n < at+5: // these five have no answer, some of them are stored
				return action{kind: []actionKind{swallow, noAnswer}[n%2]}
			}
			p.link.faults(nil)
			cuts++
			return action{kind: cutAfter}
		})
		l.publish(pub, topic, l.messages(50, 0)...)
		p.link.faults(nil)
	}
	l.strikes("g", cuts, history.Load{Publishers: 1, MaxPending: pending})
	if cuts < rounds {
		e.Fatalf(setupPrefix+"%d of %d faults took effect", cuts, rounds)
	}
	l.await("g")
	l.verify()
}

func refusedForAWhile(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency = 4
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	var refused atomic.Int64
	until := time.Now().Add(2 * time.Second)
	p.link.faults(func(pubsub.Out) action {
		if time.Now().After(until) {
			return action{}
		}
		refused.Add(1)
		return action{refuse, brokerError{pubsub.ErrUnavailable, false}}
	})
	l.publish(p, topic, l.messages(100, 5)...)
	p.link.faults(nil)
	if refused.Load() == 0 {
		e.Fatalf(setupPrefix + "nothing was refused")
	}
	for _, s := range l.all() {
		if s.err != nil {
			e.Errorf("publishing %s to a broker that was unavailable for 2 s returned %v", s.msg.ID, s.err)
		}
	}
	l.await("g")
	l.verify()
}

func sessionsDropped(e *env) {
	const inFlight, cuts = 32, 8
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight = 4, inFlight
	e.subscribe(p, s, l.handler(p, "g", e.busy(3*time.Millisecond)))
	l.strikes("g", cuts, history.Load{Members: 1, MaxInFlight: inFlight})
	l.mustPublish(p, topic, l.messages(30, 8)...)
	for range cuts {
		n := l.handled("g") + 10 + e.rng.below(20)
		l.mustPublish(p, topic, l.messages(40, 8)...)
		e.until(patience, func() bool { return l.handled("g") >= n })
		l.forget(p) // what runs now is no longer this consumer's
		p.link.cut()
	}
	l.await("g")
	l.verify()
}

func consumersKilled(e *env) {
	const inFlight, kills = 32, 6
	topic, l := e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.Concurrency, s.MaxInFlight = 4, inFlight
	pub := e.open()
	e.ensure(pub, s)
	join := func() *process {
		p := e.open()
		e.subscribe(p, s, l.handler(p, "g", e.busy(3*time.Millisecond)))
		return p
	}
	l.strikes("g", kills, history.Load{Members: 1, MaxInFlight: inFlight})
	members := []*process{join(), join()}
	for range kills {
		n := l.handled("g") + 5 + e.rng.below(40)
		l.mustPublish(pub, topic, l.messages(50, 0)...)
		e.until(patience, func() bool { return l.handled("g") >= n })
		members[0].kill()
		members = append(members[1:], join())
	}
	l.await("g")
	l.verify()
}

func brokerStalls(e *env) {
	const inFlight, pending, stalls = 32, 64, 3
	p, q, topic, l := e.open(), e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight, s.AckWait = 4, inFlight, 2*time.Second
	e.subscribe(q, s, l.handler(q, "g", e.busy(3*time.Millisecond)))
	pub, err := p.Publisher(pubsub.PublisherOptions{MaxPending: pending})
	e.must(err, "make a publisher")
	l.mustPublish(pub, topic, l.messages(30, 0)...)
	for range stalls {
		n := l.handled("g") + 10
		l.mustPublish(pub, topic, l.messages(50, 0)...)
		e.until(patience, func() bool { return l.handled("g") >= n })
		resume := []func(){p.link.stall(), q.link.stall()}
		published := make(chan struct{})
		msgs := l.messages(20, 0)
		go func() {
			defer close(published)
			l.publish(pub, topic, msgs...)
		}()
		time.Sleep(3 * time.Second) // longer than the leases
		for _, f := range resume {
			f()
		}
		<-published
	}
	l.strikes("g", stalls, history.Load{Members: 1, MaxInFlight: inFlight, Publishers: 1, MaxPending: pending})
	l.mustPublish(pub, topic, l.messages(20, 0)...)
	l.await("g")
	l.verify()
}

func credentialsRotate(e *env) {
	const inFlight, outage = 32, 5 * time.Second
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight = 4, inFlight
	c := e.subscribe(p, s, l.handler(p, "g", e.busy(3*time.Millisecond)))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.mustPublish(p, topic, l.messages(50, 5)...)
	e.until(patience, func() bool { return l.handled("g") >= 40 })
	var refused atomic.Int64
	p.link.refuseSessions(func() error {
		refused.Add(1)
		return brokerError{pubsub.ErrUnauthenticated, true}
	})
	p.link.cut()
	if e.closed(outage, c.Done()) {
		e.Errorf("a consumer whose credentials were refused for less than %v has ended: %v", outage, c.Err())
	}
	if refused.Load() == 0 {
		e.Fatalf(setupPrefix + "no session was refused")
	}
	if st := c.State(); st.Phase != pubsub.Reconnecting || st.Reason == nil {
		e.Errorf("while its credentials are refused the consumer is %v because of %v, want reconnecting and the reason", st.Phase, st.Reason)
	}
	p.link.refuseSessions(nil)
	l.strikes("g", 1, history.Load{Members: 1, MaxInFlight: inFlight})
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.await("g")
	l.verify()
}

func brokerRestarts(e *env) {
	const inFlight, pending, restarts = 32, 64, 3
	p, q, topic, l := e.open(), e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight = 4, inFlight
	s.AckWait = 2 * time.Second // what was on its way from a broker that was killed comes again when its lease ends
	e.subscribe(q, s, l.handler(q, "g", e.busy(3*time.Millisecond)))
	pub, err := p.Publisher(pubsub.PublisherOptions{MaxPending: pending})
	e.must(err, "make a publisher")
	l.mustPublish(pub, topic, l.messages(50, 0)...)
	for range restarts {
		published := make(chan struct{})
		msgs := l.messages(100, 0)
		go func() {
			defer close(published)
			for _, m := range msgs {
				l.publish(pub, topic, m)
			}
		}()
		n := l.handled("g") + 10
		e.until(patience, func() bool { return l.handled("g") >= n })
		e.must(e.h.Kill(e.Context()), "kill the broker")
		if err := q.Ping(e.Context()); err == nil {
			e.Fatalf(setupPrefix + "the broker answers after Kill")
		}
		e.must(e.h.Start(e.Context()), "start the broker")
		<-published
	}
	l.strikes("g", restarts, history.Load{Members: 1, MaxInFlight: inFlight, Publishers: 1, MaxPending: pending})
	l.mustPublish(pub, topic, l.messages(20, 0)...)
	l.await("g")
	l.verify()
}

var errFails = errors.New("this message fails")

func fails(context.Context, *pubsub.Delivery) error { return errFails }
