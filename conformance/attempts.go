package conformance

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/pubsub"
)

func maxAttemptsAcrossCrash(e *env) {
	const attempts = 4
	crashBound := 2
	if e.caps.StoresAttempts == pubsub.StoresNone && e.caps.RetryIn > 0 && e.caps.Dedup == 0 {
		crashBound = attempts // a retry is a copy: who dies between copy and ack leaves both, and each of them has its attempts
	}
	topic, l := e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.Concurrency, s.MaxInFlight = 2, 8
	s.Retry = pubsub.Policy{MaxAttempts: attempts, Delays: []time.Duration{100 * time.Millisecond}}
	pub := e.open()
	e.ensure(pub, s)
	join := func() *process {
		p := e.open()
		e.subscribe(p, s, l.handler(p, "g", onFails(func(context.Context, *pubsub.Delivery) error {
			time.Sleep(20 * time.Millisecond)
			return errFails
		})))
		return p
	}
	victim := join()
	join()
	join()
	msgs := e.failing(pub, l, topic, 40, 0)
	reached := func() bool {
		return len(l.calls("g")) > 30+len(msgs) && len(l.calls("g", ids(msgs)...)) > len(msgs)
	}
	if !e.until(patience, reached) {
		e.Fatalf("%d calls of the handler", len(l.calls("g")))
	}
	victim.kill()
	l.strikes("g", 1, history.Load{Members: 1, MaxInFlight: s.MaxInFlight})
	join() // and a rebalance
	stored := func() map[string]bool {
		all := map[string]bool{}
		for _, r := range e.dead(pub, topic, "g") {
			all[r.Msg.ID] = true
		}
		return all
	}
	if !e.until(patience, func() bool { return len(stored()) == len(msgs) }) {
		e.Errorf("%d of %d messages that always fail are in the dead letters", len(stored()), len(msgs))
	}
	for _, m := range msgs {
		calls, most := l.calls("g", m.ID), attempts
		for _, r := range calls {
			if r.who == victim {
				most = attempts + crashBound
			}
		}
		if len(calls) < attempts || len(calls) > most {
			e.Errorf("the handler was called %d times with %s, want %d to %d", len(calls), m.ID, attempts, most)
		}
	}
	l.await("g")
	l.verify()
}

func ids(msgs []pubsub.Message) (all []string) {
	for _, m := range msgs {
		all = append(all, m.ID)
	}
	return all
}

func defaultPolicy(e *env) {
	const attempts, first, most = 10, time.Second, 5 * time.Minute
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.Concurrency = 8
	e.subscribe(p, s, l.handler(p, "g", onFails(fails)))
	msgs := e.failing(p, l, topic, 40, 0)
	e.until(time.Hour, func() bool { time.Sleep(time.Second); return len(e.dead(p, topic, "g")) >= len(msgs) })
	e.wantDead(p, topic, "g", "max-attempts", len(msgs))
	e.wantCalls(l, msgs, attempts)
	var total time.Duration
	for _, m := range msgs {
		calls := l.calls("g", m.ID)
		for i := 1; i < len(calls); i++ {
			took, limit := calls[i].at.Sub(calls[i-1].at), min(first<<(i-1), most)
			if late := took - limit - e.caps.RetryLate; late > time.Second {
				e.Errorf("retry %d of %s came after %v, want at most %v", i, m.ID, took, limit)
			}
			total += took
		}
	}
	if mean := total / time.Duration(len(msgs)); mean < 3*time.Minute || mean > 330*time.Second+9*e.caps.RetryLate {
		e.Errorf("the retries of a message took %v on average, want about 4 minutes", mean)
	}
	l.await("g")
	l.verify()
}

func snoozeAcrossReconnects(e *env) {
	const delay, attempts, inFlight = 300 * time.Millisecond, 2, 32
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight, s.Retry.MaxAttempts = 4, inFlight, attempts
	var awake atomic.Bool
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.Attempt > 1 {
			e.Errorf("message %s, which never failed, comes with attempt %d", d.ID, d.Attempt)
		}
		if d.Type == "sleepy" && !awake.Load() {
			return pubsub.Snooze(delay, errors.New("not yet"))
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.await("g")
	sleepy := l.messages(4, 4)
	for i := range sleepy {
		sleepy[i].Type = "sleepy"
	}
	l.mustPublish(p, topic, sleepy...)
	snoozed := func(n int) bool {
		for _, m := range sleepy {
			if len(l.calls("g", m.ID)) < n {
				return false
			}
		}
		return true
	}
	if !e.until(patience, func() bool { return snoozed(3 * attempts) }) {
		e.Errorf("messages that are snoozed for %v have not come %d times: %s", delay, 3*attempts, l.progress("g"))
	}
	for range 2 * attempts {
		n := len(l.calls("g"))
		p.link.cut()
		e.until(10*delay, func() bool { return len(l.calls("g")) >= n+len(sleepy) })
	}
	l.strikes("g", 2*attempts, history.Load{Members: 1, MaxInFlight: inFlight})
	awake.Store(true)
	if !l.await("g") {
		e.Errorf("messages that were only snoozed are not handled once they can be: %s", l.progress("g"))
	}
	for _, r := range e.dead(p, topic, "g") {
		e.Errorf("message %s, which was only snoozed, is in the dead letters: %s", r.Msg.ID, r.Msg.Headers.Get("omnibus-dlq-reason"))
	}
	l.verify()
}
