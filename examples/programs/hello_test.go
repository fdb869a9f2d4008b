// Package programs_test holds whole programs, each as an example that is run: what a service does with the library, task by
// task. They use the broker in the process; with another one only the line that opens it changes.
package programs_test

import (
	"context"
	"fmt"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// The smallest program: subscribe, publish, stop.
func Example_hello() {
	ctx := context.Background()
	running, stop := context.WithCancel(ctx)
	b := memory.New(nil)
	defer b.Close()
	greet := func(_ context.Context, d *pubsub.Delivery) error {
		defer stop()
		fmt.Printf("%s\n", d.Payload)
		return nil // acked
	}
	if _, err := b.Subscribe(running, pubsub.Subscription{Topic: "greetings", Group: "hello"}, greet); err != nil {
		panic(err)
	}
	if err := b.Publish(ctx, "greetings", pubsub.Message{Payload: []byte("hello, world")}); err != nil {
		panic(err)
	}
	if err := b.Run(running); err != nil { // until stop is called, and what runs has finished
		panic(err)
	}
	// Output: hello, world
}
