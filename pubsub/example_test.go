package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Subscribe, publish, stop. Another broker is another opener: the rest stays.
func Example() {
	ctx := context.Background()
	running, stop := context.WithCancel(ctx) // of a service: signal.NotifyContext
	b, err := pubsub.Mux{memory.Opener()}.Open(ctx, "mem://", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	bill := func(_ context.Context, d *pubsub.Delivery) error {
		defer stop()
		fmt.Printf("billed %s of %s\n", d.Payload, d.Key)
		return nil // acked
	}
	if _, err := b.Subscribe(running, pubsub.Subscription{Topic: "orders", Group: "billing"}, bill); err != nil {
		log.Fatal(err)
	}
	if err := b.Publish(ctx, "orders", pubsub.Message{Key: "c-42", Payload: []byte("o-1")}); err != nil {
		log.Fatal(err) // the broker has not accepted it
	}
	if err := b.Run(running); err != nil { // until running ends; then it drains
		log.Fatal(err)
	}
	// Output: billed o-1 of c-42
}

// A handler's error says what becomes of the message; what says nothing is retried by the first rule that matches, else by the policy.
func ExampleSubscription() {
	errDeclined, errSlow := errors.New("card declined"), errors.New("gateway timed out")
	ctx := context.Background()
	running, stop := context.WithCancel(ctx)
	b := memory.New(nil)
	defer b.Close()

	sub := pubsub.Subscription{
		Topic: "orders", Group: "billing", Concurrency: 16, // the orders of one key still one after the other
		Retry: pubsub.Policy{MaxAttempts: 20, Initial: time.Minute},
		Rules: []pubsub.Rule{{
			Category: "timeout",
			When:     func(err error) bool { return errors.Is(err, errSlow) },
			Retry:    pubsub.Policy{MaxAttempts: 3, Delays: []time.Duration{time.Millisecond}},
		}},
		DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(d *pubsub.Delivery, err error) {
			fmt.Printf("kept %s after attempt %d: %v\n", d.Payload, d.Attempt, err)
			if string(d.Payload) == "o-2" {
				stop()
			}
		}},
	}
	_, err := b.Subscribe(running, sub, func(_ context.Context, d *pubsub.Delivery) error {
		if string(d.Payload) == "o-1" {
			return pubsub.Permanent(errDeclined) // to the dead letters now
		}
		return errSlow
	})
	if err != nil {
		log.Fatal(err)
	}
	msgs := []pubsub.Message{{Key: "c-42", Payload: []byte("o-1")}, {Key: "c-42", Payload: []byte("o-2")}}
	if err := b.PublishBatch(ctx, "orders", msgs); err != nil {
		log.Fatal(err)
	}
	if err := b.Run(running); err != nil {
		log.Fatal(err)
	}
	// Output:
	// kept o-1 after attempt 1: card declined
	// kept o-2 after attempt 3: gateway timed out
}

// A Go type is bound to its messages once, for both directions.
func ExampleTyped() {
	type order struct {
		Customer string
		Cents    int
	}
	orders := pubsub.Typed[order]{Type: "order.placed", Key: func(o order) string { return o.Customer }}

	ctx := context.Background()
	running, stop := context.WithCancel(ctx)
	b := memory.New(nil)
	defer b.Close()
	bill := func(_ context.Context, o order, d *pubsub.Delivery) error {
		defer stop()
		fmt.Println(d.Type, d.Key, o.Cents)
		return nil
	}
	if _, err := b.Subscribe(running, pubsub.Subscription{Topic: "orders", Group: "billing"}, orders.Handler(bill)); err != nil {
		log.Fatal(err)
	}
	if err := orders.Publish(ctx, b, "orders", order{"c-42", 1999}); err != nil {
		log.Fatal(err)
	}
	if err := b.Run(running); err != nil {
		log.Fatal(err)
	}
	// Output: order.placed c-42 1999
}

// Every error has a code, and most say what to do.
func ExampleError() {
	b := memory.New(nil)
	defer b.Close()
	err := b.Publish(context.Background(), "orders", pubsub.Message{})
	fmt.Println(errors.Is(err, pubsub.ErrUnroutable), pubsub.CodeOf(err))
	// Output: true unroutable
}

// With BlockKey the later messages of a key wait among the dead letters, in order, until what came before them is handled; other keys go on.
func ExampleAfterDeadLetter() {
	ctx := context.Background()
	b := memory.New(nil)
	defer b.Close()

	var mended atomic.Bool
	came := make(chan string)
	sub := pubsub.Subscription{Topic: "accounts", Group: "ledger", AfterDeadLetter: pubsub.BlockKey}
	c, err := b.Subscribe(ctx, sub, func(_ context.Context, d *pubsub.Delivery) error {
		if string(d.Payload) == "open" && d.Key == "c-1" && !mended.Load() {
			return pubsub.Permanent(errors.New("no such currency"))
		}
		came <- d.Key + ": " + string(d.Payload)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, m := range []pubsub.Message{{Key: "c-1", Payload: []byte("open")}, {Key: "c-1", Payload: []byte("pay in 10")}, {Key: "c-2", Payload: []byte("open")}} {
		if err := b.Publish(ctx, "accounts", m); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(<-came)
	for lag, err := c.Lag(ctx); lag.Messages > 0 && err == nil; lag, err = c.Lag(ctx) { // until the group is done with all of them
		time.Sleep(time.Millisecond)
	}
	fmt.Println(c.State().BlockedKeys, "key is blocked")
	mended.Store(true)
	if _, err := dlq.Open(b, "accounts", "ledger").Replay(ctx, dlq.Filter{}, dlq.Replay{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-came)
	fmt.Println(<-came)
	// Output:
	// c-2: open
	// 1 key is blocked
	// c-1: open
	// c-1: pay in 10
}
