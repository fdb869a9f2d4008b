package conformance

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Properties that ask what happens where a server can do less: the suite takes a claim away and keeps the rest.

func openBelowProcess(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await("g")
	for _, d := range []pubsub.Durability{pubsub.None, pubsub.Memory} {
		for _, down := range []bool{false, true} {
			_, err := e.openClaiming(nil, func(c *pubsub.Capabilities) { c.Durability, c.OptedDown = d, down })
			switch {
			case down && err != nil:
				e.Errorf("opening a broker of %v durability, asked for by name, returned %v", d, err)
			case !down:
				e.wantCode(err, pubsub.ErrUnsupported, "opening a broker of %v durability that nobody asked for", d)
				if err != nil && !strings.Contains(err.Error(), d.String()) {
					e.Errorf("the error %q does not name the durability %v", err, d)
				}
			}
		}
	}
	l.verify()
}

func dedupByID(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	pub, err := p.Publisher(pubsub.PublisherOptions{DedupByID: true})
	e.must(err, "make a publisher")
	msgs := l.messages(enough, 3)
	l.mustPublish(pub, topic, msgs...)
	for i, m := range msgs {
		if i%2 == 0 {
			e.must(pub.Publish(e.Context(), topic, m), "publish again")
		}
	}
	l.mustPublish(pub, topic, l.messages(10, 3)...)
	l.await("g")
	l.verify()
}

func pastLeaseMax(e *env) {
	const ackWait, leaseMax = time.Second, 3 * time.Second
	p, err := e.openClaiming(nil, func(c *pubsub.Capabilities) { c.LeaseMax = leaseMax })
	e.must(err, "open")
	peer, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.AckWait, s.Retry.Max = ackWait, leaseMax
	started := make(chan struct{})
	var took atomic.Int64
	var why atomic.Pointer[error]
	var slow atomic.Bool
	h := func(q *process) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			if d.Type != "slow" || q == peer || slow.Swap(true) {
				return l.handler(q, "g", nil)(ctx, d)
			}
			close(started)
			begin := time.Now()
			<-ctx.Done()
			cause := context.Cause(ctx)
			why.Store(&cause)
			took.Store(int64(time.Since(begin)))
			return nil // too late: it is another's now
		}
	}
	e.subscribe(p, s, h(p))
	l.mustPublish(p, topic, l.messages(30, 0)...)
	l.await("g")
	m := l.message("")
	m.Type = "slow"
	l.mustPublish(p, topic, m)
	if !e.closed(patience, started) {
		e.Fatalf("%s", l.progress("g"))
	}
	if !p.link.leasesEnd() {
		p.kill()
		e.skip("the leases of this broker end with their session only")
	}
	e.subscribe(peer, s, h(peer))
	e.until(patience, func() bool { return why.Load() != nil })
	var cause error
	if c := why.Load(); c != nil {
		cause = *c
	}
	if !errors.Is(cause, pubsub.ErrLeaseLost) {
		e.Errorf("a handler that goes on past LeaseMax of %v has a context whose cause is %v, want %q", leaseMax, cause, pubsub.ErrLeaseLost.Error())
	} else if d := time.Duration(took.Load()); d < leaseMax-ackWait || d > leaseMax+2*ackWait {
		e.Errorf("with a LeaseMax of %v the handler's context ended after %v", leaseMax, d)
	}
	l.await("g")
	l.verify()
}

func tooLongDelay(e *env) {
	const leaseMax = 2 * time.Second
	p, err := e.openClaiming(nil, func(c *pubsub.Capabilities) { c.LeaseMax = leaseMax })
	e.must(err, "open")
	topic, l := e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.AckWait = time.Second
	s.Retry.Delays = []time.Duration{leaseMax + 1}
	_, err = p.Subscribe(e.Context(), s, l.handler(p, "g", nil))
	e.wantUnsupported(err, "a delay beyond LeaseMax in an ordered subscription")
	s.Retry.Delays = []time.Duration{leaseMax}
	var failed atomic.Bool
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.Type == "fails" && !failed.Swap(true) {
			return pubsub.RetryAfter(time.Hour, errFails)
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	m := l.message("key-0")
	m.Type = "fails"
	l.mustPublish(p, topic, m)
	l.mustPublish(p, topic, l.messages(10, 3)...)
	l.await("g")
	if calls := l.calls("g", m.ID); len(calls) != 2 {
		e.Errorf("RetryAfter(1h) where LeaseMax is %v: %d calls, want 2", leaseMax, len(calls))
	} else if took := calls[1].at.Sub(calls[0].at); took > leaseMax+time.Second {
		e.Errorf("RetryAfter(1h) where LeaseMax is %v came again after %v", leaseMax, took)
	}
	l.verify()
}

// redeliveryRefused asks a broker without redelivery for an order that needs it, and for dead letters of the group's own.
func redeliveryRefused(e *env) {
	p := e.open()
	nothing := func(context.Context, *pubsub.Delivery) error { return nil }
	_, err := p.Subscribe(e.Context(), pubsub.Subscription{Topic: e.topic("a"), Group: "g", DeadLetter: pubsub.DeadLetter{Drop: true}}, nothing)
	e.wantUnsupported(err, "an order by key, without redelivery")
	_, err = p.Subscribe(e.Context(), pubsub.Subscription{Topic: e.topic("a"), Group: "g", Order: pubsub.OrderNone}, nothing)
	e.wantUnsupported(err, "dead letters of the group's own, without redelivery")
}

// exclusiveRefused asks for an exclusive group.
func exclusiveRefused(e *env) {
	s := pubsub.Subscription{Topic: e.topic("a"), Group: "g", DeadLetter: pubsub.DeadLetter{Drop: true}}
	_, err := e.open().Subscribe(e.Context(), s, func(context.Context, *pubsub.Delivery) error { return nil })
	e.wantUnsupported(err, "an exclusive group")
}
