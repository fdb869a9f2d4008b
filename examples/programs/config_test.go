package programs_test

import (
	"context"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/pubsub"
)

// The same with a file that says which broker it is, and how failures are handled: the program has the handlers.
func Example_config() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute) // a service ends by SIGTERM
	defer stop()

	svc, err := config.Open(ctx, "omnibus.yaml", brokers.All(), nil)
	if err != nil {
		log.Fatal(err) // omnibus.yaml:6: subscriptions.billing: unknown key "concurency"; did you mean "concurrency"?
	}

	var left atomic.Int32
	left.Store(4)
	done := func() {
		if left.Add(-1) == 0 {
			stop()
		}
	}
	gateway := &gateway{}
	bill := func(ctx context.Context, o Order, d *pubsub.Delivery) error {
		if err := gateway.charge(ctx, o); err != nil {
			return err // a timeout is retried by the rule of the file
		}
		fmt.Printf("billed %s in attempt %d\n", o.ID, d.Attempt)
		done()
		return nil
	}
	ship := func(_ context.Context, o Order, _ *pubsub.Delivery) error {
		fmt.Println("shipped", o.ID)
		done()
		return nil
	}

	for _, o := range []Order{{"o-1", "c-42", 1999}, {"o-2", "c-7", 500}} { // the topic and its groups are there
		if err := orderPlaced.Publish(ctx, svc.Broker(), "orders", o); err != nil {
			log.Fatal(err)
		}
	}
	err = svc.Serve(ctx, config.Handlers{"billing": orderPlaced.Handler(bill), "shipping": orderPlaced.Handler(ship)})
	if err != nil {
		log.Fatal(err)
	}
	// Unordered output:
	// shipped o-1
	// shipped o-2
	// billed o-1 in attempt 3
	// billed o-2 in attempt 1
}
