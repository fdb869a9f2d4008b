package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A thief has the broker, and no key: he sees what lies there, and can publish what he likes.
type thief struct {
	broker *pubsub.Broker
	seen   chan pubsub.Message // the order that he waits for
}

const stolen = "stolen" // the ID of that order

func openThief(ctx context.Context, open func(...pubsub.Middleware) (*pubsub.Broker, error)) (*thief, error) {
	b, err := open()
	if err != nil {
		return nil, err
	}
	t := &thief{broker: b, seen: make(chan pubsub.Message, 1)}
	_, err = b.Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: pubsub.Broadcast}, func(_ context.Context, d *pubsub.Delivery) error {
		if d.ID == stolen {
			select {
			case t.seen <- d.Message:
			default: // his own
			}
		}
		return nil
	})
	if err != nil {
		_ = b.Close() // the first error tells more
		return nil, err
	}
	return t, nil
}

// try shows what becomes of it.
func (t *thief) try(ctx context.Context, orders *pubsub.Broker, b *billing) error {
	if err := orders.Publish(ctx, topic, pubsub.Message{ID: stolen, Type: "order", Key: "alice", Payload: []byte(text)}); err != nil {
		return err
	}
	if err := b.until(ctx, func() bool { return b.bills[stolen] }); err != nil {
		return err
	}
	var m pubsub.Message
	select {
	case <-ctx.Done():
		return ctx.Err()
	case m = <-t.seen:
	}
	fmt.Println("the thief can read it:", strings.Contains(string(m.Payload), "Alice"))

	forged := m
	forged.ID = "forged"
	unsigned := pubsub.Message{ID: "unsigned", Type: "order", Key: "alice", Payload: []byte(text)}
	for _, m := range []pubsub.Message{m, forged, unsigned} {
		if err := t.broker.Publish(ctx, topic, m); err != nil {
			return err
		}
	}
	if err := b.until(ctx, func() bool { return b.replayed[stolen] && len(b.refused) == 2 }); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !errors.Is(b.refused["forged"], security.ErrForged) || b.bills["forged"] || b.bills["unsigned"] {
		return fmt.Errorf("refused %v", b.refused)
	}
	fmt.Println("sent again: it is not billed again")
	fmt.Println("changed:", b.refused["forged"])
	fmt.Println("made up:", b.refused["unsigned"])
	return nil
}
