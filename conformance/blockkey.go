package conformance

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Properties of keys that are blocked after a dead letter.

func blockedKeys() []Property {
	return []Property{{
		Name: "DeadLetters/BlockKey", Promises: []int{6, 19}, Gate: redelivers().and(exclusive()), run: blockKey, refused: blockKeyRefused, waits: 20 * time.Second,
		Doc: "With BlockKey what follows a dead letter in its key goes to the dead letters too, in order and across a takeover and a restart, until a discard or a " +
			"replay frees the key; other keys go on.",
	}}
}

// A keyWatch notes what handlers get of each key, in order. What is to fail fails until all is well.
type keyWatch struct {
	mu      sync.Mutex
	well    bool
	handled map[string][]string
	failed  map[string][]string
}

func (w *keyWatch) handle(_ context.Context, d *pubsub.Delivery) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.Type == "fails" && !w.well {
		w.failed[d.Key] = append(w.failed[d.Key], d.ID)
		return pubsub.Permanent(errFails)
	}
	w.handled[d.Key] = append(w.handled[d.Key], d.ID)
	return nil
}

func (w *keyWatch) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.well = true
}

// of are the messages of a key that were handled, and those that failed, each where it came first.
func (w *keyWatch) of(key string) (handled, failed []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return firsts(w.handled[key]), firsts(w.failed[key])
}

// firsts leaves each text where it comes first.
func firsts(all []string) (once []string) {
	seen := map[string]bool{}
	for _, s := range all {
		if !seen[s] {
			seen[s] = true
			once = append(once, s)
		}
	}
	return once
}

func blockKeyRefused(e *env) {
	p := e.open()
	s := pubsub.Subscription{Topic: e.topic("a"), Group: "g", AfterDeadLetter: pubsub.BlockKey}
	_, err := p.Subscribe(e.Context(), s, fails)
	e.wantUnsupported(err, "blocking the key of a dead letter")
}

// A blocking is a topic in which two keys are blocked, one to be freed by a replay and one by a discard.
type blocking struct {
	*env
	pub   *process
	topic string
	l     *ledger
	sub   pubsub.Subscription
	watch *keyWatch
	sent  map[string][]string // of each of the two keys
}

const (
	replayedKey  = "replayed"
	discardedKey = "discarded"
)

func blockKey(e *env) {
	b := &blocking{env: e, pub: e.open(), topic: e.topic("a"), l: e.ledger(), watch: &keyWatch{handled: map[string][]string{}, failed: map[string][]string{}},
		sent: map[string][]string{}}
	b.sub = e.sub(b.topic, "g")
	b.sub.AfterDeadLetter, b.sub.Concurrency = pubsub.BlockKey, 4
	e.ensure(b.pub, b.sub)

	first, _ := b.join()
	b.l.mustPublish(b.pub, b.topic, b.l.messages(2*sound, 3)...)
	b.l.await("g")
	second, _ := b.join() // it knows of no dead letter but by looking when the lane comes
	b.round(10, "while one member runs and one stands by")

	e.until(patience, func() bool { return first.held() == 0 })
	first.kill()
	b.l.strikes("g", 1, history.Load{Members: 1, MaxInFlight: b.sub.InFlight()})
	b.round(5, "behind a takeover")

	e.must(second.Close(), "close")
	b.publish(5)
	third, c := b.join()
	b.check("behind a restart")
	if !e.until(patience, func() bool { return c.State().BlockedKeys == 2 }) {
		e.Errorf("State says that %d keys are blocked, want 2", c.State().BlockedKeys)
	}

	_, err := dlq.Open(third.Broker, b.topic, "g").Discard(e.Context(), dlq.Filter{Key: discardedKey}, dlq.Note{})
	e.must(err, "discard")
	b.opens(c, 1, "a discard")
	b.handles(discardedKey, nil)

	b.watch.heal()
	rep, err := dlq.Open(third.Broker, b.topic, "g").Replay(e.Context(), dlq.Filter{Key: replayedKey}, dlq.Replay{})
	e.must(err, "replay")
	if rep.Failed > 0 {
		e.Errorf("%d of %d dead letters could not be replayed", rep.Failed, rep.Total)
	}
	b.opens(c, 0, "a replay")
	b.handles(replayedKey, b.sent[replayedKey])
	b.l.verify()
}

// join starts a member in a process of its own.
func (b *blocking) join() (*process, *pubsub.Consumer) {
	b.Helper()
	p := b.open()
	return p, b.subscribe(p, b.sub, b.l.handler(p, "g", b.watch.handle))
}

// publish sends n messages of each of the two keys, the very first of which fails, among others.
func (b *blocking) publish(n int) {
	b.Helper()
	var msgs []pubsub.Message
	var excused []string
	for range n {
		for _, key := range []string{replayedKey, discardedKey} {
			m := b.l.message(key)
			if b.sent[key] == nil {
				m.Type = "fails"
			}
			b.sent[key] = append(b.sent[key], m.ID)
			msgs, excused = append(msgs, m), append(excused, m.ID)
		}
		msgs = append(append(msgs, b.l.messages(3, 3)...), b.l.message(""))
	}
	b.l.mustPublish(b.pub, b.topic, msgs...)
	b.l.excuse(excused...)
}

func (b *blocking) round(n int, when string) {
	b.Helper()
	b.publish(n)
	b.check(when)
}

// check asserts that all that was published of the two keys is in the dead letters, in order, that only the first of each came to a handler, and that the others were
// handled.
func (b *blocking) check(when string) {
	b.Helper()
	var reasons map[string]string
	var dead map[string][]string
	b.until(patience, func() bool {
		time.Sleep(50 * time.Millisecond) // each look reads all of them
		reasons, dead = map[string]string{}, map[string][]string{}
		for _, r := range b.dead(b.pub, b.topic, "g") {
			dead[r.Msg.Key] = append(dead[r.Msg.Key], r.Msg.ID)
			if reasons[r.Msg.ID] == "" {
				reasons[r.Msg.ID] = r.Msg.Headers.Get("omnibus-dlq-reason")
			}
		}
		return len(firsts(dead[replayedKey])) == len(b.sent[replayedKey]) && len(firsts(dead[discardedKey])) == len(b.sent[discardedKey])
	})
	for key, sent := range b.sent {
		if handled, failed := b.watch.of(key); len(handled) > 0 || !slices.Equal(failed, sent[:1]) {
			b.Errorf("%s, of the blocked key %q were handled %v, and %v failed; want none, and %v", when, key, history.Some(handled), history.Some(failed), sent[:1])
		}
		if got := firsts(dead[key]); !slices.Equal(got, sent) {
			b.Errorf("%s, of the blocked key %q are in the dead letters %v, want in this order %v", when, key, history.Some(got), history.Some(sent))
		}
		for i, id := range sent {
			want := "key-blocked"
			if i == 0 {
				want = "permanent"
			}
			if got := reasons[id]; got != want && got != "" {
				b.Errorf("%s, the dead letter of %s, message %d of its key, has the reason %q, want %q", when, id, i+1, got, want)
			}
		}
	}
	if !b.l.await("g") {
		b.Errorf("%s, other keys do not go on: %s", when, b.l.progress("g"))
	}
}

// opens waits until so many keys are blocked still.
func (b *blocking) opens(c *pubsub.Consumer, left int, why string) {
	b.Helper()
	if !b.until(patience, func() bool { return c.State().BlockedKeys == left }) {
		b.Errorf("%v after %s %d keys are blocked, want %d", patience, why, c.State().BlockedKeys, left)
	}
}

// handles asserts that a key is open: of it these were handled, and what is published now.
func (b *blocking) handles(key string, before []string) {
	b.Helper()
	msgs := []pubsub.Message{b.l.message(key), b.l.message(key)}
	b.l.mustPublish(b.pub, b.topic, msgs...)
	want := append(slices.Clone(before), msgs[0].ID, msgs[1].ID)
	var got []string
	b.until(patience, func() bool { got, _ = b.watch.of(key); return len(got) >= len(want) })
	if !slices.Equal(got, want) {
		b.Errorf("of the key %q, which is free, were handled %v, want in this order %v", key, history.Some(got), history.Some(want))
	}
}
