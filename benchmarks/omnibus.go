package main

import (
	"context"
	"errors"
	"time"

	"github.com/omnibus-go/omnibus/internal/bench"
	"github.com/omnibus-go/omnibus/pubsub"
)

var errFails = errors.New("this attempt fails")

const omnibusInFlight = 4096

const omnibusSettings = "PublisherOptions and Subscription at their defaults, but MaxInFlight 4096 where the row does not say defaults; " +
	"the engine assigns ids; rows strict, loose and failsonce: five attempts, from 1 s, once each fails from 100 ms"

// omnibusClient is what every broker's file plugs in as omnibus.
func omnibusClient(b *pubsub.Broker) *bench.Client {
	var batch []pubsub.Message
	return &bench.Client{
		Prepare: func(ctx context.Context, topic string, groups []string) error {
			t := pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic}}}
			for _, g := range groups {
				t.Groups = append(t.Groups, pubsub.Subscription{Topic: topic, Group: g})
			}
			return b.Ensure(ctx, t)
		},
		Publish: func(ctx context.Context, topic string, m bench.Message) error {
			return b.Publish(ctx, topic, omnibusMessage(m))
		},
		PublishBatch: func(ctx context.Context, topic string, ms []bench.Message) (int, error) {
			batch = batch[:0]
			for _, m := range ms {
				batch = append(batch, omnibusMessage(m))
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
					b.PublishAsync(ctx, topic, omnibusMessage(m), done)
					return nil
				},
				Flush: b.Flush,
			}, nil
		},
		Consume: func(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
			sub := pubsub.Subscription{Topic: s.Topic, Group: s.Group, Concurrency: s.Workers}
			if !s.Defaults {
				sub.MaxInFlight = omnibusInFlight
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
		Pending: func(ctx context.Context, topic, group string) (int64, error) {
			lag, err := b.Lag(ctx, topic, group)
			return lag.Messages, err
		},
		Close: func(context.Context) error { return b.Close() },
	}
}

// omnibusMessage leaves the id to the engine: making it is part of its work.
func omnibusMessage(m bench.Message) pubsub.Message {
	return pubsub.Message{Key: m.Key, ContentType: m.ContentType, Payload: m.Payload}
}
