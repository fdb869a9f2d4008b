package config_test

import (
	"context"
	"fmt"
	"log"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/pubsub"
)

const file = `
broker: ${env:BROKER_URL:-mem://shop}
subscriptions:
  billing: {topic: orders, concurrency: 16, retry: {max_attempts: 20}}
`

// The file says which broker it is and how failures are handled, the program has the handlers. Open reads a file; here it is in the program.
func Example() {
	ctx, stop := context.WithCancel(context.Background()) // of a service: signal.NotifyContext
	cfg, err := config.Parse("omnibus.yaml", []byte(file), &config.Options{Env: func(string) (string, bool) { return "", false }})
	if err != nil {
		log.Fatal(err) // all that is wrong, line by line
	}
	svc, err := cfg.Open(ctx, brokers.All())
	if err != nil {
		log.Fatal(err)
	}
	if err := svc.Broker().Publish(ctx, "orders", pubsub.Message{Payload: []byte("o-1")}); err != nil {
		log.Fatal(err)
	}
	err = svc.Serve(ctx, config.Handlers{"billing": func(_ context.Context, d *pubsub.Delivery) error {
		defer stop()
		fmt.Printf("billed %s\n", d.Payload)
		return nil
	}})
	fmt.Println(err)
	// Output:
	// billed o-1
	// <nil>
}

// What is wrong is said before anything is connected to.
func ExampleParse() {
	_, err := config.Parse("omnibus.yaml", []byte("broker: mem://shop\nsubscriptions:\n  billing: {topic: orders, concurency: 16}\n"), nil)
	fmt.Println(err)
	// Output:
	// omnibus.yaml:3: subscriptions.billing: unknown key "concurency"; did you mean "concurrency"?
}
