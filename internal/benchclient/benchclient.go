// Package benchclient is the module's own API as package bench measures it.
package benchclient

import (
	"context"
	"errors"
	"time"

	"github.com/omnibus-go/omnibus/internal/bench"
	"github.com/omnibus-go/omnibus/pubsub"
)

var errFails = errors.New("this attempt fails")

const (
	inFlight = 4096
	answer   = 10 * time.Second // what a broker has for any
)

// Settings are those that New's client has.
const Settings = "PublisherOptions and Subscription at their defaults, but MaxInFlight 4096 where the row does not say defaults; " +
	"the engine assigns ids; rows strict, loose and failsonce: five attempts, from 1 s, once each fails from 100 ms"

// New makes a client of a Broker, which it closes.
func New(b *pubsub.Broker) *bench.Client {
	var batch []pubsub.Message
	c := &bench.Client{
		Prepare: func(ctx context.Context, topic string, groups []string) error {
			t := pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic}}}
			for _, g := range groups {
				t.Groups = append(t.Groups, pubsub.Subscription{Topic: topic, Group: g})
			}
			return b.Ensure(ctx, t)
		},
		Publish: func(ctx context.Context, topic string, m bench.Message) error {
			return b.Publish(ctx, topic, message(m))
		},
		PublishBatch: func(ctx context.Context, topic string, ms []bench.Message) (int, error) {
			batch = batch[:0]
			for _, m := range ms {
				batch = append(batch, message(m))
			}
			err := b.PublishBatch(ctx, topic, batch)
			confirmed := len(ms)
			if be, ok := errors.AsType[*pubsub.BatchError](err); ok {
				for _, e := range be.Errs {
					if e != nil {
						confirmed--
					}
				}
			} else if err != nil {
				confirmed = 0
			}
			return confirmed, err
		},
		Stream: func(ctx context.Context, topic string, confirmed func(int, error)) (bench.Stream, error) {
			done := func(_ pubsub.Receipt, err error) { confirmed(1, err) }
			return bench.Stream{
				Send: func(m bench.Message) error {
					b.PublishAsync(ctx, topic, message(m), done)
					return nil
				},
				Flush: b.Flush,
			}, nil
		},
		Consume: func(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
			sub := pubsub.Subscription{Topic: s.Topic, Group: s.Group, Concurrency: s.Workers}
			if !s.Defaults {
				sub.MaxInFlight = inFlight
			}
			if s.Loose {
				sub.Order = pubsub.OrderByKeyLoose
			}
			if s.Shape.Retries {
				attempts, first, jitter := s.Shape.RetryPolicy()
				sub.Retry = pubsub.Policy{MaxAttempts: attempts, Initial: first}
				if !jitter {
					sub.Retry.Delays = []time.Duration{first}
				}
			}
			c, err := b.Subscribe(ctx, sub, func(_ context.Context, d *pubsub.Delivery) error {
				if s.Fails != nil && s.Fails(d.Payload, d.Attempt) {
					return errFails
				}
				handle(d.Payload)
				return nil
			})
			if err != nil {
				return nil, err
			}
			return c.Drain, nil
		},
		Retries: true,
		Close:   func(context.Context) error { return b.Close() },
	}
	if b.Capabilities().Lag == pubsub.LagExact { // else it does not tell when all is settled
		c.Pending = func(ctx context.Context, topic, group string) (int64, error) { return pending(ctx, b, topic, group) }
	}
	return c
}

// pending is how many messages a group has not settled. A broker that has just made the topic may not know yet who leads it: that is no count, so it
// is asked again, for as long as the broker has for any answer.
func pending(ctx context.Context, b *pubsub.Broker, topic, group string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		lag, err := b.Lag(ctx, topic, group)
		if !errors.Is(err, pubsub.ErrUnavailable) {
			return lag.Messages, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, err
		}
	}
}

// message leaves the id to the engine: making it is part of its work.
func message(m bench.Message) pubsub.Message {
	return pubsub.Message{Key: m.Key, ContentType: m.ContentType, Payload: m.Payload}
}
