package main

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/omnibus-go/omnibus/internal/bench"
)

// A watermillPlug is Watermill on one broker, used as its documentation does: Publish with a new UUID, a Router that consumes.
type watermillPlug struct {
	pub     message.Publisher
	sub     func(ctx context.Context, topic, group string) (message.Subscriber, error)
	prepare func(ctx context.Context, topic string, groups []string) error
	close   func() error

	unordered string // why the messages of a key have no order there; "" = they have
	unbounded string // why the number of handlers that run at once has no bound; "" = it has
}

func (w watermillPlug) client() *bench.Client {
	return &bench.Client{
		Prepare: w.prepare,
		Publish: func(_ context.Context, topic string, m bench.Message) error {
			return w.pub.Publish(topic, watermillMessage(m))
		},
		PublishBatch: func(_ context.Context, topic string, ms []bench.Message) (int, error) {
			batch := make([]*message.Message, len(ms))
			for i, m := range ms {
				batch[i] = watermillMessage(m)
			}
			if err := w.pub.Publish(topic, batch...); err != nil {
				return 0, err // it does not say how many
			}
			return len(ms), nil
		},
		Consume: w.consume,
		Close:   func(context.Context) error { return w.close() },
	}
}

func watermillMessage(m bench.Message) *message.Message {
	out := message.NewMessage(watermill.NewUUID(), m.Payload)
	out.Metadata.Set("content-type", m.ContentType)
	if m.Key != "" {
		out.Metadata.Set("key", m.Key)
	}
	return out
}

func (w watermillPlug) consume(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
	switch {
	case s.Keyed && w.unordered != "":
		return nil, bench.NotOffered(w.unordered)
	case s.Workers > 1 && w.unbounded != "":
		return nil, bench.NotOffered(w.unbounded)
	}
	sub, err := w.sub(ctx, s.Topic, s.Group)
	if err != nil {
		return nil, err
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	router.AddConsumerHandler("bench", s.Topic, sub, func(m *message.Message) error {
		handle(m.Payload)
		return nil
	})
	ended := make(chan error, 1)
	go func() { ended <- router.Run(ctx) }()
	select {
	case <-router.Running():
	case err := <-ended:
		return nil, err
	}
	return func(context.Context) error { return errors.Join(router.Close(), <-ended) }, nil
}
