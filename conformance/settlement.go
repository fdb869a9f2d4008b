package conformance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func settlement() []Property {
	return []Property{
		{
			Name: "Settlement/ErrorIsRedelivered", Promises: []int{5, 9}, Gate: redelivers(), run: errorIsRedelivered, refused: redeliveryRefused,
			Doc: "A message whose handler returned an error is delivered again, with or without a key, and one that succeeded is not.",
		},
		{
			Name: "Settlement/SettleOnce", Promises: []int{11}, run: settleOnce,
			Doc: "Settling a lease again does nothing, whatever the second outcome is.",
		},
		{
			Name: "Settlement/PeerTakesOver", Promises: []int{5}, Gate: redelivers(), run: peerTakesOver,
			Doc: "What a consumer had not settled when its process was killed is delivered to another member.",
		},
		{
			Name: "Settlement/RetryNotEarly", Promises: []int{10}, Gate: redelivers(), run: retryNotEarly, waits: 3 * time.Second,
			Doc: "A delayed redelivery comes not before its delay is over, held in process or moved away.",
		},
		{
			Name: "Settlement/RetryNotLate", Promises: []int{10}, Gate: redelivers(), run: retryNotLate, waits: 3 * time.Second,
			Doc: "A delayed redelivery comes at most RetryLate after its delay is over.",
		},
		{
			Name: "Settlement/StaleSettle", Promises: []int{11}, Gate: redelivers(), run: staleSettle,
			Doc: "Settling a lease whose session has ended is ErrLeaseLost, and settles nothing else.",
		},
		{
			Name: "Settlement/LeaseOver", Promises: []int{8, 11}, Gate: redelivers().and(leases()), run: leaseOver, waits: 5 * time.Second,
			Doc: "A member that cannot renew a lease knows by its own clock that it is over: settling is ErrLeaseLost once another member has the message.",
		},
		{
			Name: "Settlement/AckedStaysAcked", Promises: []int{5, 13}, Gate: redelivers(), run: ackedStaysAcked,
			Doc: "After a clean restart nothing comes again that was acked, also not behind a key that was waiting for its retry.",
		},
		{
			Name: "Settlement/SlowHandlerOnce", Promises: []int{8}, Gate: redelivers().and(leases()), run: slowHandlerOnce, waits: 12 * time.Second,
			Doc: "A handler that takes five times the ack wait gets its message once while its process lives, and others run meanwhile.",
		},
		{
			Name: "Settlement/AttemptsCountUp", Promises: []int{9}, Gate: redelivers(), run: attemptsCountUp, waits: 2 * time.Second,
			Doc: "Delivery.Attempt is 1 plus the failures so far.",
		},
		{
			Name: "Settlement/AttemptsSurviveCrash", Promises: []int{9}, Gate: redelivers().and(storesAttempts()), run: attemptsSurviveCrash,
			Doc: "Failures that the broker has stored still count after the process was killed.",
		},
		{
			Name: "Settlement/PastLeaseMax", Promises: []int{8}, Gate: redelivers().and(leases()), run: pastLeaseMax, waits: 4 * time.Second,
			Doc: "A handler that goes on past LeaseMax has its context ended with ErrLeaseLost, and another member gets the message.",
		},
		{
			Name: "Settlement/TooLongDelay", Promises: []int{10, 16}, Gate: redelivers().and(exclusive()), run: tooLongDelay, waits: 2 * time.Second,
			Doc: "In an ordered subscription a policy with a delay beyond LeaseMax is refused, and a longer RetryAfter is cut to it.",
		},
	}
}

func errorIsRedelivered(e *env) {
	for _, keys := range []int{0, 5} {
		p, topic, l := e.open(), e.topic(fmt.Sprintf("keys%d", keys)), e.ledger()
		s := e.sub(topic, "g")
		s.Concurrency, s.Retry.Delays = 3, []time.Duration{50 * time.Millisecond}
		msgs := l.messages(120, keys)
		fails := map[string]bool{}
		for i := range msgs {
			fails[msgs[i].ID] = i%4 == 3
		}
		e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
			if fails[d.ID] && d.Attempt == 1 {
				return errors.New("the first attempt fails")
			}
			return nil
		}))
		l.mustPublish(p, topic, msgs...)
		l.await("g")
		for _, m := range msgs {
			want := 1
			if fails[m.ID] {
				want = 2
			}
			if got := len(l.calls("g", m.ID)); got != want {
				e.Errorf("message %s, which fails at first=%v, was handled %d times, want %d", m.ID, fails[m.ID], got, want)
			}
		}
		l.verify()
	}
}

// pull receives in a loop, in a goroutine of its own, until f says false, or the property ends. The process is closed with it.
func (e *env) pull(p *process, s pubsub.Subscription, f func(pubsub.Lease) bool) (done <-chan struct{}) {
	e.Helper()
	ctx, cancel := context.WithCancel(e.Context())
	seq, err := p.Receive(ctx, s)
	e.must(err, "receive from %s", s.Topic)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lease, err := range seq {
			if err != nil {
				e.Errorf("a Receive loop says %v", err)
				return
			}
			if !f(lease) {
				return
			}
		}
	}()
	e.Cleanup(func() { cancel(); <-ended })
	return ended
}

func settleOnce(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	e.pull(p, s, func(lease pubsub.Lease) bool {
		err := l.handler(p, "g", func(ctx context.Context, _ *pubsub.Delivery) error { return lease.Settle(ctx, nil) })(e.Context(), lease.Delivery)
		if err != nil {
			e.Errorf("settling a lease returned %v", err)
		}
		for _, outcome := range []error{nil, errors.New("a failure"), pubsub.RetryAfter(0, errors.New("another")), pubsub.Permanent(errors.New("a third"))} {
			if err := lease.Settle(e.Context(), outcome); err != nil {
				e.Errorf("settling a settled lease with %v returned %v", outcome, err)
			}
		}
		return true
	})
	l.mustPublish(p, topic, l.messages(enough, 5)...)
	l.await("g")
	l.mustPublish(p, topic, l.messages(50, 5)...) // what came again would come before these
	l.await("g")
	l.verify()
	if e.caps.Redelivery {
		if n := len(e.dead(p, topic, "g")); n > 0 {
			e.Errorf("%d messages are in the dead letters, although each was acked first", n)
		}
	}
}

// dead lists the dead letters of a group.
func (e *env) dead(p *process, topic, group string) []pubsub.Record {
	e.Helper()
	all, err := e.browse(p, topic, group)
	e.must(err, "browse the dead letters of %s in %s", group, topic)
	return all
}

// browse is dead for goroutines that the property must not end.
func (e *env) browse(p *process, topic, group string) (all []pubsub.Record, err error) {
	for r, err := range p.Browse(e.Context(), pubsub.Place{Topic: topic, Group: group, Kind: pubsub.PlaceDead}, pubsub.Position{}) {
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func peerTakesOver(e *env) {
	p, peer, topic, l := e.open(), e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Order, s.Concurrency, s.MaxInFlight = pubsub.OrderNone, 4, 40
	block := e.gate()
	e.subscribe(p, s, l.handler(p, "g", func(context.Context, *pubsub.Delivery) error {
		if l.handled("g") >= 30 {
			block.wait()
		}
		return nil
	}))
	l.allow("g", s.MaxInFlight) // settlements of the first 30 may have been on their way
	l.mustPublish(p, topic, l.messages(100, 0)...)
	if !e.until(patience, func() bool { _, held, _, _ := p.link.load(); return l.handled("g") >= 30 && held >= s.MaxInFlight/2 }) {
		e.Fatalf("only %d messages were handled", l.handled("g"))
	}
	e.subscribe(peer, s, l.handler(peer, "g", nil))
	p.kill()
	l.await("g")
	l.verify()
}

func retryNotEarly(e *env) {
	for _, t := range e.measureRetries() {
		if t.took < t.delay {
			e.Errorf("%s: a retry after %v came after %v", t.how, t.delay, t.took)
		}
	}
}

func retryNotLate(e *env) {
	for _, t := range e.measureRetries() {
		if late := t.took - t.delay - e.caps.RetryLate; late > time.Second { // a second for load
			e.Errorf("%s: a retry after %v came after %v, which is %v later than RetryLate of %v allows", t.how, t.delay, t.took, late, e.caps.RetryLate)
		}
	}
}

type retryTime struct {
	how         string
	delay, took time.Duration
}

// measureRetries lets messages fail with delays, and tells when they came again.
func (e *env) measureRetries() []retryTime {
	delays := []time.Duration{100 * time.Millisecond, 700 * time.Millisecond, 3 * time.Second}
	var mu sync.Mutex
	var all []retryTime
	var ledgers []*ledger
	for _, order := range []pubsub.Order{pubsub.OrderByKey, pubsub.OrderNone, pubsub.OrderByKeyLoose} {
		if order != pubsub.OrderNone && !exclusive().Open(e.caps) {
			continue
		}
		p, topic, l := e.open(), e.topic(fmt.Sprintf("order%d", order)), e.ledger()
		s := e.sub(topic, "g")
		s.Order, s.Concurrency = order, 4
		failed := map[string]time.Time{}
		e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			delay, err := time.ParseDuration(d.Type)
			if err != nil {
				return nil // not one of those that fail
			}
			if at, again := failed[d.ID]; again {
				all = append(all, retryTime{fmt.Sprintf("order %v, key %q", order, d.Key), delay, time.Since(at)})
				return nil
			}
			failed[d.ID] = time.Now()
			return pubsub.RetryAfter(delay, errors.New("later"))
		}))
		l.mustPublish(p, topic, l.messages(30, 30)...)
		for i, m := range l.messages(30, 30) {
			m.Type = delays[i%len(delays)].String()
			if i%2 == 0 {
				m.Key = ""
			}
			l.mustPublish(p, topic, m)
		}
		ledgers = append(ledgers, l)
	}
	for _, l := range ledgers {
		l.await("g")
		l.verify()
	}
	mu.Lock()
	defer mu.Unlock()
	return all
}

func staleSettle(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	cut := false
	e.pull(p, s, func(lease pubsub.Lease) bool {
		if !cut && l.handled("g") == 30 { // the session ends while this lease is out
			cut = true
			before := p.link.opened()
			p.link.cut()
			if !e.until(patience, func() bool { return p.link.opened() > before }) {
				e.Errorf("no new session after %v", patience)
			}
			if err := lease.Settle(e.Context(), nil); !errors.Is(err, pubsub.ErrLeaseLost) {
				e.Errorf("settling a lease whose session has ended returned %v, want %q", err, pubsub.ErrLeaseLost.Error())
			}
			return true
		}
		err := l.handler(p, "g", func(ctx context.Context, _ *pubsub.Delivery) error { return lease.Settle(ctx, nil) })(e.Context(), lease.Delivery)
		if err != nil {
			e.Errorf("settling a lease returned %v", err)
		}
		return true
	})
	l.allow("g", 256) // settlements that were on their way when the session ended
	l.mustPublish(p, topic, l.messages(100, 0)...)
	l.await("g")
	if !cut {
		e.Fatalf("only %d messages came", l.handled("g"))
	}
	l.verify()
}
