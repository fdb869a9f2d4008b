package programs_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Topics and their groups exist before the first publish, so nothing is lost; one publisher may lose messages, by choice.
func Example_topology() {
	ctx := context.Background()
	b, err := pubsub.Mux{memory.Opener()}.Open(ctx, "mem://", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	err = b.Ensure(ctx, pubsub.Topology{
		Topics: []pubsub.TopicSpec{{Name: "cpu"}, {Name: "orders"}},
		Groups: []pubsub.Subscription{{Topic: "orders", Group: "billing"}},
	})
	if err != nil {
		log.Fatal(err)
	}

	metrics, err := b.Publisher(pubsub.PublisherOptions{Ack: pubsub.AckNone}) // may be lost, by choice, here only
	if err != nil {
		log.Fatal(err)
	}
	metrics.PublishAsync(ctx, "cpu", pubsub.Message{Payload: []byte("0.93")}, nil)
	if err := metrics.Flush(ctx); err != nil {
		log.Fatal(err)
	}

	if err := b.Publish(ctx, "orders", pubsub.Message{Payload: []byte("{}")}); err != nil { // as durable as ever
		log.Fatal(err)
	}
	lag, err := b.Lag(ctx, "orders", "billing")
	fmt.Println(lag.Messages, "for billing,", err)

	// nobody made this one
	err = b.Publish(ctx, "invoices", pubsub.Message{})
	fmt.Println(errors.Is(err, pubsub.ErrUnroutable))
	// Output:
	// 1 for billing, <nil>
	// true
}

// A service says what it needs: a swap of brokers that would break it fails at the start, and says why.
func Example_require() {
	_, err := pubsub.Mux{memory.Opener()}.Open(context.Background(), "mem://", &pubsub.Options{
		Require: pubsub.Capabilities{Schedule: true, History: true, Durability: pubsub.Disk},
	})
	fmt.Println(errors.Is(err, pubsub.ErrUnsupported))

	b := memory.New(nil)
	defer b.Close()
	if b.Capabilities().Schedule { // or it asks first
		fmt.Println("reminders on")
	}
	// Output:
	// true
	// reminders on
}

// A message for tomorrow is not delivered today: in virtual time a test need not wait for it.
func TestReminder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		running, stop := context.WithCancel(ctx)
		b := memory.New(nil)
		defer b.Close()
		published := time.Now()
		var late time.Duration
		remind := func(context.Context, *pubsub.Delivery) error {
			late = time.Since(published)
			stop()
			return nil
		}
		if _, err := b.Subscribe(running, pubsub.Subscription{Topic: "reminders", Group: "phone"}, remind); err != nil {
			t.Fatal(err)
		}
		err := b.Publish(ctx, "reminders", pubsub.Message{Payload: []byte("call Ann"), Delay: 24 * time.Hour})
		switch {
		case errors.Is(err, pubsub.ErrUnsupported):
			t.Fatal("memory has delays: ", err)
		case err != nil:
			t.Fatal(err)
		}
		if err := b.Run(running); err != nil {
			t.Fatal(err)
		}
		if late < 24*time.Hour || late > 24*time.Hour+time.Second {
			t.Errorf("delivered after %v", late)
		}
	})
}
