package nats_test

import (
	"context"
	"fmt"
	"log"

	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// The smallest program. It needs a broker: `make brokers-up` starts one, and the examples of package pubsub run without.
func Example() {
	ctx := context.Background()
	b, err := nats.Open(ctx, "nats://127.0.0.1:4222", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	running, stop := context.WithCancel(ctx)
	greet := func(_ context.Context, d *pubsub.Delivery) error {
		defer stop()
		fmt.Printf("hello, %s\n", d.Payload)
		return nil // acked
	}
	if _, err := b.Subscribe(running, pubsub.Subscription{Topic: "names", Group: "greeter"}, greet); err != nil {
		log.Fatal(err)
	}
	if err := b.Publish(ctx, "names", pubsub.Message{Payload: []byte("world")}); err != nil {
		log.Fatal(err)
	}
	if err := b.Run(running); err != nil {
		log.Fatal(err)
	}
}

// Three replicas have a message before Publish returns nil.
func ExampleConfig_Open() {
	b, err := nats.Config{
		Servers:  []string{"nats-1:4222", "nats-2:4222"},
		Creds:    "/run/secrets/billing.creds",
		Stream:   "shop",
		Replicas: 3,
	}.Open(context.Background(), &pubsub.Options{Service: "billing"})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	fmt.Println(b.Capabilities().Durability)
}
