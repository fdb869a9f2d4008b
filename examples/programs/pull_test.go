package programs_test

import (
	"context"
	"fmt"
	"log"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Pulling: a loop takes what it wants and stops.
func Example_pull() {
	ctx := context.Background()
	b := memory.New(nil)
	defer b.Close()
	audits := pubsub.Subscription{Topic: "orders", Group: "audit"}
	if err := b.Ensure(ctx, pubsub.Topology{Groups: []pubsub.Subscription{audits}}); err != nil {
		log.Fatal(err)
	}
	msgs := make([]pubsub.Message, 101)
	for i := range msgs {
		msgs[i].Payload = []byte(fmt.Sprint("order ", i+1))
	}
	if err := b.PublishBatch(ctx, "orders", msgs); err != nil {
		log.Fatal(err)
	}

	if err := firstHundred(ctx, b, audits); err != nil {
		log.Fatal(err)
	}
	lag, err := b.Lag(ctx, "orders", "audit")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(lag.Messages, "left")

	orders, err := b.Receive(ctx, audits)
	if err != nil {
		log.Fatal(err)
	}
	for lease, err := range orders {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s, attempt %d\n", lease.Payload, lease.Attempt)
		break // hands it back: it was not settled
	}
	// Output:
	// 1 left
	// order 101, attempt 1
}

// firstHundred works off a hundred orders and stops; the 101st stays where it is.
func firstHundred(ctx context.Context, s pubsub.Subscriber, sub pubsub.Subscription) error {
	orders, err := s.Receive(ctx, sub)
	if err != nil {
		return err
	}
	n := 0
	for lease, err := range orders {
		if err != nil {
			return err // terminal: denied, topic deleted; reconnects are not seen here
		}
		if err := lease.Settle(ctx, audit(lease.Context(), lease.Delivery)); err != nil {
			return err
		}
		if n++; n == 100 {
			break // drains
		}
	}
	return nil
}

func audit(context.Context, *pubsub.Delivery) error { return nil }
