package pubsubtest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Deliver publishes msg on a Broker of its own, delivers it to h as sub says, with its retries, and returns what became of it. The topics
// of sub and of its dead letters exist. In a bubble of testing/synctest the delays cost no time and are exact.
//
// The test fails if the message has no end: after 30 days (outside of a bubble 30 seconds) or 10000 runs of h, when h ends its goroutine, as
// t.FailNow does, or when its dead letter cannot be stored.
func Deliver(tb testing.TB, sub pubsub.Subscription, h pubsub.Handler, msg pubsub.Message) Fate {
	tb.Helper()
	var topics []string
	if to := sub.DeadLetter; to.Topic != "" && to.To == nil {
		topics = append(topics, to.Topic)
	}
	return Open(tb, nil, topics...).Deliver(sub, h, msg)[0]
}

// Deliver subscribes h, publishes msgs in order to the subscription's topic, through the middleware of the Broker, waits until each of them has
// come to its end, unsubscribes and returns their fates in the same order. It fails the test where the function Deliver does.
func (b *Broker) Deliver(sub pubsub.Subscription, h pubsub.Handler, msgs ...pubsub.Message) []Fate {
	b.t.Helper()
	return b.deliver(sub, msgs, func(ctx context.Context, sub pubsub.Subscription) (*pubsub.Consumer, error) {
		return b.Subscribe(ctx, sub, h)
	})
}

// DeliverBatch is Deliver for a handler of batches.
func (b *Broker) DeliverBatch(sub pubsub.Subscription, batch pubsub.Batch, h pubsub.BatchHandler, msgs ...pubsub.Message) []Fate {
	b.t.Helper()
	return b.deliver(sub, msgs, func(ctx context.Context, sub pubsub.Subscription) (*pubsub.Consumer, error) {
		return b.SubscribeBatch(ctx, sub, batch, h)
	})
}

const (
	maxRuns  = 10_000 // of one message
	maxMoves = 3      // tries to store one dead letter
)

func (b *Broker) deliver(sub pubsub.Subscription, msgs []pubsub.Message,
	subscribe func(context.Context, pubsub.Subscription) (*pubsub.Consumer, error)) []Fate {
	b.t.Helper()
	if pubsub.IsPattern(sub.Topic) {
		b.t.Fatalf("Deliver: the topic %q is a pattern; set Topic to the one that the messages come from", sub.Topic)
	}
	ctx := context.Background()
	consumer, err := subscribe(ctx, b.track.subscription(sub))
	if err != nil {
		b.t.Fatalf("Deliver: %v", err)
	}
	start := time.Now()
	names, errs := make([]name, len(msgs)), make([]error, len(msgs))
	var all sync.WaitGroup
	all.Add(len(msgs))
	for i, m := range msgs {
		b.PublishAsync(ctx, sub.Topic, m, func(r pubsub.Receipt, err error) {
			names[i], errs[i] = name{sub.Group, r.ID, r.Position}, err
			all.Done()
		})
	}
	all.Wait()
	for i, err := range errs {
		if err != nil {
			b.t.Fatalf("Deliver: message %d of %d is not published: %v", i+1, len(msgs), err)
		}
	}
	fates := b.await(consumer, sub, start, names)
	if err := consumer.Drain(ctx); err != nil {
		b.t.Fatalf("Deliver: unsubscribing: %v", err)
	}
	return fates
}

// await waits for the end of each message.
func (b *Broker) await(consumer *pubsub.Consumer, sub pubsub.Subscription, start time.Time, names []name) []Fate {
	b.t.Helper()
	limit := patience()
	over := time.NewTimer(limit)
	defer over.Stop()
	fate := func(i int, s *story) Fate {
		f := s.fate(start)
		if len(names) > 1 {
			f.what = "message " + count(i+1, len(names))
		}
		return f
	}
	for next := 0; next < len(names); { // the first that has not ended
		changed := b.track.changed()
		var told <-chan time.Time
		for i := next; i < len(names); i++ {
			s := b.track.copied(names[i])
			if s.ended(sub) {
				if i == next {
					next++
				}
				continue
			}
			if !s.acked.IsZero() {
				told = time.After(quietFor)
			}
			switch last := len(s.runs) - 1; {
			case last >= 0 && s.runs[last].gone:
				b.t.Fatalf("Deliver: the handler ended its goroutine, as t.FailNow and t.Fatal do. Use t.Error, or return an error.\n%v", fate(i, s))
			case last >= maxRuns:
				b.t.Fatalf("Deliver: %s has no end: more than %d runs\n%v", fate(i, s).name(), maxRuns, fate(i, s))
			case s.moves >= maxMoves:
				b.t.Fatalf("Deliver: %v\n%v", consumer.State().Reason, fate(i, s))
			}
		}
		if next == len(names) {
			break
		}
		first := func() Fate { return fate(next, b.track.copied(names[next])) }
		select {
		case <-changed:
		case <-told:
		case <-consumer.Done():
			b.t.Fatalf("Deliver: the subscription ended: %v\n%v", consumer.Err(), first())
		case <-over.C:
			b.t.Fatalf("Deliver: %s has no end after %v\n%v", first().name(), limit, first())
		}
	}
	fates := make([]Fate, len(names))
	for i := range names {
		fates[i] = fate(i, b.track.copied(names[i]))
	}
	return fates
}

func (t *tracker) copied(n name) *story {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.stories[n]; s != nil {
		s := *s
		return &s
	}
	return &story{}
}

// ended says whether nothing more will happen to the message.
func (s *story) ended(sub pubsub.Subscription) bool {
	if s.acked.IsZero() {
		return false
	}
	// a dead letter's original is acked just before OnDeadLetter is called; one that is dropped looks like one that has expired until then
	failed := len(s.runs) > 0 && s.runs[len(s.runs)-1].err != nil
	return s.told || s.dead == nil && !(failed && dropped(sub) && time.Since(s.acked) < quietFor)
}
