package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func leaseOver(e *env) {
	const ackWait = 3 * time.Second
	p, peer, topic, l := e.open(), e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Order, s.AckWait = pubsub.OrderNone, ackWait
	taken := make(chan struct{})
	var stale atomic.Pointer[pubsub.Lease]
	e.pull(p, s, func(lease pubsub.Lease) bool {
		if l.handled("g") < 30 {
			err := l.handler(p, "g", func(ctx context.Context, _ *pubsub.Delivery) error { return lease.Settle(ctx, nil) })(e.Context(), lease.Delivery)
			if err != nil {
				e.Errorf("settling a lease in time returned %v", err)
			}
			return true
		}
		if stale.Load() == nil {
			stale.Store(&lease)
			p.link.swallowRenewals()
			<-taken
			if !p.link.leasesEnd() {
				return false // nothing to ask
			}
			if err := lease.Settle(e.Context(), nil); !errors.Is(err, pubsub.ErrLeaseLost) {
				e.Errorf("settling a lease that could not be renewed and that another member has now returned %v, want %q", err, pubsub.ErrLeaseLost.Error())
			}
		}
		return false
	})
	l.mustPublish(p, topic, l.messages(31, 0)...)
	if !e.until(patience, func() bool { return stale.Load() != nil }) {
		e.Fatalf("only %d messages came", l.handled("g"))
	}
	if !p.link.leasesEnd() {
		close(taken)
		e.skip("the leases of this broker end with their session only")
	}
	e.subscribe(peer, s, l.handler(peer, "g", nil))
	if !l.await("g") {
		e.Errorf("the peer did not get within %v what was not renewed, with an ack wait of %v", patience, ackWait)
	}
	close(taken)
	l.mustPublish(peer, topic, l.messages(3, 0)...)
	l.await("g")
	l.verify()
}

func ackedStaysAcked(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency = 4
	var waits atomic.Int64
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.Key == "parked" {
			waits.Add(1)
			return pubsub.RetryAfter(time.Hour, errors.New("not now"))
		}
		return nil
	}))
	parked := []pubsub.Message{l.message("parked"), l.message("parked"), l.message("parked")}
	l.mustPublish(p, topic, l.messages(50, 5)...)
	l.mustPublish(p, topic, parked...)
	l.mustPublish(p, topic, l.messages(50, 5)...)
	if !e.until(patience, func() bool { return l.handled("g") == 100 && waits.Load() == 1 }) {
		e.Fatalf("%d messages were handled, and %d are waiting", l.handled("g"), waits.Load())
	}
	if err := p.Close(); err != nil {
		e.Errorf("a clean close returned %v", err)
	}
	for _, m := range parked {
		l.restart("g", m.Key)
	}
	again := e.open()
	e.subscribe(again, s, l.handler(again, "g", nil))
	l.mustPublish(again, topic, l.messages(20, 5)...)
	l.await("g")
	l.verify()
}

func slowHandlerOnce(e *env) {
	const ackWait = 2 * time.Second // a shorter one is over where a broker that shares two cores with four other properties syncs its log for 700 ms
	p, peer, topic, l := e.open(), e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Order, s.Concurrency, s.AckWait = pubsub.OrderNone, 4, ackWait
	var most atomic.Int64
	h := func(q *process) pubsub.Handler {
		return l.handler(q, "g", func(_ context.Context, d *pubsub.Delivery) error {
			if d.Type == "slow" {
				time.Sleep(5 * ackWait)
				_, held, _, _ := q.link.load()
				most.Store(max(most.Load(), int64(held)))
			}
			return nil
		})
	}
	e.subscribe(p, s, h(p))
	e.subscribe(peer, s, h(peer))
	l.mustPublish(p, topic, l.messages(30, 0)...)
	l.await("g")
	for _, m := range l.messages(6, 0) {
		m.Type = "slow"
		l.mustPublish(p, topic, m)
	}
	l.await("g")
	l.mustPublish(p, topic, l.messages(10, 0)...)
	l.await("g")
	for _, s := range l.all() {
		if n := len(l.calls("g", s.msg.ID)); n > 1 {
			e.Errorf("message %s (%q) was delivered %d times while its process lived", s.msg.ID, s.msg.Type, n)
		}
	}
	if most.Load() < 2 {
		e.Errorf("no member had more than %d message in flight", most.Load())
	}
	l.verify()
}

func attemptsCountUp(e *env) {
	const failures = 4
	for _, keys := range []int{0, 5} {
		p, topic, l := e.open(), e.topic(fmt.Sprintf("keys%d", keys)), e.ledger()
		s := e.sub(topic, "g")
		s.Concurrency, s.Retry.Delays = 4, []time.Duration{10 * time.Millisecond, 200 * time.Millisecond}
		e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
			if len(l.calls("g", d.ID)) <= failures && d.Type == "fails" {
				return errors.New("fails")
			}
			return nil
		}))
		l.mustPublish(p, topic, l.messages(30, keys)...)
		for _, m := range l.messages(10, keys) {
			m.Type = "fails"
			l.mustPublish(p, topic, m)
		}
		l.await("g")
		for _, s := range l.all() {
			for i, r := range l.calls("g", s.msg.ID) {
				if r.attempt != i+1 {
					e.Errorf("call %d of the handler with %s (keys: %d) says attempt %d", i+1, s.msg.ID, keys, r.attempt)
				}
			}
		}
		l.verify()
	}
}

func attemptsSurviveCrash(e *env) {
	const failures = 3
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Retry.Delays = []time.Duration{200 * time.Millisecond}
	running := make(chan struct{})
	e.subscribe(p, s, l.handler(p, "g", func(ctx context.Context, d *pubsub.Delivery) error {
		switch {
		case d.Type != "fails":
			return nil
		case d.Attempt <= failures:
			return errors.New("fails")
		}
		close(running)
		<-ctx.Done() // until the process is gone
		return ctx.Err()
	}))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.await("g")
	m := l.message("key-0")
	m.Type = "fails"
	l.mustPublish(p, topic, m)
	if !e.closed(patience, running) {
		e.Fatalf("attempt %d did not come: %d calls", failures+1, len(l.calls("g", m.ID)))
	}
	p.kill()
	peer := e.open()
	e.subscribe(peer, s, l.handler(peer, "g", nil))
	l.await("g")
	calls := l.calls("g", m.ID)
	if last := calls[len(calls)-1]; last.attempt < failures+1 || last.attempt > failures+2 {
		e.Errorf("the process was killed in attempt %d, after %d recorded failures; the next one says it is attempt %d", failures+1, failures, last.attempt)
	}
	l.verify()
}
