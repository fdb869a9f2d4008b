// Command orders is a service whose messaging is one file: omnibus.yaml says which broker it is, who consumes what, and how failures
// are handled. The program has the handlers, and is the same on every broker.
//
//	go run ./examples/orders examples/orders/omnibus.yaml
//	BROKER_URL=nats://127.0.0.1:4222 go run ./examples/orders examples/orders/omnibus.yaml
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/pubsub"
)

// An Order is what the shop publishes.
type Order struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Cents    int64  `json:"cents"`
}

var orderPlaced = pubsub.Typed[Order]{
	Type: "order.placed",
	Key:  func(o Order) string { return o.Customer },
}

var errDeclined = errors.New("card declined")

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: orders omnibus.yaml")
	}
	if err := run(context.Background(), os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, file string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	// Six outcomes end this example; a service has none of this, and runs until SIGTERM.
	var left atomic.Int32
	left.Store(6)
	done := func() {
		if left.Add(-1) == 0 {
			stop()
		}
	}

	svc, err := config.Open(ctx, file, brokers.All(), &config.Options{
		// what the file calls "declined"
		Failures: map[string]func(error) bool{"declined": func(err error) bool { return errors.Is(err, errDeclined) }},
		// what a file cannot say
		Adjust: func(name string, sub *pubsub.Subscription) {
			sub.DeadLetter.OnDeadLetter = func(d *pubsub.Delivery, err error) {
				fmt.Printf("%s gave up %s: %v (%s)\n", name, d.ID, err, pubsub.CategoryOf(err))
				done()
			}
		},
	})
	if err != nil {
		return err // all that is wrong with the file, each with its line
	}

	bill := func(_ context.Context, o Order, d *pubsub.Delivery) error {
		if err := charge(o, d.Attempt); err != nil {
			return err // a timeout is retried, a declined card is not: the file says so
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

	// The topic and its groups are at the broker by now: what is published before Serve is not lost.
	for _, o := range []Order{{"o-1", "ann", 1999}, {"o-2", "bob", 4200}, {"o-3", "cyd", 0}} {
		m, err := orderPlaced.Message(o)
		if err != nil {
			return err
		}
		m.ID = o.ID
		if err := svc.Broker().Publish(ctx, "orders", m); err != nil {
			return errors.Join(err, svc.Close())
		}
	}
	return svc.Serve(ctx, config.Handlers{"billing": orderPlaced.Handler(bill), "shipping": orderPlaced.Handler(ship)})
}

// charge stands for a payment gateway: it is late once, and takes no card for nothing.
func charge(o Order, attempt int) error {
	switch {
	case o.ID == "o-2" && attempt == 1:
		return os.ErrDeadlineExceeded
	case o.Cents == 0:
		return errDeclined
	}
	return nil
}
