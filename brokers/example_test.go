package brokers_test

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A service that runs on any broker: BROKER_URL=nats://localhost:4222 moves it there.
func ExampleOpen() {
	ctx := context.Background()
	b, err := brokers.Open(ctx, cmp.Or(os.Getenv("BROKER_URL"), "mem://"), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()

	running, stop := context.WithCancel(ctx)
	greet := func(_ context.Context, d *pubsub.Delivery) error {
		defer stop()
		fmt.Printf("hello, %s\n", d.Payload)
		return nil
	}
	if _, err := b.Subscribe(running, pubsub.Subscription{Topic: "names", Group: "greeter"}, greet); err != nil {
		fmt.Println(err)
		return
	}
	if err := b.Publish(ctx, "names", pubsub.Message{Payload: []byte("world")}); err != nil {
		fmt.Println(err)
		return
	}
	if err := b.Run(running); err != nil {
		fmt.Println(err)
	}
	// Output: hello, world
}
