package rabbitmq_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// The smallest program. It needs a broker: `make brokers-up` starts one, and the examples of package pubsub run without.
func Example() {
	ctx := context.Background()
	b, err := rabbitmq.Open(ctx, "amqp://guest:guest@127.0.0.1:5672", nil)
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

// Nodes are tried in turn; queues have three replicas.
func ExampleConfig_Open() {
	b, err := rabbitmq.Config{
		Servers:  []string{"rabbit-1:5672", "rabbit-2:5672"},
		Vhost:    "shop",
		User:     "billing",
		Password: os.Getenv("RABBITMQ_PASSWORD"),
		Replicas: 3,
	}.Open(context.Background(), &pubsub.Options{Service: "billing"})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	fmt.Println(b.Capabilities().Durability)
}
