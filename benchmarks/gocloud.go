package main

import (
	"context"
	"errors"
	"sync"

	"gocloud.dev/pubsub"

	"github.com/omnibus-go/omnibus/internal/bench"
)

// A gocloudPlug is go-cloud on one broker: Send, and as many goroutines that Receive and Ack as there are workers.
type gocloudPlug struct {
	open  func(ctx context.Context, topic string) (*pubsub.Topic, error)
	subs  func(ctx context.Context, t *pubsub.Topic, topic, group string) (*pubsub.Subscription, error)
	close func() error
	late  bool // subscriptions are opened when they are read: what is sent before is kept without them

	mu     sync.Mutex
	topics map[string]*pubsub.Topic
	groups map[[2]string]*pubsub.Subscription
}

func (g *gocloudPlug) client() *bench.Client {
	g.topics, g.groups = map[string]*pubsub.Topic{}, map[[2]string]*pubsub.Subscription{}
	return &bench.Client{Prepare: g.prepare, Publish: g.publish, Consume: g.consume, Close: g.shutdown}
}

func (g *gocloudPlug) prepare(ctx context.Context, topic string, groups []string) error {
	t, err := g.open(ctx, topic)
	if err != nil {
		return err
	}
	g.topics[topic] = t
	if g.late {
		return nil
	}
	for _, name := range groups {
		if g.groups[[2]string{topic, name}], err = g.subs(ctx, t, topic, name); err != nil {
			return err
		}
	}
	return nil
}

func (g *gocloudPlug) publish(ctx context.Context, topic string, m bench.Message) error {
	out := &pubsub.Message{Body: m.Payload, Metadata: map[string]string{"id": m.ID, "content-type": m.ContentType}}
	if m.Key != "" {
		out.Metadata["key"] = m.Key
	}
	return g.topics[topic].Send(ctx, out)
}

func (g *gocloudPlug) consume(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
	if s.Keyed {
		return nil, bench.NotOffered("it knows no keys")
	}
	place := [2]string{s.Topic, s.Group}
	g.mu.Lock()
	sub := g.groups[place]
	delete(g.groups, place) // who consumes shuts it down
	g.mu.Unlock()
	if g.late {
		var err error
		if sub, err = g.subs(ctx, g.topics[s.Topic], s.Topic, s.Group); err != nil {
			return nil, err
		}
	}
	receive, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	errs := make([]error, s.Workers)
	for w := range s.Workers {
		wg.Go(func() {
			for {
				m, err := sub.Receive(receive)
				if err != nil {
					if receive.Err() == nil {
						errs[w] = err
					}
					return
				}
				handle(m.Body)
				m.Ack()
			}
		})
	}
	return func(ctx context.Context) error {
		cancel()
		wg.Wait()
		return errors.Join(errors.Join(errs...), sub.Shutdown(ctx)) // sends the acks that it still has
	}, nil
}

func (g *gocloudPlug) shutdown(ctx context.Context) error {
	var errs []error
	for _, sub := range g.groups {
		errs = append(errs, sub.Shutdown(ctx))
	}
	for _, t := range g.topics {
		errs = append(errs, t.Shutdown(ctx))
	}
	return errors.Join(append(errs, g.close())...)
}
