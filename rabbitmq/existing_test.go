package rabbitmq_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Queues that somebody else has made, of a type and with arguments of their own, are used as they are: nothing is declared and nothing bound. All that comes
// from one is of the topic that was subscribed to.
func TestExistingQueues(t *testing.T) {
	s := startServer(t, "default")
	s.must(t, func(ch *amqp.Channel) error {
		if err := ch.ExchangeDeclare("shop", amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
			return err
		}
		if _, err := ch.QueueDeclare("shop-mail", true, false, false, false, amqp.Table{"x-max-length": int32(1000)}); err != nil {
			return err
		}
		return ch.QueueBind("shop-mail", "orders.*", "shop", false, nil)
	})
	b := s.open(t, url.Values{"exchange": {"shop"}, "queues": {"shop-{group}"}}, &pubsub.Options{Manage: pubsub.Off})

	var mu sync.Mutex
	var got []string
	failed := false
	sub := pubsub.Subscription{Topic: "orders.made", Group: "mail", Order: pubsub.OrderNone,
		Retry: pubsub.Policy{MaxAttempts: 3, Delays: []time.Duration{50 * time.Millisecond}}}
	c, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if d.ID == "ours" && !failed {
			failed = true
			return errors.New("once")
		}
		got = append(got, d.ID+" of "+d.Topic)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, "orders.made", "ours")
	s.must(t, func(ch *amqp.Channel) error {
		return ch.PublishWithContext(t.Context(), "shop", "orders.paid", true, false, amqp.Publishing{MessageId: "theirs", Body: []byte("x")})
	})
	poll.Until(t, "both messages", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == 2
	})
	if slices.Sort(got); !slices.Equal(got, []string{"ours of orders.made", "theirs of orders.made"}) || !failed {
		t.Errorf("handled %q, and failed %t", got, failed)
	}
	if err := b.Publish(t.Context(), "bills", pubsub.Message{Payload: []byte("x")}); !errors.Is(err, pubsub.ErrUnroutable) {
		t.Errorf("what no queue takes: %v", err)
	}
	if err := c.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}

	// What the queue cannot do is refused, before anything is sent.
	for name, sub := range map[string]pubsub.Subscription{
		"an order by key": {Topic: "orders.made", Group: "mail"},
		"a pattern":       {Topic: "orders.*", Group: "mail", Order: pubsub.OrderNone},
		"another queue":   {Topic: "orders.made", Group: "none", Order: pubsub.OrderNone},
	} {
		if c, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error { return nil }); err == nil {
			t.Errorf("%s is taken", name)
			_ = c.Drain(t.Context())
		} else if !errors.Is(err, pubsub.ErrUnsupported) && !errors.Is(err, pubsub.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}

	s.must(t, func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive("shop-mail", true, false, false, false, nil)
		if err == nil && q.Messages != 0 {
			t.Errorf("%d messages came back", q.Messages)
		}
		return err
	})
	for _, name := range []string{"omnibus", "omnibus.shop:topic.orders.made", "omnibus.shop:lost", "omnibus.shop:due"} {
		if err := s.native(t.Context(), func(ch *amqp.Channel) error {
			return ch.ExchangeDeclarePassive(name, amqp.ExchangeTopic, true, false, false, false, nil)
		}); err == nil {
			t.Errorf("exchange %s was made", name)
		}
	}
	for _, name := range []string{"orders.made__mail", "shop:orders.made__mail", "omnibus.shop:dead.orders.made__mail", "omnibus.shop:wait.0"} {
		if err := s.native(t.Context(), func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
			return err
		}); err == nil {
			t.Errorf("queue %s was made", name)
		}
	}
}
