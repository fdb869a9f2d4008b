package kafka_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// The smallest program. It needs a broker: `make brokers-up` starts one, and the examples of package pubsub run without.
func Example() {
	ctx := context.Background()
	b, err := kafka.Open(ctx, "kafka://127.0.0.1:9092", nil)
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

// Three replicas, of which two have a message before Publish returns nil.
func ExampleConfig_Open() {
	b, err := kafka.Config{
		Servers:  []string{"kafka-1:9092", "kafka-2:9092"},
		TLS:      true,
		SASL:     "scram-sha-512",
		User:     "billing",
		Password: os.Getenv("KAFKA_PASSWORD"),
		Replicas: 3,
	}.Open(context.Background(), &pubsub.Options{Service: "billing"})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	fmt.Println(b.Capabilities().Durability)
}
