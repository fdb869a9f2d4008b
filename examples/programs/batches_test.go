package programs_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

type Click struct {
	User, URL string
	At        time.Time
}

var click = pubsub.Typed[Click]{Key: func(c Click) string { return c.User }}

// Batches: one insert for many messages, or a verdict for each message of a batch.
func Example_batches() {
	ctx := context.Background()
	running, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	b := memory.New(nil)
	defer b.Close()

	const clicks = 1000
	var inserted, batches, indexed, failures atomic.Int32
	finish := func() {
		if inserted.Load() == clicks && indexed.Load() == clicks {
			stop()
		}
	}
	insertAll := func(_ context.Context, cs []Click, _ []*pubsub.Delivery) error {
		batches.Add(1)
		inserted.Add(int32(len(cs)))
		finish()
		return nil // one COPY; an error: all are tried again
	}
	_, err := b.SubscribeBatch(running,
		pubsub.Subscription{Topic: "clicks", Group: "warehouse", Order: pubsub.OrderNone}, // by key a batch has one message of each
		pubsub.Batch{Max: 1000, Wait: 200 * time.Millisecond},
		click.BatchHandler(insertAll))
	if err != nil {
		log.Fatal(err)
	}

	// or message by message:
	index := func(_ context.Context, d *pubsub.Delivery) error {
		if d.Attempt == 1 && d.Key == "user-7" {
			failures.Add(1)
			return pubsub.RetryAfter(time.Millisecond, errors.New("index is being moved"))
		}
		indexed.Add(1)
		return nil
	}
	indexEach := func(ctx context.Context, batch []*pubsub.Delivery) error {
		errs := make([]error, len(batch))
		for i, d := range batch {
			errs[i] = index(ctx, d)
		}
		finish()
		return &pubsub.BatchError{Errs: errs} // all nil: all acked
	}
	_, err = b.SubscribeBatch(running, pubsub.Subscription{Topic: "clicks", Group: "search"}, pubsub.Batch{}, indexEach)
	if err != nil {
		log.Fatal(err)
	}

	msgs := make([]pubsub.Message, clicks)
	for i := range msgs {
		msgs[i], err = click.Message(Click{User: fmt.Sprint("user-", i%100), URL: "/"})
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := b.PublishBatch(ctx, "clicks", msgs); err != nil {
		log.Fatal(err)
	}
	if err := b.Run(running); err != nil {
		log.Fatal(err)
	}
	fmt.Println(inserted.Load(), "inserted, in batches:", batches.Load() < clicks/10)
	fmt.Println(indexed.Load(), "indexed,", failures.Load(), "of them in the second attempt")
	// Output:
	// 1000 inserted, in batches: true
	// 1000 indexed, 10 of them in the second attempt
}
