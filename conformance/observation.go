package conformance

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/omnibus-go/omnibus/pubsub"
)

func observation() []Property {
	return []Property{
		{
			Name: "Observation/SeenOnce", Promises: []int{}, run: seenOnce,
			Doc: "Observers see each confirmation, each delivery and each settlement once.",
		},
		{
			Name: "Observation/Lag", Promises: []int{21}, Gate: lagged().and(redelivers()), run: lagCounts,
			Doc: "At rest the lag is the number of messages that the group has not settled.",
			refused: func(e *env) {
				if lagged().Open(e.caps) {
					return
				}
				_, err := e.open().Lag(e.Context(), e.topic("a"), "g")
				e.wantUnsupported(err, "Lag")
			},
		},
		{
			Name: "Observation/Topics", Promises: []int{16}, Gate: redelivers(), run: listsTopics,
			Doc: "The topics that there are, and only these, are listed, without what groups have for themselves; or that is refused by name.",
		},
	}
}

func listsTopics(e *env) {
	p, l := e.open(), e.ledger()
	var want []string
	for _, name := range []string{"a", "b", "b.c", "B-d_e"} {
		want = append(want, e.topic(name))
	}
	slices.Sort(want)
	spec := pubsub.TopicSpec{Name: want[1]}
	if partitioned().Open(e.caps) {
		spec.Partitions = 3
	}
	e.must(p.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}}), "ensure")
	for _, topic := range want {
		s := e.competing(topic, "g")
		e.subscribe(p, s, l.handler(p, "g", onFails(func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errFails) })))
		e.failing(p, l, topic, 2, 5) // so that there are dead letters
		e.wantDead(p, topic, "g", "permanent", 2)
	}
	l.await("g")
	other := e.open()
	if _, err := other.Topics(e.Context()); errors.Is(err, pubsub.ErrUnsupported) {
		e.wantUnsupported(err, "Topics")
		l.verify()
		return
	}
	var got []string
	if !e.until(patience/3, func() bool { // a cluster may take a moment to know it everywhere
		all, err := other.Topics(e.Context())
		e.must(err, "list topics")
		got = slices.DeleteFunc(all, func(name string) bool { return !strings.Contains(name, e.run) }) // others use this broker, too
		return slices.Equal(got, want)
	}) {
		e.Errorf("the topics are %q, and listed are %q", want, got)
	}
	l.verify()
}

func seenOnce(e *env) {
	var mu sync.Mutex
	seen := map[pubsub.EventKind]int{}
	bytes := map[pubsub.EventKind]int64{}
	p := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{{Name: "observer", Observe: func(ev pubsub.Event) {
		mu.Lock()
		defer mu.Unlock()
		seen[ev.Kind] += ev.Count
		bytes[ev.Kind] += ev.Bytes
	}}}})
	topic, l := e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency = 4
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(enough, 5)...)
	l.await("g")
	e.must(p.Close(), "close")
	var size int64
	for _, s := range l.all() {
		size += int64(len(s.msg.Payload))
	}
	mu.Lock()
	defer mu.Unlock()
	for _, kind := range []pubsub.EventKind{pubsub.EventPublished, pubsub.EventDelivered, pubsub.EventSettled} {
		if seen[kind] != enough || bytes[kind] != size {
			e.Errorf("observers saw %d messages of %d bytes %v, there were %d of %d", seen[kind], bytes[kind], kind, enough, size)
		}
	}
	for _, kind := range []pubsub.EventKind{pubsub.EventRetried, pubsub.EventDeadLettered, pubsub.EventExpired} {
		if seen[kind] != 0 {
			e.Errorf("observers saw %d messages %v, there were none", seen[kind], kind)
		}
	}
	l.verify()
}

func lagCounts(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	e.ensure(p, s)
	total, done := 0, 0
	want := func(when string) {
		e.Helper()
		var lag pubsub.Lag
		if !e.until(patience, func() bool {
			var err error
			lag, err = p.Lag(e.Context(), topic, "g")
			e.must(err, "lag")
			return lag.Messages == int64(total-done)
		}) {
			e.Errorf("%s the lag is %d, want %d", when, lag.Messages, total-done)
		}
		if lag.Kind == pubsub.LagUnknown {
			e.Errorf("%s the lag is unknown, the broker claims that it is %v", when, e.caps.Lag)
		}
	}
	want("with nothing published")
	for range 3 {
		n := 10 + e.rng.below(50)
		l.mustPublish(p, topic, l.messages(n, 3)...)
		total += n
		want("before they are handled")
		c := e.subscribe(p, s, l.handler(p, "g", nil))
		l.await("g")
		e.must(c.Drain(e.Context()), "drain")
		done = total
		want("when all are handled")
	}
	if _, err := p.Lag(e.Context(), topic, "nobody"); !errors.Is(err, pubsub.ErrNotFound) {
		e.Errorf("the lag of a group that does not exist is error %v, want %q", err, pubsub.ErrNotFound.Error())
	}
	l.verify()
}
