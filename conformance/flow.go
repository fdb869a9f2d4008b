package conformance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func flow() []Property {
	return []Property{
		{
			Name: "Flow/InFlightMessages", Promises: []int{7}, run: inFlightMessages,
			Doc: "A consumer never holds more messages than MaxInFlight, whatever its client buffers.",
		},
		{
			Name: "Flow/InFlightBytes", Promises: []int{7}, run: inFlightBytes,
			Doc: "A consumer holds no more bytes than MaxInFlightBytes and one fetch.",
		},
		{
			Name: "Flow/SlowHandlerStopsFetching", Promises: []int{7}, Gate: redelivers(), run: slowHandlerStopsFetching, waits: 6 * time.Second,
			Doc: "A member whose handlers are slow leaves the messages beyond its MaxInFlight to its peers.",
		},
		{
			Name: "Flow/HandlersRunAtOnce", Promises: []int{6}, run: handlersRunAtOnce,
			Doc: "With Concurrency N, N handlers run at the same time.",
		},
		{
			Name: "Flow/PauseAndResume", Promises: []int{7}, Gate: redelivers(), run: pauseAndResume,
			Doc: "Between Pause and Resume no handler starts, State says Paused, and afterwards nothing is missing.",
		},
		{
			Name: "Flow/DelayedDoNotBlock", Promises: []int{7, 10}, Gate: redelivers(), run: delayedDoNotBlock, waits: 10 * time.Second,
			Doc: "Ten times MaxInFlight messages that wait for a retry, unordered or loosely ordered, do not hold up new ones, nor memory.",
		},
		{
			Name: "Flow/ParkDeadLetter", Promises: []int{6, 19}, Gate: redelivers(), run: parkDeadLetter,
			Doc: "With ParkDeadLetter a poisoned key of ten times MaxInFlight messages is dead-lettered, and the other keys finish.",
		},
		{
			Name: "Flow/ParkBlock", Promises: []int{6}, Gate: redelivers(), run: parkBlock, waits: 3 * time.Second,
			Doc: "With ParkBlock State says Blocked while a key's followers fill MaxParked, and all finish once the key is free.",
		},
	}
}

func inFlightMessages(e *env) {
	const limit = 20
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight = 4, limit
	block := e.gate()
	var blocked atomic.Int64
	c := e.subscribe(p, s, l.handler(p, "g", func(ctx context.Context, _ *pubsub.Delivery) error {
		if l.handled("g") < 30 {
			return nil
		}
		blocked.Add(1)
		return block.waitOr(ctx)
	}))
	l.mustPublish(p, topic, l.messages(enough, 0)...)
	if !e.until(patience, func() bool { return blocked.Load() == 4 }) {
		e.Errorf("%d of 4 handlers run", blocked.Load())
	}
	time.Sleep(100 * time.Millisecond) // whatever is being fetched arrives
	if st := c.State(); st.InFlight > limit {
		e.Errorf("State says that %d messages are in flight, at most %d may be", st.InFlight, limit)
	}
	block.open()
	l.await("g")
	if _, _, peak, _ := p.link.load(); peak > limit {
		e.Errorf("the broker had %d messages out to a consumer whose MaxInFlight is %d", peak, limit)
	}
	l.verify()
}

func inFlightBytes(e *env) {
	const limit, size = 64 << 10, 8 << 10
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.MaxInFlightBytes = limit
	block := e.gate()
	var most atomic.Int64
	e.subscribe(p, s, l.handler(p, "g", func(ctx context.Context, _ *pubsub.Delivery) error {
		if err := block.waitOr(ctx); err != nil {
			return err
		}
		if l.handled("g") == 30 {
			time.Sleep(100 * time.Millisecond) // whatever is being fetched arrives
		}
		_, _, _, bytes := p.link.load()
		most.Store(max(most.Load(), bytes))
		return nil
	}))
	msgs := l.messages(100, 0)
	for i := range msgs {
		msgs[i].Payload = []byte(strings.Repeat("x", size))
	}
	l.mustPublish(p, topic, msgs...)
	block.open()
	l.await("g")
	if most.Load() > 2*limit+size {
		e.Errorf("%d bytes were in flight, the limit is %d and one fetch", most.Load(), limit)
	}
	l.verify()
}

func slowHandlerStopsFetching(e *env) {
	const limit, all, keys = 10, 200, 40
	slow, quick, topic, l := e.open(), e.open(), e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.MaxInFlight, s.AckWait = limit, patience
	block := e.gate()
	want := all - limit
	if e.shared(quick, s, 2) { // the half of the partitions that it has to give up, without the one that it is stuck in
		want = all/4 - limit
	}
	l.mustPublish(quick, topic, l.messages(all, keys)...)
	e.subscribe(slow, s, l.handler(slow, "g", func(ctx context.Context, _ *pubsub.Delivery) error {
		return block.waitOr(ctx)
	}))
	if !e.until(patience, func() bool { return len(l.calls("g")) == 1 }) {
		e.Fatalf("nothing came")
	}
	e.subscribe(quick, s, l.handler(quick, "g", nil))
	if !e.until(s.AckWait/3, func() bool { return l.handled("g") >= want }) { // not by the end of their leases
		e.Errorf("while one member with a MaxInFlight of %d was stuck its peer got %d of %d messages, want at least %d", limit, l.handled("g"), all, want)
	}
	block.open()
	l.await("g")
	l.verify()
}

func handlersRunAtOnce(e *env) {
	const n = 8
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency = n
	block := e.gate()
	var running atomic.Int64
	e.subscribe(p, s, l.handler(p, "g", func(ctx context.Context, d *pubsub.Delivery) error {
		if d.Type != "together" {
			return nil
		}
		running.Add(1)
		return block.waitOr(ctx)
	}))
	l.mustPublish(p, topic, l.messages(30, 0)...)
	l.await("g")
	msgs := l.messages(n, 0)
	for i := range msgs {
		msgs[i].Type = "together"
	}
	l.mustPublish(p, topic, msgs...)
	if !e.until(patience, func() bool { return running.Load() == n }) {
		e.Errorf("%d handlers run at once, want %d", running.Load(), n)
	}
	block.open()
	l.await("g")
	l.verify()
}

func pauseAndResume(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Concurrency = 2
	c := e.subscribe(p, s, l.handler(p, "g", nil))
	for range 3 {
		l.mustPublish(p, topic, l.messages(50, 0)...)
		l.await("g")
		c.Pause()
		before := len(l.calls("g"))
		l.mustPublish(p, topic, l.messages(50, 0)...)
		time.Sleep(500 * time.Millisecond) // long enough for a handler to start that should not
		if n := len(l.calls("g")) - before; n > 0 {
			e.Errorf("%d handlers started while the consumer was paused", n)
		}
		if ph := c.State().Phase; ph != pubsub.Paused {
			e.Errorf("the state of a paused consumer is %v", ph)
		}
		c.Resume()
	}
	l.await("g")
	l.verify()
}

func delayedDoNotBlock(e *env) {
	if e.caps.RetryIn == 0 && !e.caps.Tiers {
		e.skip("this broker delays nothing and has no tiers: messages are held while they wait")
	}
	e.delaysDoNotBlock(pubsub.OrderNone)
	if exclusive().Open(e.caps) {
		e.delaysDoNotBlock(pubsub.OrderByKeyLoose)
	}
}

func (e *env) delaysDoNotBlock(order pubsub.Order) {
	const limit = 20
	const delay = 5 * time.Second
	p, topic, l := e.open(), e.topic(fmt.Sprintf("order%d", order)), e.ledger()
	s := e.sub(topic, "g")
	s.Order = order
	s.Concurrency, s.MaxInFlight = 4, limit
	var failed atomic.Int64
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.Type == "later" && d.Attempt == 1 {
			failed.Add(1)
			return pubsub.RetryAfter(delay, errors.New("later"))
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.await("g")
	begin := time.Now()
	msgs := l.messages(10*limit, 5)
	for i := range msgs {
		msgs[i].Type = "later"
	}
	l.mustPublish(p, topic, msgs...)
	e.until(patience, func() bool { return failed.Load() == int64(len(msgs)) })
	l.mustPublish(p, topic, l.messages(50, 5)...)
	if !e.until(patience, func() bool { return l.handled("g") >= 80 }) || time.Since(begin) > delay {
		e.Errorf("%d of %d messages failed and wait for %v; after %v %d were handled, want those and 50 new ones before that",
			failed.Load(), len(msgs), delay, time.Since(begin), l.handled("g"))
	}
	l.await("g")
	if _, _, peak, _ := p.link.load(); peak > limit {
		e.Errorf("%d messages were held, at most %d may be", peak, limit)
	}
	l.verify()
}

func parkDeadLetter(e *env) {
	const limit, parked, poison = 20, 10, 200
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight, s.MaxParked, s.OnParkedFull = 4, limit, parked, pubsub.ParkDeadLetter
	e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.Key == "poisoned" {
			l.excuse(d.ID)
			return pubsub.RetryAfter(time.Hour, errors.New("poisoned"))
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	for range poison / 10 {
		for range 10 {
			m := l.message("poisoned")
			l.mustPublish(p, topic, m)
			l.excuse(m.ID)
		}
		l.mustPublish(p, topic, l.messages(5, 5)...)
	}
	if !l.await("g") {
		e.Errorf("the other keys did not finish: %v", l.progress("g"))
	}
	var dead []pubsub.Record
	e.until(patience, func() bool { dead = e.dead(p, topic, "g"); return len(dead) >= poison-parked })
	if len(dead) < poison-parked || len(dead) > poison {
		e.Errorf("%d of %d messages of the poisoned key are in the dead letters, want all but %d", len(dead), poison, parked)
	}
	for _, r := range dead {
		if why := r.Msg.Headers.Get("omnibus-dlq-reason"); why != "parked-full" {
			e.Errorf("a dead letter's reason is %q, want parked-full", why)
			break
		}
	}
	l.verify()
}

func parkBlock(e *env) {
	const limit, parked, poison = 20, 10, 200
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Concurrency, s.MaxInFlight, s.MaxParked = 4, limit, parked
	s.Retry.MaxAttempts = pubsub.Unlimited
	var free atomic.Bool
	c := e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
		if d.Key == "poisoned" && !free.Load() {
			return pubsub.RetryAfter(time.Second, errors.New("poisoned"))
		}
		return nil
	}))
	l.mustPublish(p, topic, l.messages(30, 5)...)
	l.await("g")
	l.mustPublish(p, topic, l.messages(20, 0)...)
	for range poison {
		l.mustPublish(p, topic, l.message("poisoned"))
	}
	l.mustPublish(p, topic, l.messages(50, 5)...)
	if !e.until(patience, func() bool { return c.State().Phase == pubsub.Blocked }) {
		e.Errorf("%d messages of a key that waits lie behind MaxParked of %d, and the state is %v, want blocked", poison, parked, c.State().Phase)
	}
	time.Sleep(2 * time.Second)
	if _, _, peak, _ := p.link.load(); peak > limit {
		e.Errorf("%d messages were held, at most %d may be", peak, limit)
	}
	free.Store(true)
	l.await("g")
	l.verify()
}
