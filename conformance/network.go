package conformance

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/pubsub"
)

// HalfOpen is the name of the fault that Faults/HalfOpen looks for in Harness.Faults.
const HalfOpen = "half-open"

const (
	networkInFlight = 32
	networkPending  = 64
)

func halfOpenProperty() Property {
	return Property{
		Name: "Faults/HalfOpen", Promises: []int{5, 14}, Gate: redelivers(), run: halfOpen, alone: true,
		Doc: "A connection that is open on one side only is taken for no answer, and costs time, not messages.",
		needs: func(h Harness) string {
			if !slices.ContainsFunc(h.Faults, func(f Fault) bool { return f.Name == HalfOpen }) {
				return "one of Faults named " + HalfOpen
			}
			return ""
		},
	}
}

func replicatedProperty() Property {
	return Property{
		Name: "Delivery/Replicated", Promises: []int{1}, Gate: replicated(), run: isReplicated, alone: true,
		Doc: "With its followers paused nothing is confirmed, and without its leader's data everything confirmed is still there.",
		needs: func(h Harness) string {
			if h.Replicas == nil {
				return "Replicas, followers to pause and a leader whose data is removed"
			}
			return ""
		},
	}
}

// strike lets a fault happen. What it returns ends it, at the property's end at the latest, and requires that it had an effect.
func (e *env) strike(f Fault) (mend func()) {
	e.Helper()
	undo, err := f.Strike(e.Context())
	e.must(err, "%s", f.Name)
	mend = sync.OnceFunc(func() {
		effect, err := undo(e.Context())
		e.must(err, "end %s", f.Name)
		if !effect {
			e.Fatalf(setupPrefix+"%s had no effect", f.Name)
		}
	})
	e.Cleanup(mend)
	return mend
}

// unconfirmed publishes while nobody can confirm it, and asserts that nobody does. p has published before: it has a session.
func (e *env) unconfirmed(p pubsub.Publisher, l *ledger, topic, why string) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.Context(), time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, m := range l.messages(12, 0) {
		s := l.note(m)
		wg.Go(func() {
			err := p.Publish(ctx, topic, s.msg)
			l.tell(s, err)
			if err == nil {
				e.Errorf("%s the publish of %s is confirmed", why, m.ID)
			}
		})
	}
	wg.Wait()
}

func halfOpen(e *env) {
	const rounds = 2
	i := slices.IndexFunc(e.h.Faults, func(f Fault) bool { return f.Name == HalfOpen })
	fault := e.h.Faults[i]
	p, q, topic, l := e.open(), e.open(), e.topic("a"), e.ledger()
	if exclusive().Open(e.caps) {
		l.ordered("g")
	}
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight, s.AckWait = 4, networkInFlight, 2*time.Second
	e.subscribe(q, s, l.handler(q, "g", e.busy(3*time.Millisecond)))
	l.strikes("g", rounds, history.Load{Members: 1, MaxInFlight: networkInFlight, Publishers: 1, MaxPending: networkPending})
	pub, err := p.Publisher(pubsub.PublisherOptions{MaxPending: networkPending})
	e.must(err, "make a publisher")
	l.mustPublish(pub, topic, l.messages(30, 8)...)
	for range rounds {
		n := l.handled("g") + 10
		l.mustPublish(pub, topic, l.messages(50, 8)...)
		e.until(patience, func() bool { return l.handled("g") >= n })
		l.forget(q)
		mend := e.strike(fault)
		published := make(chan struct{})
		patient := l.messages(20, 8)
		go func() {
			defer close(published)
			l.publish(pub, topic, patient...)
		}()
		e.unconfirmed(pub, l, topic, "on a connection that is half-open")
		ctx, cancel := context.WithTimeout(e.Context(), time.Second)
		if err := p.Ping(ctx); err == nil {
			e.Errorf("on a connection that is half-open Ping says that all is well")
		}
		cancel()
		l.forget(q)
		mend()
		<-published
		for _, m := range patient {
			if err := l.fate(m.ID); err != nil {
				e.Errorf("publishing %s, on a connection that was half-open for some seconds, returned %v", m.ID, err)
			}
		}
	}
	l.mustPublish(pub, topic, l.messages(enough/2, 8)...)
	l.await("g")
	l.verify()
}

func isReplicated(e *env) {
	p, q, topic, l := e.open(), e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight, s.AckWait = 4, networkInFlight, 2*time.Second
	e.ensure(p, s)
	l.strikes("g", 2, history.Load{Members: 1, MaxInFlight: networkInFlight, Publishers: 1, MaxPending: networkPending})
	pub, err := p.Publisher(pubsub.PublisherOptions{MaxPending: networkPending})
	e.must(err, "make a publisher")
	l.mustPublish(pub, topic, l.messages(30, 5)...)
	followers, _, err := e.h.Replicas(e.Context(), topic)
	e.must(err, "find the followers")
	mend := e.strike(followers)
	e.unconfirmed(pub, l, topic, "without its followers")
	mend()
	l.mustPublish(pub, topic, l.messages(enough/2, 5)...) // as soon as there is a leader again
	_, leader, err := e.h.Replicas(e.Context(), topic)
	e.must(err, "find the leader")
	mend = e.strike(leader)
	e.subscribeAgain(q, s, l.handler(q, "g", nil)) // the others may be electing
	l.await("g")
	mend()
	l.mustPublish(pub, topic, l.messages(20, 5)...)
	l.await("g")
	l.verify()
}

// subscribeAgain subscribes to a broker that may not answer at first.
func (e *env) subscribeAgain(p *process, s pubsub.Subscription, h pubsub.Handler) {
	e.Helper()
	const attempt = 3 * time.Second
	var err error
	if !e.until(patience, func() bool {
		ctx, cancel := context.WithCancel(e.Context())
		e.Cleanup(cancel) // its end is the consumer's
		timer := time.AfterFunc(attempt, cancel)
		defer timer.Stop()
		_, err = p.Subscribe(ctx, s, h)
		return err == nil
	}) {
		e.Fatalf("the group %s cannot be read: %v", s.Group, err)
	}
}
