package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What is published with a delay is refused where no group takes it, as what is published without one: when it is due nobody can be told any more.
func TestDelayedWithoutGroup(t *testing.T) {
	const delay = 300 * time.Millisecond
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	ensure := func(topology pubsub.Topology) {
		t.Helper()
		if err := b.Ensure(t.Context(), topology); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(queue string) {
		t.Helper()
		s.must(t, func(ch *amqp.Channel) error { _, err := ch.QueueDelete(queue, false, false, false); return err })
	}
	send := func(when, topic string, taken bool) {
		t.Helper()
		var all sync.WaitGroup
		for i := range 12 { // all partitions, and others between them
			at := time.Duration(i%2) * delay
			to := topic
			if at == 0 {
				to = "taken"
			}
			all.Add(1)
			b.PublishAsync(t.Context(), to, pubsub.Message{Key: fmt.Sprint("key-", i), Delay: at}, func(_ pubsub.Receipt, err error) {
				defer all.Done()
				switch {
				case at == 0 && err != nil:
					t.Errorf("%s: what is between them: %v", when, err)
				case at > 0 && taken != (err == nil), err != nil && !errors.Is(err, pubsub.ErrUnroutable):
					t.Errorf("%s: %v", when, err)
				}
			})
		}
		all.Wait()
	}
	group := func(topic string, order pubsub.Order) pubsub.Topology {
		return pubsub.Topology{Groups: []pubsub.Subscription{{Topic: topic, Group: "g", Order: order}}}
	}

	ensure(pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "alone"}, {Name: "parted", Partitions: 3}, {Name: "taken"}}})
	if err := b.Publish(t.Context(), "alone", pubsub.Message{Delay: delay}); !errors.Is(err, pubsub.ErrUnroutable) {
		t.Errorf("where nobody has any group: %v", err)
	}
	ensure(group("taken", pubsub.OrderNone))
	for _, topic := range []string{"alone", "parted"} {
		send("others have groups", topic, false)
		if _, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: topic, Group: pubsub.Broadcast}, func(context.Context, *pubsub.Delivery) error { return nil }); err != nil {
			t.Fatal(err)
		}
		send("with a live tail alone", topic, false)
		ensure(group("other.*", pubsub.OrderNone))
		send("with a pattern that does not cover it", topic, false)
		ensure(group("*", pubsub.OrderNone))
		send("with a pattern", topic, true)
		remove("*__g")
		send("when that is gone", topic, false)
		for _, order := range []pubsub.Order{pubsub.OrderNone, pubsub.OrderByKey} {
			ensure(group(topic, order))
			send("with its own group", topic, true)
			remove(topic + "__g")
			if topic == "parted" && order == pubsub.OrderByKey {
				remove("parted__g__1")
				remove("parted__g__2")
			}
			send("when that is gone", topic, false)
		}
	}
	s.must(t, func(ch *amqp.Channel) error { // somebody else's queue, and what says that it takes what has a delay
		_, err := ch.QueueDeclare("theirs", true, false, false, false, nil)
		return errors.Join(err, ch.QueueBind("theirs", "alone", "omnibus", false, nil), ch.ExchangeBind("omnibus.wait.19", "alone", "omnibus.later", false, nil))
	})
	send("with a queue that somebody has bound", "alone", true)
	poll.Until(t, "it to come there", func() (came bool) {
		s.must(t, func(ch *amqp.Channel) error {
			q, err := ch.QueueDeclarePassive("theirs", true, false, false, false, nil)
			came = q.Messages == 6
			return err
		})
		return came
	})
	careful := s.open(t, nil, &pubsub.Options{Manage: pubsub.Verify})
	ensure(group("alone", pubsub.OrderNone))
	if err := careful.Ensure(t.Context(), group("alone", pubsub.OrderNone)); err != nil {
		t.Error(err)
	}
	s.must(t, func(ch *amqp.Channel) error { return ch.ExchangeDelete("omnibus.taker.alone__g", false, false) })
	if err := careful.Ensure(t.Context(), group("alone", pubsub.OrderNone)); !errors.Is(err, pubsub.ErrNotFound) {
		t.Errorf("a group without its taker is verified: %v", err)
	}
}

// Retries of a group that is gone are nobody's: the name of its queue, by which they come back, is no topic of a pattern's.
func TestRetryOfDeletedGroup(t *testing.T) {
	s := startServer(t, "default")
	d := s.openDriver(t)
	b := s.open(t, nil, nil)
	src := source(t, d, pubsub.SourceSpec{From: pubsub.Place{Topic: "gone", Group: "g"}, Order: pubsub.OrderNone, AckWait: time.Minute, MaxInFlight: 10, MaxInFlightBytes: 1 << 20, Member: "m"})
	last := make(chan struct{})
	var mu sync.Mutex
	var got []string
	for _, group := range []string{"all", pubsub.Broadcast} {
		_, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: ">", Group: group}, func(_ context.Context, d *pubsub.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if got = append(got, d.Topic+" "+d.ID); len(got) == 4 && d.ID == "last" {
				close(last)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	publish(t, b, "gone", "first")
	settle(t, src, pubsub.Settlement{Token: recv(t, src, 1)[0].Token, As: pubsub.SettleRetryIn, Delay: 500 * time.Millisecond, Failed: 1})
	if err := src.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := src.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.must(t, func(ch *amqp.Channel) error { _, err := ch.QueueDelete("gone__g", false, false, false); return err })
	if err := b.Publish(t.Context(), "gone", pubsub.Message{ID: "last", Delay: time.Second}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-last:
	case <-time.After(soon):
	}
	mu.Lock()
	defer mu.Unlock()
	for _, m := range got {
		if m != "gone first" && m != "gone last" {
			t.Errorf("%q came", m)
		}
	}
	if len(got) != 4 {
		t.Errorf("%q came, want both messages twice", got)
	}
}
