package conformance

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/pubsub"
)

// outages are faults of the broker's that last.
func outages() []Property {
	return []Property{
		{
			Name: "Faults/Latency", Promises: []int{1, 5, 14}, Gate: redelivers(), run: latency, waits: 2 * time.Second,
			Doc: "A broker whose every answer takes long costs time: no session is given up, nothing is lost and nothing handled twice.",
		},
		{
			Name: "Faults/CredentialsRevoked", Promises: []int{14}, Gate: redelivers(), run: credentialsRevoked, waits: time.Minute,
			Doc: "A consumer whose credentials are refused for longer than a minute ends with ErrUnauthenticated, not earlier.",
		},
		{
			Name: "Faults/AbsentAtOpen", Promises: []int{14, 18}, run: absentAtOpen, needs: restarts, alone: true,
			Doc: "Opening a broker that is not there, or asking whether it is, ends with its context as ErrUnavailable, and works once it is.",
		},
		{
			Name: "Faults/PublisherBlocked", Promises: []int{1, 2, 7}, Gate: redelivers(), run: publisherBlocked, waits: 2 * time.Second,
			Doc: "While a broker takes no messages publishers wait as long as their context lets them, consumers go on, and then all is stored.",
		},
		{
			Name: "Faults/Exhausted", Promises: []int{2, 3, 18}, Gate: keepsAnything(), run: exhausted,
			Doc: "A message that a full disk or quota has no room for is ErrExhausted, and what follows is stored once there is room.",
		},
		{
			Name: "Faults/RebalanceWithStuckHandler", Promises: []int{5, 8, 11}, Gate: redelivers().and(partitioned()).and(exclusive()), run: rebalanceStuck, waits: 8 * time.Second,
			Doc: "A lane goes to another member although a handler of the first one is stuck in it, whose context ends with ErrLeaseLost.",
		},
	}
}

func latency(e *env) {
	const each = 150 * time.Millisecond
	p, q, topic, l := e.open(), e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency = 4
	e.subscribe(q, s, l.handler(q, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.await("g")
	sessions := q.link.opened()
	p.link.slow(each)
	q.link.slow(each)
	for range 10 {
		l.mustPublish(p, topic, l.messages(enough/10, 5)...)
	}
	l.await("g")
	if n := q.link.opened() - sessions; n > 0 {
		e.Errorf("with answers that take %v a consumer opened %d new sessions", each, n)
	}
	p.link.slow(0)
	q.link.slow(0)
	l.verify()
}

func credentialsRevoked(e *env) {
	const grace, inFlight = time.Minute, 32
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.MaxInFlight = inFlight
	c := e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.await("g")
	p.link.refuseSessions(func() error { return brokerError{pubsub.ErrUnauthenticated, true} })
	begin := time.Now()
	p.link.cut()
	if e.closed(grace-10*time.Second, c.Done()) {
		e.Errorf("a consumer whose credentials are refused has ended after %v: %v; they may be on their way", time.Since(begin), c.Err())
	}
	if !e.closed(10*time.Second+patience, c.Done()) {
		e.Fatalf("a consumer whose credentials have been refused for %v has not ended: %v", time.Since(begin), c.State())
	}
	e.wantCode(c.Err(), pubsub.ErrUnauthenticated, "a consumer whose credentials were refused for %v", time.Since(begin))
	q := e.open()
	e.subscribe(q, s, l.handler(q, "g", nil))
	l.strikes("g", 1, history.Load{Members: 1, MaxInFlight: inFlight})
	l.mustPublish(q, topic, l.messages(30, 5)...)
	l.await("g")
	l.verify()
}

func absentAtOpen(e *env) {
	const deadline = 3 * time.Second
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.AckWait = 2 * time.Second // a broker that was killed may have forgotten acks: those messages come again when their leases end
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 0)...)
	l.await("g")
	e.must(p.Close(), "close")
	e.must(e.h.Kill(e.Context()), "kill the broker")
	took, ended := e.within(deadline+patience, func() {
		ctx, cancel := context.WithTimeout(e.Context(), deadline)
		defer cancel()
		d, err := e.h.Driver(ctx)
		if err != nil {
			return // an adapter that connects says so at once
		}
		b, err := pubsub.New(ctx, e.m.over(d), nil)
		if err == nil {
			err = b.Ping(ctx)
			defer func() { _ = b.Close() }()
		}
		if !errors.Is(err, pubsub.ErrCanceled) { // the context may end before anybody knows
			e.wantCode(err, pubsub.ErrUnavailable, "opening a broker that is not there")
		}
	})
	if !ended || took > deadline+time.Second {
		e.Errorf("opening a broker that is not there, with a deadline of %v, took %v", deadline, took)
	}
	e.must(e.h.Start(e.Context()), "start the broker")
	q := e.open()
	e.must(q.Ping(e.Context()), "ping")
	if e.caps.Redelivery {
		l.allow("g", 30)
		e.subscribe(q, s, l.handler(q, "g", nil))
		l.mustPublish(q, topic, l.messages(10, 0)...)
		l.await("g")
	}
	l.verify()
}

func publisherBlocked(e *env) {
	const short = 500 * time.Millisecond
	p, q, topic, l := e.open(), e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency = 2
	var slow atomic.Bool
	e.subscribe(q, s, l.handler(q, "g", func(context.Context, *pubsub.Delivery) error {
		if slow.Load() {
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	}))
	slow.Store(true)
	l.mustPublish(p, topic, l.messages(60, 5)...)
	resume := p.link.block()
	e.Cleanup(resume)
	stored := make(chan struct{})
	waiting := l.messages(enough/2, 5)
	go func() {
		defer close(stored)
		l.publish(p, topic, waiting...)
	}()
	time.Sleep(10 * time.Millisecond)
	before := l.handled("g")
	impatient := l.note(l.message("key-0"))
	ctx, cancel := context.WithTimeout(e.Context(), short)
	defer cancel()
	var err error
	took, ended := e.within(patience, func() { err = p.Publish(ctx, topic, impatient.msg) })
	if !ended || took > short+time.Second {
		e.Errorf("a publish whose context ends after %v took %v while the broker is blocked", short, took)
	}
	if err == nil {
		e.Errorf("a publish to a broker that takes no messages returned nil")
	}
	l.tell(impatient, err)
	if !e.until(patience, func() bool { return l.handled("g") == 60 }) || before >= 60 {
		e.Errorf("while the broker takes no messages a consumer is stuck: %s", l.progress("g"))
	}
	if e.closed(short, stored) {
		e.Errorf("%d publishes ended while the broker takes no messages", len(waiting))
	}
	slow.Store(false)
	resume()
	<-stored
	for _, m := range waiting {
		if err := l.fate(m.ID); err != nil {
			e.Errorf("publishing %s to a broker that was blocked for %v returned %v", m.ID, 2*short, err)
		}
	}
	l.await("g")
	l.verify()
}

func exhausted(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency = 4
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	for range 2 {
		var full atomic.Bool
		full.Store(true)
		p.link.faults(func(pubsub.Out) action {
			if full.Load() {
				return action{refuse, brokerError{pubsub.ErrExhausted, true}}
			}
			return action{}
		})
		msgs := l.messages(40, 5)
		l.publish(p, topic, msgs...)
		for _, m := range msgs {
			e.wantCode(l.fate(m.ID), pubsub.ErrExhausted, "publishing %s to a broker that has no room", m.ID)
		}
		full.Store(false)
		l.mustPublish(p, topic, l.messages(20, 5)...)
	}
	l.await("g")
	l.verify()
}

func rebalanceStuck(e *env) {
	const lanes, keys = 4, 40
	p, q, pub, topic, l := e.open(), e.open(), e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight, s.AckWait = keys, 2*keys, 5*time.Second
	e.must(p.Ensure(e.Context(), pubsub.Topology{
		Topics: []pubsub.TopicSpec{{Name: topic, Partitions: lanes}}, Groups: []pubsub.Subscription{s},
	}), "make %d partitions", lanes)
	stuck := e.gate()
	var waiting, told atomic.Int64
	e.subscribe(p, s, l.handler(p, "g", func(ctx context.Context, d *pubsub.Delivery) error {
		if d.Type != "stuck" {
			return nil
		}
		waiting.Add(1)
		context.AfterFunc(ctx, func() {
			if errors.Is(context.Cause(ctx), pubsub.ErrLeaseLost) {
				told.Add(1)
			}
		})
		stuck.wait() // and does not listen
		return errKilled
	}))
	l.mustPublish(pub, topic, l.messages(2*keys, keys)...)
	l.await("g")
	msgs := l.messages(keys, keys)
	for i := range msgs {
		msgs[i].Type = "stuck"
	}
	l.mustPublish(pub, topic, msgs...)
	if !e.until(patience, func() bool { return waiting.Load() == keys }) {
		e.Fatalf("%d handlers of %d run", waiting.Load(), keys)
	}
	e.subscribe(q, s, l.handler(q, "g", nil))
	l.strikes("g", 2, history.Load{Members: 1, MaxInFlight: s.MaxInFlight}) // the rebalance, and the end of p
	moved := func() (n int) {
		for _, m := range msgs {
			if len(l.calls("g", m.ID)) > 1 {
				n++
			}
		}
		return n
	}
	if !e.until(2*patience, func() bool { return moved() >= keys/lanes/2 && told.Load() > 0 }) {
		e.Errorf("all handlers of a member are stuck, a second one has joined, and got %d of their %d messages; %d contexts ended with ErrLeaseLost",
			moved(), keys, told.Load())
	}
	if n := moved(); n == keys {
		e.Logf("the second member got everything")
	}
	p.kill()
	l.await("g")
	l.mustPublish(pub, topic, l.messages(keys, keys)...)
	l.await("g")
	l.verify()
}
