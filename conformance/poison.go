package conformance

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Properties of outages and of messages that fail the same way again and again: what middleware and engine do together.

func outagesAndPoison() []Property {
	return []Property{
		{
			Name: "Retry/BreakerPauses", Promises: []int{9}, Gate: redelivers(), run: breakerPauses, waits: 14 * time.Second,
			Doc: "A breaker that opens pauses the subscription: no handler is called, nothing is fetched, counted or dead-lettered, also when sessions drop.",
		},
		{
			Name: "Retry/Poison", Promises: []int{9, 19}, Gate: redelivers(), run: poison,
			Doc: "A message that fails the same way three times is dead-lettered as poison, and one whose failures differ is not.",
		},
	}
}

// A partner is what a handler needs. It knows for which failures its messages may be charged: those in a closed circuit but for the one that opens it.
type partner struct {
	down   atomic.Bool
	opened chan struct{} // told each time the circuit opens

	mu      sync.Mutex
	state   middleware.CircuitState
	last    string // that failed in a closed circuit
	charged map[string]int
	probes  int // that failed
}

func (x *partner) handle(_ context.Context, d *pubsub.Delivery) error {
	if !x.down.Load() {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.state == middleware.CircuitClosed {
		x.last = d.ID
		x.charged[d.ID]++
	} else {
		x.probes++
	}
	return errFails
}

func (x *partner) changed(c middleware.Circuit) {
	x.mu.Lock()
	if x.state == middleware.CircuitClosed {
		x.charged[x.last]--
	}
	x.state = c.State
	x.mu.Unlock()
	if c.State == middleware.CircuitOpen {
		x.opened <- struct{}{}
	}
}

func breakerPauses(e *env) {
	watch, open := 700*time.Millisecond, 3500*time.Millisecond // the watch, the rest before it, and what publishing takes
	if virtual() {
		watch, open = 30*time.Second, time.Minute
	}
	for _, keys := range []int{0, 20} {
		p, topic, l := e.open(), e.topic(fmt.Sprintf("keys%d", keys)), e.ledger()
		x := &partner{opened: make(chan struct{}, 10), charged: map[string]int{}}
		s := e.sub(topic, "g")
		if keys == 0 {
			s.Order = pubsub.OrderNone
		}
		s.Retry = pubsub.Policy{MaxAttempts: 20, Delays: []time.Duration{20 * time.Millisecond}}
		s.Use = []pubsub.Middleware{middleware.Breaker(middleware.BreakerOptions{Ratio: 0.2, Open: open, OnChange: x.changed})}
		c := e.subscribe(p, s, l.handler(p, "g", x.handle))
		l.mustPublish(p, topic, l.messages(30, keys)...)
		l.await("g")
		x.down.Store(true)
		l.mustPublish(p, topic, l.messages(100, keys)...)
		for round := range 2 { // the second is after a probe that failed
			if !e.closed(patience+open, x.opened) {
				e.Fatalf("with everything failing the circuit does not open in round %d: %+v", round, c.State())
			}
			if round == 1 {
				time.Sleep(50 * time.Millisecond) // what is settled is on its way
				if p.link.cut() == 0 {
					e.Fatalf(setupPrefix + "no session to cut")
				}
				l.strikes("g", 1, history.Load{Members: 1, MaxInFlight: 256})
			}
			e.watchPaused(p, l, c, topic, watch, keys)
		}
		x.mu.Lock()
		if x.probes == 0 {
			e.Errorf("the circuit was opened again, and no probe has failed")
		}
		x.mu.Unlock()
		x.down.Store(false)
		e.until(open, func() bool { return l.backlog("g") == 0 })
		l.await("g")
		if n := len(e.dead(p, topic, "g")); n > 0 {
			e.Errorf("%d messages were dead-lettered for an outage", n)
		}
		x.mu.Lock()
		for _, m := range l.all() {
			for _, r := range l.calls("g", m.msg.ID) {
				if most := 1 + x.charged[m.msg.ID]; r.attempt > most {
					e.Errorf("message %s comes with attempt %d; what failed before the circuit was open allows %d", m.msg.ID, r.attempt, most)
				}
			}
		}
		x.mu.Unlock()
		l.verify()
		e.must(c.Drain(e.Context()), "drain")
	}
}

// restPaused returns how much p has fetched when nothing more comes, though there is something: what was asked for before the pause may be
// answered after it. A consumer that goes on fetching does not come to rest.
func (e *env) restPaused(p *process, l *ledger, topic string, d time.Duration, keys int) (fetched int) {
	e.Helper()
	const looks, quiet = 16, 4
	still := 0
	for range looks {
		l.mustPublish(p, topic, l.messages(5, keys)...)
		time.Sleep(d / looks)
		now, _, _, _ := p.link.load()
		if still++; now > fetched {
			fetched, still = now, 0
		}
		if still == quiet {
			return fetched
		}
	}
	e.Errorf("while the circuit is open it goes on fetching: %d messages so far", fetched)
	return fetched
}

// watchPaused asserts that for so long nothing is handled or fetched, though there is something.
func (e *env) watchPaused(p *process, l *ledger, c *pubsub.Consumer, topic string, d time.Duration, keys int) {
	e.Helper()
	before := len(l.calls("g"))
	fetched := e.restPaused(p, l, topic, d, keys)
	end := time.Now().Add(d)
	for time.Now().Before(end) {
		l.mustPublish(p, topic, l.messages(10, keys)...)
		if st := c.State(); st.Phase != pubsub.Paused && st.Phase != pubsub.Reconnecting || st.Reason == nil {
			e.Errorf("while the circuit is open the state is %v because of %v, want paused", st.Phase, st.Reason)
			break
		}
		time.Sleep(d / 10)
	}
	if n := len(l.calls("g")) - before; n > 0 {
		e.Errorf("the handler was called %d times while the circuit was open", n)
	}
	if now, _, _, _ := p.link.load(); now > fetched {
		e.Errorf("%d messages were fetched while the circuit was open", now-fetched)
	}
	if n := len(e.dead(p, topic, "g")); n > 0 {
		e.Errorf("%d messages were dead-lettered while the circuit was open", n)
	}
}

type oddError struct{}

func (oddError) Error() string { return errFails.Error() }

func poison(e *env) {
	const times, cured = 3, 6
	for _, keys := range []int{0, 5} {
		p, topic, l := e.open(), e.topic(fmt.Sprintf("keys%d", keys)), e.ledger()
		s := e.sub(topic, "g")
		if keys == 0 {
			s.Order = pubsub.OrderNone
		}
		s.Concurrency = 4
		s.Retry = pubsub.Policy{MaxAttempts: 8, Delays: []time.Duration{30 * time.Millisecond}}
		s.Use = []pubsub.Middleware{middleware.Poison(middleware.PoisonOptions{Times: times})}
		e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
			switch {
			case d.Type == "fails", d.Type == "differs" && d.Attempt < cured && d.Attempt%2 == 0:
				return errFails
			case d.Type == "differs" && d.Attempt < cured:
				return oddError{}
			}
			return nil
		}))
		msgs := e.failing(p, l, topic, 10, keys)
		differ := l.messages(10, keys)
		for i := range differ {
			differ[i].Type = "differs"
			l.mustPublish(p, topic, differ[i])
		}
		for _, r := range e.wantDead(p, topic, "g", "poison", len(msgs)) {
			if got, want := r.Msg.Headers.Get("omnibus-dlq-fingerprint"), pubsub.Fingerprint(errFails); got != want {
				e.Errorf("the dead letter of %s has the fingerprint %q, its failures have %q", r.Msg.ID, got, want)
			}
		}
		e.wantCalls(l, msgs, times)
		l.await("g")
		e.wantCalls(l, differ, cured)
		l.verify()
	}
}
