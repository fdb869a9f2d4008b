package conformance

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Properties of failures that are interrupted: by the end of the process, or by a drain.

// processKiller lets a message kill its process again and again. Its neighbours are all prefetched then, and none of them has begun.
func processKiller(e *env) {
	const attempts, prefetch, crashBound = 3, 100, 2
	topic, l := e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.Concurrency, s.MaxInFlight, s.Retry = 1, 2*prefetch, pubsub.Policy{MaxAttempts: attempts, Delays: []time.Duration{50 * time.Millisecond}}
	// twice the room: where retries go through tiers they take a part of it
	pub := e.open()
	e.ensure(pub, s)
	before := e.open()
	c := e.subscribe(before, s, l.handler(before, "g", nil))
	l.mustPublish(pub, topic, l.messages(30, 0)...)
	l.await("g")
	e.must(c.Drain(e.Context()), "drain")
	killer := l.message("")
	killer.Type = "kills"
	l.mustPublish(pub, topic, killer)
	l.excuse(killer.ID)
	l.mustPublish(pub, topic, l.messages(prefetch-1, 0)...)
	var mu sync.Mutex
	starts := 0
	dead := func() int { return len(e.dead(pub, topic, "g")) }
	for life := range attempts + 6 {
		p := e.open()
		started := make(chan struct{}, 1)
		e.subscribe(p, s, l.handler(p, "g", func(ctx context.Context, d *pubsub.Delivery) error {
			if d.Type != "kills" {
				return nil
			}
			mu.Lock()
			starts++
			mu.Unlock()
			started <- struct{}{}
			<-ctx.Done() // until its process is gone
			return ctx.Err()
		}))
		l.allow("g", prefetch)
		if e.until(patience, func() bool { return len(started) > 0 || dead() > 0 }) && dead() > 0 {
			break
		}
		if life == 0 && !e.until(patience, func() bool { return p.held() >= prefetch }) {
			e.Fatalf(setupPrefix+"%d messages are prefetched when the first process dies, want %d", p.held(), prefetch)
		}
		time.Sleep(50 * time.Millisecond) // what its neighbours have settled is on its way
		p.kill()
	}
	e.wantDead(pub, topic, "g", "process-killer", 1)
	mu.Lock()
	n := starts
	mu.Unlock()
	if n > attempts+crashBound {
		e.Errorf("a message that kills its process was started %d times, MaxAttempts is %d", n, attempts)
	}
	l.await("g")
	for _, r := range l.calls("g") {
		if r.msg.ID != killer.ID && r.attempt != 1 {
			e.Errorf("message %s, a neighbour of one that kills processes, comes with attempt %d", r.msg.ID, r.attempt)
		}
	}
	l.verify()
}

// killedBeforeAck kills processes at a dead letter that the dice choose: when it has left, when it is stored and nobody knows, and when that is known and
// the original is not acked yet.
func killedBeforeAck(e *env) {
	const failing, inFlight = 40, 16
	topic, l := e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.Concurrency, s.MaxInFlight, s.AckWait = 2, inFlight, 2*time.Second // what they held comes when its lease is over
	pub := e.open()
	e.ensure(pub, s)
	msgs := e.failing(pub, l, topic, failing, 0)
	give := onFails(func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errFails) })
	ways := []actionKind{swallow, noAnswer, pass}
	for i, way := range ways {
		p := e.openWith(&pubsub.Options{DrainTimeout: 100 * time.Millisecond}) // the dead need not wait for answers
		dying, kill := e.dieAt(p, pubsub.PlaceDead, 1+e.rng.below(failing/len(ways)-2), way)
		e.subscribe(p, s, l.handler(p, "g", give))
		if !e.closed(patience, dying) {
			e.Fatalf(setupPrefix+"process %d was not killed: %s", i, l.progress("g"))
		}
		kill()
		l.strikes("g", 1, history.Load{Members: 1, MaxInFlight: inFlight})
	}
	p := e.open()
	e.subscribe(p, s, l.handler(p, "g", give))
	copies := map[string]int{}
	complete := func() bool {
		clear(copies)
		for _, r := range e.dead(p, topic, "g") {
			copies[r.Msg.ID]++
		}
		return len(copies) == failing
	}
	if !e.until(patience, complete) {
		e.Errorf("%d of %d messages that were given up are in the dead letters after %d kills", len(copies), failing, len(ways))
	}
	l.await("g")
	e.until(patience, func() bool { return p.held() == 0 }) // then no more copies come
	complete()
	most, again := len(ways)*inFlight, 0
	if e.caps.Dedup > 0 {
		most = 0 // each is sent again with its token
	}
	for _, m := range msgs {
		again += copies[m.ID] - 1
	}
	if again > most {
		e.Errorf("%d dead letters are duplicates after %d kills, at most %d may be", again, len(ways), most)
	}
	l.verify()
}

// dieAt says when a process is to be killed: right behind the at-th message that it sends to such a place, which goes that way. What is sent behind it goes nowhere, and
// nothing is acked any more.
func (e *env) dieAt(p *process, kind pubsub.PlaceKind, at int, way actionKind) (dying chan struct{}, kill func()) {
	dying = make(chan struct{})
	var mu sync.Mutex
	n, resume := 0, func() {}
	p.link.faults(func(o pubsub.Out) action {
		mu.Lock()
		defer mu.Unlock()
		if o.To.Kind == kind {
			n++
		}
		switch {
		case n < at:
			return action{}
		case n == at:
			resume = p.link.stall()
			close(dying)
			n++
			return action{kind: way}
		}
		return action{kind: swallow}
	})
	return dying, func() {
		p.kill()
		mu.Lock()
		defer mu.Unlock()
		resume() // those who wait for an answer are dead
	}
}

// drainsDuringRetries ends consumers whose messages wait for their retries, here or at the broker, and whose handlers run longer than the drain may
// take. Each message may fail exactly as often as it does: one failure too many, and it is dead-lettered.
func drainsDuringRetries(e *env) {
	const drains, failures = 50, 2
	kinds := []int{0, 5} // whose retries are moved, and held
	for _, keys := range kinds {
		topic, l := e.topic(fmt.Sprintf("keys%d", keys)), e.ledger()
		s := e.sub(topic, "g")
		if keys == 0 {
			s.Order = pubsub.OrderNone
		}
		s.Concurrency = 8
		s.Retry = pubsub.Policy{MaxAttempts: failures + 1, Delays: []time.Duration{40 * time.Millisecond}}
		pub := e.open()
		e.ensure(pub, s)
		x := &stumbler{e: e, failures: failures, failed: map[string]int{}, waited: map[string]bool{}}
		for round := range drains / len(kinds) {
			msgs := l.messages(12, keys)
			for i := range msgs {
				msgs[i].Type = []string{"fails", "", "waits"}[i%3]
			}
			l.mustPublish(pub, topic, msgs...)
			p := e.open()
			c := e.subscribe(p, s, l.handler(p, "g", x.handle))
			before := x.count()
			e.until(patience, func() bool { return x.count() > before || l.backlog("g") == 0 })
			ctx, cancel := context.WithTimeout(e.Context(), time.Duration(1+e.rng.below(30))*time.Millisecond)
			if err := c.Drain(ctx); err != nil {
				e.Errorf("drain %d returned %v", round, err)
			}
			cancel()
			e.must(p.Close(), "close")
		}
		x.stay()
		p := e.open()
		e.subscribe(p, s, l.handler(p, "g", x.handle))
		l.await("g")
		if n := len(e.dead(p, topic, "g")); n > 0 {
			e.Errorf("%d messages are in the dead letters after %d drains, none of which has failed %d times", n, drains/len(kinds), failures+1)
		}
		l.verify()
	}
}

// A stumbler fails each message that is to fail so many times, and holds each that is to wait until its context ends, once.
type stumbler struct {
	e        *env
	failures int

	mu     sync.Mutex
	failed map[string]int // as often as the engine has reason to count it
	waited map[string]bool
	total  int
	stays  bool // nobody drains any more
}

func (x *stumbler) handle(ctx context.Context, d *pubsub.Delivery) error {
	x.mu.Lock()
	failed, waits := x.failed[d.ID], d.Type == "waits" && !x.waited[d.ID] && !x.stays
	x.mu.Unlock()
	if d.Attempt > failed+1 {
		x.e.Errorf("message %s has failed %d times, and comes with attempt %d", d.ID, failed, d.Attempt)
	}
	if waits {
		<-ctx.Done()
		x.mu.Lock()
		defer x.mu.Unlock()
		x.waited[d.ID] = true
		return ctx.Err()
	}
	if d.Type != "fails" || failed == x.failures {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if ctx.Err() == nil {
		x.failed[d.ID]++
		x.total++
	}
	return errFails
}

func (x *stumbler) count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.total
}

func (x *stumbler) stay() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stays = true
}
