// Command adapter uses an adapter of one's own, package files beside it, as an outbox: orders are stored in a folder, whether the broker
// is there or not, and a handler moves them to it. The second half is another process, which finds them in the folder.
//
//	go run ./examples/adapter
//	BROKER_URL=nats://127.0.0.1:4222 go run ./examples/adapter
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/examples/adapter/files"
	"github.com/omnibus-go/omnibus/pubsub"
)

func main() {
	if err := run(context.Background(), cmp.Or(os.Getenv("BROKER_URL"), "mem://")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url string) (err error) {
	dir, err := os.MkdirTemp("", "outbox")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := order(ctx, dir); err != nil {
		return err
	}
	return forward(ctx, dir, url)
}

// The adapter has no exclusive groups: where several processes forwarded, each would keep a key's order among what it gets. The zero Order
// promises more, and is refused.
var outbox = pubsub.Subscription{Topic: "orders", Group: "forwarder", Order: pubsub.OrderPerMember}

// order is the process that takes orders. It does not know the broker.
func order(ctx context.Context, dir string) (err error) {
	b, err := pubsub.New(ctx, files.NewBus(dir).Driver(), &pubsub.Options{
		Require: pubsub.Capabilities{Durability: pubsub.Process, Redelivery: true}, // of an adapter of one's own, too
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := b.Ensure(ctx, pubsub.Topology{Groups: []pubsub.Subscription{outbox}}); err != nil {
		return err
	}
	for _, id := range []string{"o-1", "o-2", "o-3"} {
		if err := b.Publish(ctx, outbox.Topic, pubsub.Message{ID: id, Key: "ann", Payload: []byte("tea")}); err != nil {
			return err
		}
	}
	stored, err := os.ReadDir(dir)
	fmt.Println("3 orders in the folder, topics there:", len(stored))
	return err
}

// forward is the process that moves them, and here it also receives them at the other end.
func forward(ctx context.Context, dir, url string) (err error) {
	running, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	from, err := pubsub.New(ctx, files.NewBus(dir).Driver(), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := brokers.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()

	var n atomic.Int32
	_, err = to.Subscribe(running, pubsub.Subscription{Topic: "outbox-orders", Group: "shop"}, func(_ context.Context, d *pubsub.Delivery) error {
		fmt.Printf("arrived: %s of %s, %s\n", d.ID, d.Key, d.Payload)
		if n.Add(1) == 3 {
			stop()
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = from.Subscribe(running, outbox, func(ctx context.Context, d *pubsub.Delivery) error {
		return to.Publish(ctx, "outbox-orders", d.Message) // acked in the folder once the broker has confirmed it, else tried again
	})
	if err != nil {
		return err
	}
	return errors.Join(from.Run(running), to.Run(running))
}
