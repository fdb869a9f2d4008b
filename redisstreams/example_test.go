package redisstreams_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// The smallest program. It needs a broker: `make brokers-up` starts one, and the examples of package pubsub run without.
func Example() {
	ctx := context.Background()
	b, err := redisstreams.Open(ctx, "redis://127.0.0.1:6379/0", nil)
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

// A cluster, of which one replica has a message before Publish returns nil.
func ExampleConfig_Open() {
	b, err := redisstreams.Config{
		Servers:  []string{"redis-1:6379", "redis-2:6379"},
		Cluster:  true,
		User:     "billing",
		Password: os.Getenv("REDIS_PASSWORD"),
		Wait:     1,
	}.Open(context.Background(), &pubsub.Options{Service: "billing"})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	fmt.Println(b.Capabilities().Durability)
}
