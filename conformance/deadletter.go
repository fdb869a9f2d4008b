package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/pubsub"
)

func deadLetters() []Property {
	return []Property{
		{
			Name: "DeadLetters/Intact", Promises: []int{19, 20}, Gate: redelivers(), run: deadIntact,
			Doc: "A dead letter has payload, key and headers as they came, and says why, from where and after how many attempts.",
		},
		{
			Name: "DeadLetters/TargetDenied", Promises: []int{19}, Gate: redelivers(), run: targetDenied, waits: 3 * time.Second,
			Doc: "While dead letters are refused nothing is acked, State says Blocked within 5 s, and it resumes by itself.",
		},
		{
			Name: "DeadLetters/TargetDown", Promises: []int{19}, Gate: redelivers(), run: targetDown, waits: 4 * time.Second,
			Doc: "While the dead letters cannot be reached nothing is acked, State says Blocked within 5 s, and it resumes by itself.",
		},
		{
			Name: "DeadLetters/TargetFull", Promises: []int{19}, Gate: redelivers(), run: targetFull, waits: 3 * time.Second,
			Doc: "While the dead letters are full nothing is acked, State says Blocked within 5 s, and it resumes by itself.",
		},
		{
			Name: "DeadLetters/TargetTooSmall", Promises: []int{19}, Gate: redelivers(), run: targetTooSmall, waits: 4 * time.Second,
			Doc: "While the dead letters take no message of that size nothing is acked, State says Blocked within 5 s, and it resumes by itself.",
		},
		{
			Name: "DeadLetters/PointsAtSource", Promises: []int{19}, Gate: redelivers(), run: pointsAtSource, waits: 2 * time.Second,
			Doc: "Of a message that fits nowhere one dead letter without payload tells where it is, and the whole one is stored when there is room.",
		},
		{
			Name: "DeadLetters/TargetMissing", Promises: []int{16, 19}, Gate: redelivers(), run: targetMissing,
			Doc: "A topic that is named for dead letters is there when Subscribe returns: made, or, with Manage Verify and where it is missing, refused.",
		},
		{
			Name: "DeadLetters/Undecodable", Promises: []int{12}, Gate: redelivers(), run: undecodable,
			Doc: "A message that the adapter cannot decode goes to the dead letters as it came, and no handler sees it.",
		},
		{
			Name: "DeadLetters/OtherTopic", Promises: []int{19}, Gate: redelivers(), run: otherTopic,
			Doc: "Dead letters go to the topic that is named, or to the one that Route chooses, and can be consumed there.",
		},
		{
			Name: "DeadLetters/ToldWhenStored", Promises: []int{19}, Gate: redelivers(), run: toldWhenStored,
			Doc: "OnDeadLetter is told once of each message, after its dead letter is stored.",
		},
		{
			Name: "DeadLetters/Expected", Promises: []int{19}, Gate: redelivers(), run: expected,
			Doc: "An expected failure is dead-lettered like any other, and OnDeadLetter can tell.",
		},
		{
			Name: "DeadLetters/Largest", Promises: []int{12, 19}, Gate: redelivers().and(limited()), run: largestDead,
			Doc: "A message of the largest size that is given up is in the dead letters once, and what follows goes on.",
		},
		{
			Name: "DeadLetters/UndecodableLargest", Promises: []int{12, 19}, Gate: redelivers().and(limited()), run: undecodableLargest,
			Doc: "An undecodable message of the largest size, full of headers, is in the dead letters once, and what follows goes on.",
		},
		{
			Name: "DeadLetters/Headroom", Promises: []int{19}, Gate: redelivers().and(limited()), run: headroom,
			Doc: "The dead letter of a message of exactly MaxMessage bytes tells as much as that of a small one, though nothing larger can be published.",
		},
		{
			Name: "DeadLetters/BrowsingTakesNothing", Promises: []int{19}, Gate: redelivers(), run: browsingTakesNothing,
			Doc: "After 100 browses, a restart and a trim of its topic every dead letter is still there, in the same order.",
		},
		{
			Name: "DeadLetters/KilledBeforeAck", Promises: []int{5, 19}, Gate: redelivers(), run: killedBeforeAck, waits: 7 * time.Second,
			Doc: "A process that is killed between a dead letter and the ack of its original leaves a duplicate of it at most, none where Dedup is declared.",
		},
		{
			Name: "DeadLetters/ReplayRestores", Promises: []int{19, 20}, Gate: redelivers(), run: replayRestores,
			Doc: "A replay gives the group, and no other, the message byte for byte as it was before it was given up, in the order of its key.",
		},
		{
			Name: "DeadLetters/ReplayResumes", Promises: []int{19}, Gate: redelivers(), run: replayResumes, waits: 9 * time.Second,
			Doc: "A replay whose process is killed again and again, and that goes on from its journal, brings every dead letter to the group.",
		},
		{
			Name: "DeadLetters/ReplayTakesTurns", Promises: []int{19}, Gate: redelivers().and(exclusive()), run: replayTakesTurns, waits: 8 * time.Second,
			Doc: "While one process replays the dead letters of a group, another that takes turns with it is refused, and goes on when the first is gone.",
		},
	}
}

func deadIntact(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Retry = pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{10 * time.Millisecond}}
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.Headers.Get("fails") != "" {
			return errFails
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	texts := awkward()
	want := map[string]pubsub.Message{}
	for i, s := range texts {
		m := l.message([]string{"", "key-" + s}[i%2])
		m.Payload = [][]byte{nil, {}, []byte(s)}[i%3]
		m.Type, m.ContentType = s, s
		m.Time = time.Unix(1_000_000_000, 0).UTC()
		m.Headers = pubsub.Headers{{Name: "a", Value: s}, {Name: "fails", Value: "yes"}, {Name: "n", Value: "7", Kind: pubsub.HeaderInt}, {Name: "a", Value: ""},
			{Name: "traceparent", Value: "00-" + trace + "-00f067aa0ba902b7-01"}}
		want[m.ID] = m
		l.mustPublish(p, topic, m)
		l.excuse(m.ID)
	}
	for _, r := range e.wantDead(p, topic, "g", "max-attempts", len(texts)) {
		got := *r.Msg
		h := got.Headers
		got.Headers = slices.DeleteFunc(slices.Clone(h), func(h pubsub.Header) bool { return strings.HasPrefix(h.Name, "omnibus-dlq-") })
		e.wantSame(got, want[got.ID])
		for name, value := range map[string]string{
			"source-topic": topic, "source-group": "g", "source-broker": e.adapter, "attempts": "2",
			"fingerprint": pubsub.Fingerprint(errFails), "trace": trace,
		} {
			if v := h.Get("omnibus-dlq-" + name); v != value {
				e.Errorf("the dead letter of %s says %s %q, want %q", got.ID, name, v, value)
			}
		}
		for _, name := range []string{"id", "error", "error-type", "first-failed", "last-failed", "service", "host", "history"} {
			if h.Get("omnibus-dlq-"+name) == "" {
				e.Errorf("the dead letter of %s does not say %s", got.ID, name)
			}
		}
		if v := h.Get("omnibus-dlq-error"); !strings.Contains(v, errFails.Error()) {
			e.Errorf("the dead letter of %s has the error %q, want %q in it", got.ID, v, errFails)
		}
	}
	for r, err := range dlq.Open(p.Broker, topic, "g").List(e.Context(), dlq.Filter{}) {
		e.must(err, "list")
		h := r.History
		last := len(h) - 1 // an adapter whose retries have positions of their own leaves the engine no way to know what came before
		if r.Bad != nil || last < 0 || last > 1 || h[last].Number != 2 || !h[0].At.Equal(r.FirstFailed) || last == 1 && (h[0].Number != 1 || h[1].At.Before(h[0].At)) {
			e.Errorf("the dead letter of %s has the history %+v (%v), want its attempts", r.Message.ID, h, r.Bad)
		}
	}
	l.await("g")
	l.verify()
}

func undecodable(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	errBad := errors.New("conformance: this record cannot be decoded")
	p.link.spoil(func(r *pubsub.Record) {
		if r.Msg.Type == "bad" {
			r.Bad = errBad
		}
	})
	s := e.sub(topic, "g")
	s.Concurrency = 2
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.Type == "bad" {
			e.Errorf("a handler got message %s, which cannot be decoded", d.ID)
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	want := map[string]string{}
	for _, m := range l.messages(12, 5) {
		m.Type = "bad"
		want[m.ID] = string(m.Payload)
		l.mustPublish(p, topic, m)
		l.excuse(m.ID)
		l.mustPublish(p, topic, l.messages(2, 2)...)
	}
	for _, r := range e.wantDead(p, topic, "g", "undecodable", len(want)) {
		if string(r.Msg.Payload) != want[r.Msg.ID] {
			e.Errorf("the dead letter of %s has the payload %q, want %q", r.Msg.ID, r.Msg.Payload, want[r.Msg.ID])
		}
	}
	l.await("g")
	l.verify()
}

func otherTopic(e *env) {
	errRouted := errors.New("to be routed")
	p, topic, target, routed := e.open(), e.topic("a"), e.topic("dead"), e.topic("routed")
	l, dead := e.ledger(), e.ledger()
	note := func(want string) pubsub.Handler {
		return dead.handler(p, "dead", func(_ context.Context, d *pubsub.Delivery) error {
			if d.Topic != e.topic(want) || d.Headers.Get("omnibus-dlq-source-topic") != topic || d.Headers.Get("omnibus-dlq-reason") != "permanent" {
				e.Errorf("message %s came to %s with headers %v", d.ID, d.Topic, d.Headers)
			}
			return nil
		})
	}
	e.subscribe(p, e.sub(target, "readers"), note("dead"))
	e.subscribe(p, e.sub(routed, "readers"), note("routed"))
	s := e.sub(topic, "g")
	s.DeadLetter.Topic = target
	s.DeadLetter.Route = func(_ *pubsub.Delivery, err error) string {
		if errors.Is(err, errRouted) {
			return routed
		}
		return ""
	}
	e.subscribe(p, s, l.handler(p, "g", onFails(func(_ context.Context, d *pubsub.Delivery) error {
		if d.ContentType == "routed" {
			return pubsub.Permanent(errRouted)
		}
		return pubsub.Permanent(errFails)
	})))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	for i, m := range l.messages(30, 5) {
		m.Type = "fails"
		if i%3 == 0 {
			m.ContentType = "routed"
		}
		dead.tell(dead.note(m), nil) // it is to come there
		l.mustPublish(p, topic, m)
		l.excuse(m.ID)
	}
	dead.await("dead")
	if n := len(e.dead(p, topic, "g")); n > 0 {
		e.Errorf("%d messages are in the group's own dead letters, another topic was named", n)
	}
	l.await("g")
	l.verify()
	dead.verify()
}

func toldWhenStored(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	var mu sync.Mutex
	told := map[string]int{}
	s := e.sub(topic, "g")
	s.DeadLetter.OnDeadLetter = func(d *pubsub.Delivery, err error) {
		mu.Lock()
		defer mu.Unlock()
		told[d.ID]++
		if !errors.Is(err, errFails) {
			e.Errorf("OnDeadLetter was told of %v, want %v", err, errFails)
		}
		dead, err := e.browse(p, topic, "g")
		if !slices.ContainsFunc(dead, func(r pubsub.Record) bool { return r.Msg.ID == d.ID }) {
			e.Errorf("OnDeadLetter was told of %s, which is not in the dead letters (%v)", d.ID, err)
		}
	}
	e.subscribe(p, s, l.handler(p, "g", onFails(func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errFails) })))
	msgs := e.failing(p, l, topic, 20, 5)
	e.until(patience, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == len(msgs)
	})
	e.wantDead(p, topic, "g", "permanent", len(msgs))
	mu.Lock()
	defer mu.Unlock()
	for _, m := range msgs {
		if told[m.ID] != 1 {
			e.Errorf("OnDeadLetter was told %d times of %s", told[m.ID], m.ID)
		}
	}
	l.await("g")
	l.verify()
}

func expected(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	var mu sync.Mutex
	told := map[string]bool{}
	s := e.sub(topic, "g")
	s.DeadLetter.OnDeadLetter = func(d *pubsub.Delivery, err error) {
		mu.Lock()
		defer mu.Unlock()
		told[d.ID] = pubsub.IsExpected(err)
	}
	e.subscribe(p, s, l.handler(p, "g", onFails(func(_ context.Context, d *pubsub.Delivery) error {
		if d.Key == "key-0" {
			return pubsub.Permanent(errFails)
		}
		return pubsub.Permanent(pubsub.Expected(errFails))
	})))
	msgs := e.failing(p, l, topic, 20, 4)
	e.wantDead(p, topic, "g", "permanent", len(msgs))
	e.until(patience, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == len(msgs)
	})
	mu.Lock()
	defer mu.Unlock()
	for _, m := range msgs {
		if want := m.Key != "key-0"; told[m.ID] != want {
			e.Errorf("OnDeadLetter was told that the failure of %s was expected: %v, want %v", m.ID, told[m.ID], want)
		}
	}
	l.await("g")
	l.verify()
}

func largestDead(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", onFails(func(context.Context, *pubsub.Delivery) error {
		return pubsub.Permanent(errors.New(strings.Repeat("a long reason ", 1000)))
	})))
	msgs := e.failing(p, l, topic, 3, 0)
	e.wantDead(p, topic, "g", "permanent", len(msgs))
	big := e.largest(l, "fails")
	l.mustPublish(p, topic, big)
	l.excuse(big.ID)
	l.mustPublish(p, topic, l.messages(30, 5)...)
	dead := e.wantDead(p, topic, "g", "permanent", len(msgs)+1)
	if n := len(l.calls("g", big.ID)); n != 1 {
		e.Errorf("the handler was called %d times with the largest message, want once", n)
	}
	if !slices.ContainsFunc(dead, func(r pubsub.Record) bool { return r.Msg.ID == big.ID }) {
		e.Errorf("a message of %d bytes, the largest, is not in the dead letters", e.caps.MaxMessage)
	}
	l.await("g")
	l.verify()
}

// largest makes a message of MaxMessage bytes, with many headers.
func (e *env) largest(l *ledger, kind string) pubsub.Message {
	m := l.message("")
	m.Type, m.Payload = kind, nil
	for i := range 100 {
		m.Headers.Add(fmt.Sprintf("header-%d", i), strings.Repeat("x", 100))
	}
	m.Payload = bytes.Repeat([]byte{'x'}, int(e.caps.MaxMessage-m.Size()))
	return m
}

func headroom(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Retry = pubsub.Policy{MaxAttempts: 1}
	e.subscribe(p, s, l.handler(p, "g", onFails(func(context.Context, *pubsub.Delivery) error { return panicsBelow(100) })))
	const told = "omnibus-dlq-"
	small := e.failing(p, l, topic, 1, 0)[0]
	big := e.largest(l, "fails")
	over := l.note(e.sized(e.caps.MaxMessage + 1))
	err := p.Publish(e.Context(), topic, over.msg)
	l.tell(over, err)
	e.wantCode(err, pubsub.ErrTooLarge, "publishing %d bytes, one more than MaxMessage", over.msg.Size())
	l.mustPublish(p, topic, big)
	l.excuse(big.ID)
	l.mustPublish(p, topic, l.messages(30, 5)...)
	letters := map[string]pubsub.Headers{}
	for _, r := range e.wantDead(p, topic, "g", "max-attempts", 2) {
		letters[r.Msg.ID] = r.Msg.Headers
		want := map[bool]pubsub.Message{true: big, false: small}[r.Msg.ID == big.ID]
		came := slices.DeleteFunc(slices.Clone(r.Msg.Headers), func(h pubsub.Header) bool { return strings.HasPrefix(h.Name, told) })
		if !bytes.Equal(r.Msg.Payload, want.Payload) || !slices.Equal(came, want.Headers) {
			e.Errorf("the dead letter of %s has %d bytes and %d headers of it, not the %d and %d as they came",
				want.ID, len(r.Msg.Payload), len(came), len(want.Payload), len(want.Headers))
		}
	}
	for _, name := range []string{"error", "stack"} {
		all, some := letters[small.ID].Get(told+name), letters[big.ID].Get(told+name)
		if len(all) < 1000 || len(some) != len(all) {
			e.Errorf("the dead letter of a message of %d bytes has %d bytes of its %s, that of a small one has %d", e.caps.MaxMessage, len(some), name, len(all))
		}
	}
	l.await("g")
	l.verify()
}

// panicsBelow panics so many calls deeper, with a long text.
func panicsBelow(calls int) error {
	if calls == 0 {
		panic(strings.Repeat("a long reason ", 1000))
	}
	return panicsBelow(calls - 1)
}

func undecodableLargest(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	p.link.spoil(func(r *pubsub.Record) {
		if r.Msg.Type == "bad" {
			r.Bad = errFails
		}
	})
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	big, small := e.largest(l, "bad"), l.message("")
	small.Type = "bad"
	for i, m := range []pubsub.Message{small, big} {
		l.mustPublish(p, topic, m)
		l.excuse(m.ID)
		if i == 0 {
			e.wantDead(p, topic, "g", "undecodable", 1)
		}
	}
	l.mustPublish(p, topic, l.messages(30, 5)...)
	if !l.await("g") {
		e.Errorf("behind a message of the largest size that cannot be decoded nothing goes on: %s", l.progress("g"))
	}
	for _, r := range e.wantDead(p, topic, "g", "undecodable", 2) {
		want := small
		if r.Msg.ID == big.ID {
			want = big
		}
		if !bytes.Equal(r.Msg.Payload, want.Payload) {
			e.Errorf("the dead letter of %s has a payload of %d bytes, want the %d as they came", want.ID, len(r.Msg.Payload), len(want.Payload))
		}
	}
	l.verify()
}

func browsingTakesNothing(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	bounded := pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic, MaxBytes: 50_000}}}
	if err := p.Ensure(e.Context(), bounded); !errors.Is(err, pubsub.ErrUnsupported) { // what has no bound trims nothing
		e.must(err, "make a topic of 50 kB")
	}
	e.must(p.Ensure(e.Context(), pubsub.Topology{Groups: []pubsub.Subscription{s}}), "make a group")
	c := e.subscribe(p, s, l.handler(p, "g", onFails(func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errFails) })))
	msgs := e.failing(p, l, topic, 20, 1)
	ids := func(rs []pubsub.Record) (all []string) {
		for _, r := range rs {
			all = append(all, fmt.Sprintf("%s at %v", r.Msg.ID, r.Pos))
		}
		return all
	}
	want := ids(e.wantDead(p, topic, "g", "permanent", len(msgs)))
	l.await("g")
	for n := range 100 {
		if got := ids(e.dead(p, topic, "g")); !slices.Equal(got, want) {
			e.Fatalf("browse %d found %d dead letters, %v; the first one found %d, %v", n+1, len(got), history.Some(got), len(want), history.Some(want))
		}
	}
	e.must(c.Drain(e.Context()), "drain")
	e.must(p.Close(), "close")
	q := e.open()
	e.subscribe(q, s, l.handler(q, "g", nil))
	for batch := range slices.Chunk(l.messages(2*enough, 5), 50) { // more than the topic keeps, but not all at once: what is needed may be refused
		l.mustPublish(q, topic, batch...)
		l.await("g")
		e.until(patience, func() bool { _, held, _, _ := q.link.load(); return held == 0 }) // what is handled is needed until it is settled
	}
	if got := ids(e.dead(q, topic, "g")); !slices.Equal(got, want) {
		e.Errorf("after a restart and a trim there are %d dead letters, %v, before there were %d, %v", len(got), history.Some(got), len(want), history.Some(want))
	}
	l.verify()
}
