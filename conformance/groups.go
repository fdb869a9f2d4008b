package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func groups() []Property {
	return []Property{
		{
			Name: "Groups/MembersShare", Promises: []int{5}, run: membersShare,
			Doc: "Each message goes to one member of a group whose members compete, and every member gets some.",
		},
		{
			Name: "Groups/FanOut", Promises: []int{5}, run: fanOut,
			Doc: "Each of several groups gets everything.",
		},
		{
			Name: "Groups/JoinAndLeave", Promises: []int{5, 13}, Gate: redelivers(), run: joinAndLeave,
			Doc: "Members that join and leave in mid-stream lose nothing.",
		},
		{
			Name: "Groups/StartEarliest", Promises: []int{17}, Gate: keepsHistory(), run: startEarliest, refused: startRefused,
			Doc: "A new group that starts at the earliest message gets what was published before it.",
		},
		{
			Name: "Groups/StartTime", Promises: []int{17}, Gate: keepsHistory(), run: startTime, refused: startRefused,
			Doc: "A new group that starts at a time gets what was published from then on, and nothing before.",
		},
		{
			Name: "Groups/StartPosition", Promises: []int{17}, Gate: keepsHistory(), run: startPosition, refused: startRefused,
			Doc: "A new group that starts at a position gets that message and what follows, and nothing before.",
		},
		{
			Name: "Groups/StartsAtCreation", Promises: []int{17}, run: startsAtCreation,
			Doc: "A new group gets everything that is published after its creation and nothing from before.",
		},
		{
			Name: "Groups/BroadcastIsLive", Promises: []int{5}, run: broadcastIsLive,
			Doc: "Each Broadcast consumer gets everything from its Subscribe on, and nothing from before.",
		},
		{
			Name: "Groups/Patterns", Promises: []int{20}, Gate: patterned(), run: patterns, refused: patternsRefused,
			Doc: "A pattern covers the topics that it matches, also those made later, and no others.",
		},
		{
			Name: "Groups/PatternsSpareOwnPlaces", Promises: []int{20}, Gate: patterned().and(redelivers()), run: patternsSpareOwnPlaces,
			Doc: "No pattern matches the places where retries and dead letters lie.",
		},
		{
			Name: "Groups/ProvisionedKeeps", Promises: []int{17}, Gate: redelivers(), run: provisionedKeeps,
			Doc: "A provisioned group keeps what is published before its first member runs.",
		},
		{
			Name: "Groups/DisagreeingMember", Promises: []int{16}, Gate: redelivers(), run: disagreeingMember,
			Doc: "A member that wants another ack wait than its group has is refused with ErrConflict.",
		},
		{
			Name: "Groups/TopicDisagrees", Promises: []int{16}, run: topicDisagrees,
			Doc: "Asking for a topic with other settings than it has is ErrConflict, whoever manages it.",
		},
		{
			Name: "Groups/VerifyAndOff", Promises: []int{16}, Gate: keepsAnything(), run: verifyAndOff,
			Doc: "With Manage Verify what is missing is ErrNotFound, with Off it is not looked for; neither makes anything.",
		},
	}
}

// competing is a subscription whose members share the messages without an order.
func (e *env) competing(topic, group string) pubsub.Subscription {
	s := e.sub(topic, group)
	s.Order = pubsub.OrderNone
	return s
}

// shared makes a group of a topic whose messages a number of members can share, and says whether a member has whole partitions: then there are four
// for each, so that none is left without messages.
func (e *env) shared(p *process, s pubsub.Subscription, members int) (byPartition bool) {
	e.Helper()
	spec := pubsub.TopicSpec{Name: s.Topic}
	if !e.caps.Redelivery { // there is no group before its first member
		return false
	}
	byPartition = partitionwise().Open(e.caps)
	if byPartition {
		spec.Partitions = 4 * members
	}
	e.must(p.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{s}}), "ensure")
	return byPartition
}

func membersShare(e *env) {
	const members, keys = 3, 60
	pub, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.MaxInFlight = 8 // so that one member cannot take everything
	e.shared(pub, s, members)
	for range members {
		p := e.open()
		e.subscribe(p, s, l.handler(p, "g", e.busy(4*time.Millisecond)))
	}
	l.mustPublish(pub, topic, l.messages(enough, keys)...)
	l.await("g")
	got := map[*process]int{}
	for _, r := range l.calls("g") {
		got[r.who]++
	}
	if len(got) != members {
		e.Errorf("%d of %d members got messages", len(got), members)
	}
	l.verify()
}

func fanOut(e *env) {
	topic, l := e.topic("a"), e.ledger()
	p := e.open()
	for _, g := range []string{"g1", "g2", "g3"} {
		q := e.open()
		e.subscribe(q, e.sub(topic, g), l.handler(q, g, nil))
	}
	l.mustPublish(p, topic, l.messages(enough, 10)...)
	l.await("g1", "g2", "g3")
	l.verify()
}

func joinAndLeave(e *env) {
	topic, l := e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.Concurrency, s.MaxInFlight = 2, 16
	pub := e.open()
	e.ensure(pub, s)
	var members []*process
	join := func() {
		p := e.open()
		members = append(members, p)
		e.subscribe(p, s, l.handler(p, "g", e.busy(3*time.Millisecond)))
	}
	join()
	for round := range 6 {
		join()
		l.mustPublish(pub, topic, l.messages(50, 0)...)
		e.until(patience, func() bool { return l.handled("g") >= 50*round+20 })
		e.must(members[0].Close(), "close a member")
		members = members[1:]
	}
	l.await("g")
	l.verify()
}

func startRefused(e *env) {
	p := e.open()
	for _, start := range []pubsub.Start{pubsub.FromEarliest(), pubsub.FromTime(time.Now())} {
		s := e.sub(e.topic("a"), "g")
		s.Start = start
		_, err := p.Subscribe(e.Context(), s, func(context.Context, *pubsub.Delivery) error { return nil })
		e.wantUnsupported(err, "another start than now")
	}
}

// history publishes n messages that are kept although no group of the property reads them, and returns their positions.
func (e *env) history(p *process, topic string, l *ledger, n int) []pubsub.Position {
	e.Helper()
	e.ensure(p, e.sub(topic, "before"))
	var mu sync.Mutex
	at := make([]pubsub.Position, n)
	var wg sync.WaitGroup
	for i, m := range l.messages(n, 3) {
		s := l.note(m)
		wg.Add(1)
		p.PublishAsync(e.Context(), topic, m, func(r pubsub.Receipt, err error) {
			l.tell(s, err)
			mu.Lock()
			at[i] = r.Position
			mu.Unlock()
			wg.Done()
		})
	}
	wg.Wait()
	return at
}

func startEarliest(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	e.history(p, topic, l, 60)
	s := e.sub(topic, "g")
	s.Start = pubsub.FromEarliest()
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await("g")
	l.verify()
}

// clockStep is how far apart two messages must be for a broker's timestamps to tell them apart.
const clockStep = 20 * time.Millisecond

func startTime(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.history(p, topic, l, 40)
	time.Sleep(clockStep)
	s := e.sub(topic, "g")
	s.Start = pubsub.FromTime(time.Now())
	l.startsNow("g")
	time.Sleep(clockStep)
	l.mustPublish(p, topic, l.messages(40, 3)...)
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(10, 3)...)
	l.await("g")
	l.verify()
}

func startPosition(e *env) {
	const skip = 25
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	at := e.history(p, topic, l, 60)
	if at[skip] == (pubsub.Position{}) {
		e.skip("the broker does not say where it puts messages")
	}
	s := e.sub(topic, "g")
	s.Start = pubsub.FromPosition(at[skip])
	l.starts("g", skip)
	e.subscribe(p, s, l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(10, 3)...)
	l.await("g")
	l.verify()
}

func startsAtCreation(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.audience(p, topic)
	for i := range 5 { // each group is created between two messages, by Ensure or by its first member
		l.mustPublish(p, topic, l.messages(30, 3)...)
		g := fmt.Sprintf("g%d", i)
		l.startsNow(g)
		if i%2 == 0 && e.caps.Redelivery {
			e.ensure(p, e.sub(topic, g))
			l.mustPublish(p, topic, l.messages(10, 3)...)
		}
		e.subscribe(p, e.sub(topic, g), l.handler(p, g, nil))
	}
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await()
	l.verify()
}

func broadcastIsLive(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.audience(p, topic)
	for i := range 3 {
		l.mustPublish(p, topic, l.messages(30, 3)...)
		q, g := e.open(), fmt.Sprintf("broadcast %d", i)
		l.startsNow(g)
		e.subscribe(q, e.sub(topic, pubsub.Broadcast), l.handler(q, g, nil))
	}
	l.mustPublish(p, topic, l.messages(enough, 5)...)
	l.await()
	l.verify()
}

func patternsRefused(e *env) {
	_, err := e.open().Subscribe(e.Context(), e.sub(e.run+".*", "g"), func(context.Context, *pubsub.Delivery) error { return nil })
	e.wantUnsupported(err, "a pattern")
}

func patterns(e *env) {
	p, l, rest := e.open(), e.ledger(), e.ledger()
	one, many := e.run+".*.eu", e.run+".>"
	e.audience(p, e.topic("orders.eu"), e.topic("orders.us"), e.topic("orders.eu.new"))
	covers := func(g, pattern string) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			if !pubsub.MatchPattern(pattern, d.Topic) {
				e.Errorf("the pattern %s got a message of %s", pattern, d.Topic)
			}
			if rest.knows(d.ID) && g == "one" {
				return rest.handler(p, g, nil)(ctx, d)
			}
			if rest.knows(d.ID) {
				return nil
			}
			return l.handler(p, g, nil)(ctx, d)
		}
	}
	e.subscribe(p, e.sub(one, "one"), covers("one", one))
	e.subscribe(p, e.sub(many, "many"), covers("many", many))
	e.audience(p, e.topic("refunds.eu")) // made after the groups
	for range 5 {
		for _, name := range []string{"orders.eu", "refunds.eu"} {
			l.mustPublish(p, e.topic(name), l.messages(20, 3)...)
		}
		for _, name := range []string{"orders.us", "orders.eu.new"} {
			rest.mustPublish(p, e.topic(name), rest.messages(20, 3)...)
		}
	}
	l.await("one", "many")
	l.verify()
	if n := rest.handled("one"); n > 0 {
		e.Errorf("the pattern %s got %d messages of topics that it does not cover", one, n)
	}
}

func patternsSpareOwnPlaces(e *env) {
	p, l := e.open(), e.ledger()
	topic := e.topic("orders")
	seen := e.subscribeAll(p, l)
	s := e.sub(topic, "g")
	s.Retry = pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{100 * time.Millisecond}}
	e.subscribe(p, s, func(_ context.Context, d *pubsub.Delivery) error {
		if d.Type == "fails" {
			return errors.New("fails")
		}
		return nil
	})
	msgs := l.messages(60, 0)
	for i := range msgs {
		if i >= 30 && i%3 == 0 {
			msgs[i].Type = "fails"
		}
	}
	l.mustPublish(p, topic, msgs...)
	if !e.until(patience, func() bool { return len(e.dead(p, topic, "g")) == 10 }) {
		e.Errorf("%d of 10 dead letters after %v", len(e.dead(p, topic, "g")), patience)
	}
	l.mustPublish(p, topic, l.messages(1, 0)...)
	l.await("all")
	for name, n := range seen() {
		if name != topic {
			e.Errorf("patterns got %d messages from %s", n, name)
		}
	}
	l.verify()
}

// subscribeAll lets a group named "all" have everything of this run, and another one everything there is; seen counts by topic.
func (e *env) subscribeAll(p *process, l *ledger) (seen func() map[string]int) {
	e.Helper()
	var mu sync.Mutex
	counts := map[string]int{}
	count := func(_ context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if l.knows(d.ID) {
			counts[d.Topic]++
		}
		return nil
	}
	e.ensure(p, e.sub(e.topic("orders"), "other"))
	e.subscribe(p, e.sub(e.run+".>", "all"), l.handler(p, "all", count))
	e.subscribe(p, e.sub(">", e.run), count)
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(counts)
	}
}

func provisionedKeeps(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.ensure(p, e.sub(topic, "g1"), e.sub(topic, "g2"))
	l.mustPublish(p, topic, l.messages(enough/2, 5)...)
	e.must(p.Close(), "close the publisher")
	for _, g := range []string{"g1", "g2"} {
		q := e.open()
		e.subscribe(q, e.sub(topic, g), l.handler(q, g, nil))
	}
	q := e.open()
	l.mustPublish(q, topic, l.messages(20, 5)...)
	l.await("g1", "g2")
	l.verify()
}

func disagreeingMember(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.AckWait = 10 * time.Second
	e.subscribe(p, s, l.handler(p, "g", nil))
	other := s
	other.AckWait = 20 * time.Second
	q := e.open()
	_, err := q.Subscribe(e.Context(), other, l.handler(q, "g", nil))
	e.wantCode(err, pubsub.ErrConflict, "joining a group with an ack wait of %v with one of %v", s.AckWait, other.AckWait)
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await("g")
	l.verify()
}

func verifyAndOff(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	verify, off := e.openWith(&pubsub.Options{Manage: pubsub.Verify}), e.openWith(&pubsub.Options{Manage: pubsub.Off})
	missing := e.topic("missing")
	nothing := func(context.Context, *pubsub.Delivery) error { return nil }

	e.must(verify.Ensure(e.Context(), pubsub.Topology{Groups: []pubsub.Subscription{e.sub(topic, "g")}}), "verify what is there")
	err := verify.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: missing}}})
	e.wantCode(err, pubsub.ErrNotFound, "verifying a topic that is missing")
	err = verify.Ensure(e.Context(), pubsub.Topology{Groups: []pubsub.Subscription{e.sub(topic, "missing")}})
	e.wantCode(err, pubsub.ErrNotFound, "verifying a group that is missing")
	_, err = verify.Subscribe(e.Context(), e.sub(missing, "g"), nothing)
	e.wantCode(err, pubsub.ErrNotFound, "subscribing with Verify to a topic that is missing")
	if err = off.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: missing}}}); err != nil {
		e.Errorf("Ensure with Manage Off returned %v; it is to look at nothing", err)
	}
	for range 2 {
		err = p.Publish(e.Context(), missing, l.message(""))
		if !errors.Is(err, pubsub.ErrUnroutable) && !errors.Is(err, pubsub.ErrNotFound) {
			e.Errorf("publishing to a topic that Verify and Off were asked for returned %v: one of them has made it", err)
		}
	}
	l.await("g")
	l.verify()
}
