package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Layers are listed once, from the wire inwards: what is published passes them bottom up, what is received top down. An order that would do harm is
// refused.
func Example() {
	ctx := context.Background()
	running, stop := context.WithCancel(ctx)
	b, err := pubsub.Mux{memory.Opener()}.Open(ctx, "mem://", &pubsub.Options{Use: []pubsub.Middleware{
		middleware.Validate(map[string]func(*pubsub.Message) error{"order": func(m *pubsub.Message) error {
			if len(m.Payload) == 0 {
				return errors.New("it is empty")
			}
			return nil
		}}),
		middleware.Poison(middleware.PoisonOptions{}),
		middleware.Breaker(middleware.BreakerOptions{}),
		middleware.Dedup(middleware.DedupOptions{OnDrop: func(d *pubsub.Delivery) {
			fmt.Println("dropped", d.ID)
			stop()
		}}),
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	bill := func(_ context.Context, d *pubsub.Delivery) error {
		fmt.Println("billed", d.ID)
		return nil
	}
	if _, err := b.Subscribe(running, pubsub.Subscription{Topic: "orders", Group: "billing"}, bill); err != nil {
		log.Fatal(err)
	}
	order := pubsub.Message{ID: "o-1", Type: "order", Payload: []byte("tea")}
	for _, m := range []pubsub.Message{{ID: "o-0", Type: "order"}, order, order} { // somebody sends it twice
		if err := b.Publish(ctx, "orders", m); err != nil {
			fmt.Println(err)
		}
	}
	if err := b.Run(running); err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// pubsub: publish "orders" on memory: refused by middleware: validate: it is empty
	// billed o-1
	// dropped o-1
}
