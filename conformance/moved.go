package conformance

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// movedPartition lets retries wait while whoever has them in hand joins, leaves and crashes: the delay is long enough to take several hops
// through tiers, and whatever holds the messages meanwhile changes hands.
func movedPartition(e *env) {
	orders := []pubsub.Order{pubsub.OrderNone}
	if exclusive().Open(e.caps) {
		orders = append(orders, pubsub.OrderByKeyLoose)
	}
	for _, order := range orders {
		e.moveRetries(e.topic("order"+order.String()[:2]), order)
	}
}

func (e *env) moveRetries(topic string, order pubsub.Order) {
	const delay, failing, handover = 7 * time.Second, 40, 4 * time.Second
	l := e.ledger()
	s := e.sub(topic, "g")
	s.Order, s.Concurrency, s.AckWait = order, 4, 2*time.Second
	spec := pubsub.TopicSpec{Name: topic}
	if partitioned().Open(e.caps) {
		spec.Partitions = 4
	}
	pub := e.open()
	e.must(pub.Ensure(e.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{spec}, Groups: []pubsub.Subscription{s}}), "ensure")

	var mu sync.Mutex
	failed := map[string]time.Time{}
	var failures atomic.Int64
	join := func() *process {
		p := e.open()
		e.subscribe(p, s, l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
			if d.Type != "fails" {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if _, again := failed[d.ID]; again {
				return nil
			}
			failed[d.ID] = time.Now()
			failures.Add(1)
			return pubsub.RetryAfter(delay, errFails)
		}))
		return p
	}
	leaves, crashes := join(), join()
	l.mustPublish(pub, topic, l.messages(40, 10)...)
	l.await("g")
	msgs := l.messages(failing, 10)
	for i := range msgs {
		msgs[i].Type = "fails"
	}
	l.mustPublish(pub, topic, msgs...)
	if !e.until(patience, func() bool { return failures.Load() == failing }) {
		e.Fatalf("%d of %d messages were handled", failures.Load(), failing)
	}
	if !e.until(delay/2, func() bool { return leaves.link.settled() && crashes.link.settled() }) {
		e.Fatalf("%v after they have failed messages are not moved away: their members still have them in hand", delay/2)
	}
	join()
	time.Sleep(time.Second)
	e.must(leaves.Close(), "close a member")
	time.Sleep(500 * time.Millisecond)
	crashes.kill()

	l.await("g")
	mu.Lock()
	defer mu.Unlock()
	for _, m := range msgs {
		calls := l.calls("g", m.ID)
		if len(calls) != 2 {
			e.Errorf("message %s, which failed once, was handled %d times", m.ID, len(calls))
			continue
		}
		took := calls[1].at.Sub(failed[m.ID])
		if took < delay {
			e.Errorf("a retry after %v came after %v, as its member had changed", delay, took)
		}
		if limit := delay + e.caps.RetryLate + s.AckWait + handover; took > limit {
			e.Errorf("a retry after %v came after %v, as its member had changed, want at most %v", delay, took, limit)
		}
		if calls[1].attempt != 2 {
			e.Errorf("message %s failed once, and its next attempt is %d", m.ID, calls[1].attempt)
		}
	}
	l.verify()
}
