package conformance

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
	"github.com/omnibus-go/omnibus/pubsub"
)

func order() []Property {
	return []Property{
		{
			Name: "Order/PerKey", Promises: []int{6}, run: perKey,
			Doc: "With as many workers as keys no handler starts before the previous message of its key is settled.",
		},
		{
			Name: "Order/KeyWhileRetried", Promises: []int{6}, Gate: redelivers(), run: keyWhileRetried,
			Doc: "While a message waits for its retry the others of its key wait behind it, and other keys go on.",
		},
		{
			Name: "Order/Strict", Promises: []int{6}, Gate: redelivers().and(exclusive()), run: strict, refused: strictRefused,
			Doc: "In a strict order one message is handled at a time, in the order in which they were published, also while one is retried.",
		},
		{
			Name: "Order/LooseLetsPass", Promises: []int{6, 10}, Gate: redelivers().and(exclusive()), run: looseLetsPass, waits: 2 * time.Second,
			Doc: "In a loose order the later messages of a key pass the one that waits for its retry.",
		},
		{
			Name: "Order/AcrossReconnects", Promises: []int{3, 14}, Gate: keepsAnything(), run: acrossReconnects, waits: 25 * time.Second,
			Doc: "What a publisher publishes to a key stays in order while its sessions break again and again.",
		},
		{
			Name: "Order/StandbyTakesOver", Promises: []int{6}, Gate: redelivers().and(exclusive()), run: standbyTakesOver, refused: exclusiveRefused,
			Doc: "The second member of an exclusive group stands by, says so, and takes over when the first one ends or dies.",
		},
		{
			Name: "Order/AcrossMembers", Promises: []int{6}, Gate: redelivers().and(exclusive()), run: acrossMembers, refused: exclusiveRefused,
			Doc: "Keys stay in order while two processes of a group run side by side.",
		},
		{
			Name: "Order/Handover", Promises: []int{6}, Gate: redelivers().and(exclusive()), run: handover,
			Doc: "Keys stay in order while the members of a group leave, join and die in mid-stream.",
		},
		{
			Name: "Order/StalledPartition", Promises: []int{6}, Gate: redelivers().and(partitioned()), run: stalledPartition, refused: partitionsRefused,
			Doc: "A handler that stalls in one partition leaves the other keys and partitions going.",
		},
		{
			Name: "Order/SentToGroup", Promises: []int{6}, Gate: redelivers().and(exclusive()), run: sentToGroup,
			Doc: "What is sent to one group alone is not handled beside another message of its key, whoever of the group has that.",
		},
		{
			Name: "Order/OutOfOrderAcks", Promises: []int{5}, Gate: redelivers(), run: outOfOrderAcks,
			Doc: "Acking later messages before earlier ones, and then dying, loses none of the earlier ones.",
		},
	}
}

// busy is a handler that takes a random time, so that others run meanwhile.
func (e *env) busy(most time.Duration) pubsub.Handler {
	return func(context.Context, *pubsub.Delivery) error {
		time.Sleep(time.Duration(e.rng.below(int(most))))
		return nil
	}
}

func perKey(e *env) {
	const keys = 10
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency = keys
	e.subscribe(p, s, l.handler(p, "g", e.busy(3*time.Millisecond)))
	l.mustPublish(p, topic, l.messages(enough, keys)...)
	l.await("g")
	l.verify()
}

func keyWhileRetried(e *env) {
	const keys = 8
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency, s.Retry.Delays = 4, []time.Duration{time.Second}
	first := l.message("key-0")
	others := l.messages(80, keys)
	free := 0 // messages of the other keys
	for _, m := range others {
		if m.Key != first.Key {
			free++
		}
	}
	var passed atomic.Int64
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		switch {
		case d.ID == first.ID && d.Attempt == 1:
			return errors.New("the first attempt fails")
		case d.ID == first.ID:
			passed.Store(int64(l.handled("g")))
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 0)...)
	l.await("g")
	l.mustPublish(p, topic, append([]pubsub.Message{first}, others...)...)
	l.await("g")
	if n := int(passed.Load()) - 30; n != free {
		e.Errorf("while %s waited %d messages of other keys were handled, want all %d", first.ID, n, free)
	}
	l.verify()
}

func strict(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Order, s.Concurrency, s.Retry.Delays = pubsub.OrderStrict, 4, []time.Duration{100 * time.Millisecond}
	var running atomic.Int64
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if n := running.Add(1); n > 1 {
			e.Errorf("%d handlers run at once in a strict order", n)
		}
		defer running.Add(-1)
		time.Sleep(time.Millisecond)
		if d.Type == "fails" && d.Attempt < 3 {
			return errors.New("fails twice")
		}
		return nil
	}))
	msgs := append(l.messages(enough/2, 0), l.messages(enough/2, 5)...)
	for i := range msgs {
		if i%60 == 7 {
			msgs[i].Type = "fails"
		}
	}
	l.mustPublish(p, topic, msgs...)
	l.await("g")
	calls := l.calls("g")
	for i, at := 0, 0; i < len(msgs) && at < len(calls); i++ {
		n := 0
		for at < len(calls) && calls[at].msg.ID == msgs[i].ID {
			at, n = at+1, n+1
		}
		if n == 0 {
			e.Errorf("message %d, %s, was to be handled next, but %s was", i, msgs[i].ID, calls[at].msg.ID)
			break
		}
	}
	l.verify()
}

func strictRefused(e *env) {
	p := e.open()
	s := e.sub(e.topic("a"), "g")
	s.Order = pubsub.OrderStrict
	_, err := p.Subscribe(e.Context(), s, fails)
	e.wantUnsupported(err, "a strict order")
}

func looseLetsPass(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Order, s.Concurrency = pubsub.OrderByKeyLoose, 2
	first := l.message("key-0")
	failed := make(chan struct{})
	var passed atomic.Int64
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		switch {
		case d.ID == first.ID && d.Attempt == 1:
			close(failed)
			return pubsub.RetryAfter(2*time.Second, errors.New("later"))
		case d.ID == first.ID:
			passed.Store(int64(l.handled("g")))
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await("g")
	l.mustPublish(p, topic, first)
	if !e.closed(patience, failed) {
		e.Fatalf("the first message of the key did not come")
	}
	time.Sleep(10 * time.Millisecond) // its outcome reaches the broker within a millisecond
	l.mustPublish(p, topic, l.messages(20, 1)...)
	l.await("g")
	if n := passed.Load(); n != 50 {
		e.Errorf("%d of 20 later messages passed the one that waited", n-30)
	}
	l.verify()
}

func acrossReconnects(e *env) {
	const pending = 64
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency = 5
	e.subscribe(p, s, l.handler(p, "g", nil))
	pub, err := p.Publisher(pubsub.PublisherOptions{MaxPending: pending})
	e.must(err, "make a publisher")
	l.mustPublish(pub, topic, l.messages(30, 5)...)
	cuts := 0
	p.link.faults(func(pubsub.Out) action {
		switch e.rng.below(30) {
		case 0:
			cuts++
			return action{kind: cutBefore}
		case 1:
			cuts++
			return action{kind: cutAfter}
		}
		return action{}
	})
	l.publish(pub, topic, l.messages(enough, 5)...)
	p.link.faults(nil)
	if cuts == 0 {
		e.Fatalf(setupPrefix + "no session was cut")
	}
	l.strikes("g", cuts, history.Load{Publishers: 1, MaxPending: pending})
	l.mustPublish(pub, topic, l.messages(10, 5)...)
	l.await("g")
	l.verify()
}

func standbyTakesOver(e *env) {
	topic, l := e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	var members []*process
	var consumers []*pubsub.Consumer
	join := func() {
		p := e.open()
		members = append(members, p)
		consumers = append(consumers, e.subscribe(p, s, l.handler(p, "g", nil)))
	}
	for range 3 {
		join()
	}
	pub := e.open()
	// the one that gets messages is active; the others stand by
	round := func(gone ...*process) (active int) {
		before := len(l.calls("g"))
		l.mustPublish(pub, topic, l.messages(60, 10)...)
		l.await("g")
		active = -1
		for _, r := range l.calls("g")[before:] {
			for i, p := range members {
				if p == r.who && active >= 0 && i != active {
					e.Errorf("%s and %s of an exclusive group were active at once", members[active].name, p.name)
				}
				if p == r.who {
					active = i
				}
			}
		}
		if active < 0 {
			e.Fatalf("no member was active")
		}
		return active
	}
	first := round()
	for i, c := range consumers {
		if st := c.State(); i != first && st.Phase != pubsub.Standby {
			e.Errorf("%s is not active, and its state is %v, want standby", members[i].name, st.Phase)
		} else if i == first && st.Phase != pubsub.Running {
			e.Errorf("%s is active, and its state is %v", members[i].name, st.Phase)
		}
	}
	e.must(members[first].Close(), "close the active member")
	second := round()
	if second == first {
		e.Errorf("%s handles messages after its Close", members[first].name)
	}
	l.allow("g", 256) // settlements that are on their way
	members[second].kill()
	if third := round(); third == second || third == first {
		e.Errorf("%s handles messages after its death", members[third].name)
	}
	l.verify()
}

func handover(e *env) {
	const inFlight = 32
	topic, l := e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight = 4, inFlight
	pub := e.open()
	e.ensure(pub, s)
	join := func() *process {
		p := e.open()
		e.subscribe(p, s, l.handler(p, "g", e.busy(2*time.Millisecond)))
		return p
	}
	reach := func(n int) {
		e.until(patience, func() bool { return l.handled("g") >= n })
	}
	a, b := join(), join()
	l.mustPublish(pub, topic, l.messages(enough, 8)...)
	reach(40)
	e.must(a.Close(), "close a member")
	reach(100)
	c := join()
	b.kill()
	l.strikes("g", 1, history.Load{Members: 1, MaxInFlight: inFlight})
	reach(170)
	join()
	e.must(c.Close(), "close a member")
	l.await("g")
	l.verify()
}

func acrossMembers(e *env) {
	const keys = 12
	pub, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight = 4, 16
	spec := pubsub.TopicSpec{Name: topic}
	if e.caps.Partitions {
		spec.Partitions = 4
	}
	e.must(pub.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{s}}), "ensure")
	for range 2 {
		p := e.open()
		e.subscribe(p, s, l.handler(p, "g", e.busy(2*time.Millisecond)))
	}
	l.mustPublish(pub, topic, l.messages(30, keys)...)
	l.await("g")
	l.mustPublish(pub, topic, l.messages(enough, keys)...)
	l.await("g")
	members := map[*process]bool{}
	for _, r := range l.calls("g") {
		members[r.who] = true
	}
	if e.caps.Partitions && len(members) < 2 {
		e.Errorf("one of two members handles all of 4 partitions")
	}
	l.verify()
}

func partitionsRefused(e *env) {
	p := e.open()
	err := p.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: e.topic("a"), Partitions: 2}}})
	e.wantUnsupported(err, "partitions")
}

func stalledPartition(e *env) {
	const keys = 40
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency = 4
	e.must(p.Ensure(e.Context(), pubsub.Topology{
		Topics: []pubsub.TopicSpec{{Name: topic, Partitions: 4}}, Groups: []pubsub.Subscription{s},
	}), "make 4 partitions")
	stall := e.gate()
	stalled := make(chan struct{})
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.Type == "stalls" {
			close(stalled)
			stall.wait()
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(80, keys)...)
	l.await("g")
	first := l.message("key-0")
	first.Type = "stalls"
	l.mustPublish(p, topic, first)
	if !e.closed(patience, stalled) {
		e.Fatalf("the message that stalls did not come")
	}
	l.mustPublish(p, topic, l.messages(2*keys, keys)...)
	const want = 80 + 2*(keys-1)
	if !e.until(patience, func() bool { return l.handled("g") >= want }) {
		e.Errorf("while one key of %d stalled %d messages of the others were handled, want %d", keys, l.handled("g")-80, want-80)
	}
	stall.open()
	l.await("g")
	l.verify()
}

func outOfOrderAcks(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Order, s.Concurrency = pubsub.OrderNone, 4
	stuck := e.gate()
	var n atomic.Int64
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.Type == "stuck" {
			n.Add(1)
			stuck.wait()
		}
		return nil
	}))
	msgs := l.messages(100, 0)
	var ids []string
	for i := range msgs {
		if i == 40 || i == 60 || i == 61 {
			msgs[i].Type = "stuck"
			ids = append(ids, msgs[i].ID)
		}
	}
	l.mustPublish(p, topic, msgs...)
	if !e.until(patience, func() bool { return l.handled("g") == 97 && n.Load() == 3 }) {
		e.Fatalf("%d messages were handled, and %d are stuck", l.handled("g"), n.Load())
	}
	time.Sleep(100 * time.Millisecond) // settlements leave within a millisecond
	p.kill()
	peer := e.open()
	e.subscribe(peer, s, l.handler(peer, "g", nil))
	l.allow("g", s.MaxInFlight+256)
	l.await("g")
	for _, id := range ids {
		if len(l.calls("g", id)) < 2 {
			e.Errorf("message %s was being handled when its process died, and did not come again", id)
		}
	}
	l.verify()
}
