package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Properties of what becomes of dead letters: replayed is not solved.

func outcomes() []Property {
	return []Property{
		{
			Name: "DeadLetters/OutcomeIsTold", Promises: []int{19}, Gate: redelivers(), run: outcomeIsTold,
			Doc: "A replayed dead letter is resolved once the handler has succeeded, and failed again where there is a new one; the next plan replays only these.",
		},
		{
			Name: "DeadLetters/OutcomeBeforeAck", Promises: []int{5, 19}, Gate: redelivers(), run: outcomeBeforeAck, waits: 5 * time.Second,
			Doc: "A replay is acked when its outcome is stored: whenever its process is killed, or the place of outcomes is away, none stays without one.",
		},
		{
			Name: "DeadLetters/OutcomeDenied", Promises: []int{19}, Gate: redelivers(), run: outcomeDenied,
			Doc: "A replay whose outcome can never be stored is handled once and acked all the same, and its dead letter stays pending.",
		},
		{
			Name: "DeadLetters/StatesAreKept", Promises: []int{19}, Gate: redelivers(), run: statesAreKept,
			Doc: "What was discarded and restored is so after 100 looks, a restart and a trim of its topic, and the audit record tells of it in the same order.",
		},
		{
			Name: "DeadLetters/Purge", Promises: []int{16, 19}, Gate: redelivers(), run: purges,
			Doc: "A purge removes the dead letters up to a position and no others, nor those of another group, nor what is told of them; or it is refused by name.",
		},
	}
}

// states counts the states of a group's dead letters, and names those that have one.
func (e *env) states(p *process, topic, group string) (by map[dlq.State][]string) {
	e.Helper()
	by = map[dlq.State][]string{}
	for r, err := range dlq.Open(p.Broker, topic, group).List(e.Context(), dlq.Filter{}) {
		e.must(err, "list")
		by[r.State] = append(by[r.State], r.Message.ID)
	}
	return by
}

// awaitStates waits until that many dead letters have each state, and asserts it.
func (e *env) awaitStates(p *process, topic, group string, want map[dlq.State]int) map[dlq.State][]string {
	e.Helper()
	var got map[dlq.State][]string
	e.until(patience, func() bool {
		time.Sleep(50 * time.Millisecond) // each look reads all of them
		got = e.states(p, topic, group)
		for s, n := range want {
			if len(got[s]) != n {
				return false
			}
		}
		return true
	})
	for s, n := range want {
		if len(got[s]) != n { // what follows would wait for it, too
			e.Fatalf("%d dead letters are %s, want %d: %v", len(got[s]), s, n, history.Some(got[s]))
		}
	}
	return got
}

func outcomeIsTold(e *env) {
	const n, every = 80, 4
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	stubborn := map[string]bool{} // they fail once more
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", onFails(func(_ context.Context, d *pubsub.Delivery) error {
		if replays := d.Headers.Get("omnibus-replays"); replays == "" || replays == "1" && strings.HasPrefix(d.ContentType, "stubborn") {
			return pubsub.Permanent(errFails)
		}
		return nil
	})))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	for i := range n {
		m := l.message(fmt.Sprintf("key-%d", i%5))
		m.Type = "fails"
		if i%every == 0 {
			m.ContentType = "stubborn"
			stubborn[m.ID] = true
		}
		l.mustPublish(p, topic, m)
		l.excuse(m.ID)
	}
	e.wantDead(p, topic, "g", "permanent", n)
	l.await("g")
	q := dlq.Open(p.Broker, topic, "g")
	rep, err := q.Replay(e.Context(), dlq.Filter{}, dlq.Replay{})
	e.must(err, "replay")
	if rep.Replayed != n || rep.Untold != nil {
		e.Errorf("%d of %d dead letters were replayed, and what could not be told is %v", rep.Replayed, n, rep.Untold)
	}
	again := n / every
	got := e.awaitStates(p, topic, "g", map[dlq.State]int{dlq.StateResolved: n - again, dlq.StateFailedAgain: again, dlq.StateOpen: again, dlq.StatePending: 0})
	for _, id := range slices.Concat(got[dlq.StateFailedAgain], got[dlq.StateOpen]) {
		if !stubborn[id] {
			e.Errorf("%s has succeeded when it was replayed, and counts as failed again", id)
		}
	}
	for _, want := range []int{again, 0} {
		rep, err = q.Replay(e.Context(), dlq.Filter{}, dlq.Replay{})
		e.must(err, "replay again")
		if rep.Replayed != want {
			e.Errorf("another plan replays %d dead letters, %d have failed again", rep.Replayed, want)
		}
		e.awaitStates(p, topic, "g", map[dlq.State]int{dlq.StateResolved: n, dlq.StateFailedAgain: again, dlq.StateOpen: 0, dlq.StatePending: 0})
	}
	l.verify()
}

// outcomeBeforeAck kills processes at an outcome that the dice choose: when it has left, when it is stored and nobody knows, and when that is known and the
// replay is not acked yet. The last process finds the place away for a while.
func outcomeBeforeAck(e *env) {
	const failing, inFlight = 60, 16
	topic, l := e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.Concurrency, s.MaxInFlight, s.AckWait = 2, inFlight, 2*time.Second // what they held comes when its lease is over
	pub := e.open()
	first := e.subscribe(pub, s, l.handler(pub, "g", onFails(func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errFails) })))
	msgs := e.failing(pub, l, topic, failing, 0)
	e.wantDead(pub, topic, "g", "permanent", failing)
	l.await("g")
	e.must(first.Drain(e.Context()), "drain")
	rep, err := dlq.Open(pub.Broker, topic, "g").Replay(e.Context(), dlq.Filter{}, dlq.Replay{})
	e.must(err, "replay")
	if rep.Replayed != failing {
		e.Errorf("%d of %d dead letters were replayed", rep.Replayed, failing)
	}
	var mu sync.Mutex
	came := map[string]int{}
	handle := onFails(func(_ context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		came[d.ID]++
		return nil
	})
	ways := []actionKind{swallow, noAnswer, pass}
	for i, way := range ways {
		p := e.openWith(&pubsub.Options{DrainTimeout: 100 * time.Millisecond}) // the dead need not wait for answers
		dying, kill := e.dieAt(p, pubsub.PlaceState, 1+e.rng.below(3), way)
		e.subscribe(p, s, l.handler(p, "g", handle))
		if !e.closed(patience, dying) {
			e.Fatalf(setupPrefix+"process %d was not killed: %s", i, l.progress("g"))
		}
		kill()
		l.strikes("g", 1, history.Load{Members: 1, MaxInFlight: inFlight})
	}
	p := e.open()
	var refused atomic.Int64
	p.link.faults(func(o pubsub.Out) action {
		if o.To.Kind == pubsub.PlaceState && refused.Add(1) <= 5 {
			return action{kind: refuse, err: brokerError{pubsub.ErrUnavailable, false}}
		}
		return action{}
	})
	e.subscribe(p, s, l.handler(p, "g", handle))
	e.awaitStates(pub, topic, "g", map[dlq.State]int{dlq.StateResolved: failing, dlq.StatePending: 0, dlq.StateOpen: 0})
	e.until(patience, func() bool { return p.held() == 0 })
	mu.Lock()
	defer mu.Unlock()
	twice := 0
	for _, m := range msgs {
		if came[m.ID] == 0 {
			e.Errorf("%s was replayed, and no handler got it", m.ID)
		}
		twice += max(came[m.ID]-1, 0)
	}
	if most := len(ways) * inFlight; twice > most {
		e.Errorf("%d replays were handled again after %d kills, at most %d may be", twice, len(ways), most)
	}
}

func outcomeDenied(e *env) {
	const n = 40
	topic, l := e.topic("a"), e.ledger()
	pub, p := e.open(), e.open()
	back := &reviver{e: e}
	var denied atomic.Int64
	p.link.faults(func(o pubsub.Out) action {
		if o.To.Kind == pubsub.PlaceState {
			denied.Add(1)
			return action{kind: refuse, err: brokerError{pubsub.ErrDenied, true}}
		}
		return action{}
	})
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", onFails(back.handle)))
	msgs := e.failing(pub, l, topic, n, 5)
	e.wantDead(pub, topic, "g", "permanent", n)
	rep, err := dlq.Open(pub.Broker, topic, "g").Replay(e.Context(), dlq.Filter{}, dlq.Replay{})
	e.must(err, "replay")
	if rep.Replayed != n {
		e.Errorf("%d of %d dead letters were replayed", rep.Replayed, n)
	}
	times := back.await(len(msgs))
	for _, m := range msgs {
		if times[m.ID] != 1 {
			e.Errorf("%s, whose outcome cannot be stored, was handled %d times", m.ID, times[m.ID])
		}
	}
	if !e.until(patience, func() bool { return p.held() == 0 }) {
		e.Errorf("%d messages are not settled, though their handlers have succeeded", p.held())
	}
	if denied.Load() == 0 {
		e.Fatalf(setupPrefix + "no outcome was refused")
	}
	e.awaitStates(pub, topic, "g", map[dlq.State]int{dlq.StatePending: n})
	l.verify()
}

func statesAreKept(e *env) {
	const n = 60
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	bounded := pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic, MaxBytes: 50_000}}}
	switch err := p.Ensure(e.Context(), bounded); pubsub.CodeOf(err) {
	case pubsub.ErrUnsupported, pubsub.ErrConflict: // what has no bound, or shares that of other topics, trims nothing
	default:
		e.must(err, "make a topic of 50 kB")
	}
	e.must(p.Ensure(e.Context(), pubsub.Topology{Groups: []pubsub.Subscription{s}}), "make a group")
	c := e.subscribe(p, s, l.handler(p, "g", onFails(func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errFails) })))
	msgs := e.failing(p, l, topic, n, 1)
	e.wantDead(p, topic, "g", "permanent", n)
	l.await("g")
	q := dlq.Open(p.Broker, topic, "g")
	for i, m := range msgs { // one entry each, so that some can be missing
		done, err := q.Discard(e.Context(), dlq.Filter{Where: func(r *dlq.Record) bool { return r.Message.ID == m.ID }}, dlq.Note{Why: m.ID})
		e.must(err, "discard")
		if done != 1 {
			e.Errorf("%d dead letters were discarded, not %s alone", done, m.ID)
		}
		if i%3 == 0 {
			_, err := q.Restore(e.Context(), dlq.Filter{Where: func(r *dlq.Record) bool { return r.Message.ID == m.ID }}, dlq.Note{Why: m.ID})
			e.must(err, "restore")
		}
	}
	look := func(p *process) (all []string) {
		q := dlq.Open(p.Broker, topic, "g")
		for r, err := range q.List(e.Context(), dlq.Filter{}) {
			e.must(err, "list")
			all = append(all, r.Message.ID+" is "+string(r.State))
		}
		for a, err := range q.Audit(e.Context()) {
			e.must(err, "audit")
			all = append(all, fmt.Sprintf("%s of %s by %s", a.Operation, a.Why, a.By))
		}
		return all
	}
	want := look(p)
	if len(want) != n+n+n/3 {
		e.Errorf("%d dead letters and entries are there, want %d of dead letters, as many that they were discarded and %d that they were restored", len(want), n, n/3)
	}
	for i, m := range msgs {
		state := dlq.StateDiscarded
		if i%3 == 0 {
			state = dlq.StateOpen
		}
		if !slices.Contains(want, m.ID+" is "+string(state)) {
			e.Errorf("%s is not %s", m.ID, state)
		}
	}
	for i := range 100 {
		if got := look(p); !slices.Equal(got, want) {
			e.Fatalf("look %d found %d entries, %v; the first one found %d", i+1, len(got), history.Some(got), len(want))
		}
	}
	e.must(c.Drain(e.Context()), "drain")
	e.must(p.Close(), "close")
	r := e.open()
	e.subscribe(r, s, l.handler(r, "g", nil))
	for batch := range slices.Chunk(l.messages(2*enough, 5), 50) {
		l.mustPublish(r, topic, batch...)
		l.await("g")
		e.until(patience, func() bool { _, held, _, _ := r.link.load(); return held == 0 }) // what is handled is needed until it is settled
	}
	if got := look(r); !slices.Equal(got, want) {
		e.Errorf("after a restart and a trim %d dead letters and entries are there, %v; before there were %d", len(got), history.Some(got), len(want))
	}
	l.verify()
}

func purges(e *env) {
	const n = 40
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	spec := pubsub.TopicSpec{Name: topic}
	if e.caps.Partitions {
		spec.Partitions = 3
	}
	e.must(p.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}}), "make the topic")
	fail := onFails(func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errFails) })
	for _, g := range []string{"g", "other"} {
		e.subscribe(p, e.sub(topic, g), l.handler(p, g, fail))
	}
	e.failing(p, l, topic, n, 5)
	ids := func(g string) (all []string) {
		for r, err := range dlq.Open(p.Broker, topic, g).List(e.Context(), dlq.Filter{}) {
			e.must(err, "list")
			all = append(all, r.Message.ID)
		}
		return all
	}
	for _, g := range []string{"g", "other"} {
		e.wantDead(p, topic, g, "permanent", n)
	}
	all, others := ids("g"), ids("other")
	letters := e.dead(p, topic, "g")
	upTo := letters[n/2-1].Pos
	if upTo == (pubsub.Position{}) {
		e.wantUnsupported(p.Purge(e.Context(), pubsub.Place{Topic: topic, Group: "g", Kind: pubsub.PlaceDead}, pubsub.NewPosition(1, 1, 0, 0)), "Purge")
		return
	}
	q := dlq.Open(p.Broker, topic, "g")
	_, err := q.Discard(e.Context(), dlq.Filter{}, dlq.Note{})
	e.must(err, "discard")
	err = p.Purge(e.Context(), pubsub.Place{Topic: topic, Group: "g", Kind: pubsub.PlaceDead}, upTo)
	left := all[n/2:]
	if pubsub.CodeOf(err) == pubsub.ErrUnsupported {
		e.wantUnsupported(err, "Purge")
		left = all
	} else {
		e.must(err, "purge")
	}
	if got := ids("g"); !slices.Equal(got, left) {
		e.Errorf("%d of %d dead letters are left after a purge, want %d: %v", len(got), n, len(left), history.Some(got))
	}
	if got := ids("other"); !slices.Equal(got, others) {
		e.Errorf("the other group has %d dead letters, %d before the purge", len(got), len(others))
	}
	e.awaitStates(p, topic, "g", map[dlq.State]int{dlq.StateDiscarded: len(left), dlq.StateOpen: 0})
	e.failing(p, l, topic, 5, 5)
	e.wantDead(p, topic, "g", "permanent", len(left)+5)
	l.verify()
}
