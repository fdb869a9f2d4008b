package memory_test

import (
	"context"
	"fmt"
	"log"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A broker of its own, for a test or a small program.
func Example() {
	ctx := context.Background()
	running, stop := context.WithCancel(ctx)
	b := memory.New(nil)
	defer b.Close()
	greet := func(_ context.Context, d *pubsub.Delivery) error {
		defer stop()
		fmt.Printf("hello, %s\n", d.Payload)
		return nil
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
	// Output: hello, world
}

// A Server is broken on purpose: it stores a message and does not say so. The publisher sends it again, and it is stored once.
func ExampleServer() {
	ctx := context.Background()
	server := memory.NewServer(memory.Config{})
	b, err := server.Open(ctx, nil) // one process of a service; another one opens the same server
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if err := b.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "orders"}}}); err != nil {
		log.Fatal(err)
	}
	server.LoseConfirmations(1)
	fmt.Println(b.Publish(ctx, "orders", pubsub.Message{Payload: []byte("o-1")}))
	for rec, err := range b.Browse(ctx, pubsub.Place{Topic: "orders"}, pubsub.Position{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("stored: %s\n", rec.Msg.Payload)
	}
	// Output:
	// <nil>
	// stored: o-1
}
