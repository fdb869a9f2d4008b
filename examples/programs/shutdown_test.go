package programs_test

import (
	"context"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A clean stop: fetching ends, running handlers finish and are acked, what was only buffered is handed back and charged no attempt.
// A service gets its ctx from signal.NotifyContext.
func Example_shutdown() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	b := memory.New(&pubsub.Options{DrainTimeout: 20 * time.Second})
	defer b.Close() // publishers last: handlers and HTTP can publish to the end

	billing := pubsub.Subscription{Topic: "orders", Group: "billing"}
	started := make(chan struct{})
	var handled atomic.Int32
	bill := func(ctx context.Context, d *pubsub.Delivery) error {
		if handled.Add(1) == 1 {
			stop() // as SIGTERM would, in the middle of a handler
			close(started)
		}
		time.Sleep(10 * time.Millisecond) // work, cut short by nothing:
		return ctx.Err()                  // a handler's ctx stays alive until the drain's deadline
	}
	if _, err := b.Subscribe(ctx, billing, bill); err != nil {
		log.Fatal(err)
	}
	msgs := make([]pubsub.Message, 100)
	if err := b.PublishBatch(context.Background(), "orders", msgs); err != nil {
		log.Fatal(err)
	}
	<-started
	if err := b.Run(ctx); err != nil {
		log.Fatal(err)
	}

	// the next process goes on where this one stopped
	first := handled.Load()
	ctx, stop = context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	var attempts atomic.Int32
	rest := func(_ context.Context, d *pubsub.Delivery) error {
		attempts.Store(max(attempts.Load(), int32(d.Attempt)))
		if handled.Add(1) == 100 {
			stop()
		}
		return nil
	}
	if _, err := b.Subscribe(ctx, billing, rest); err != nil {
		log.Fatal(err)
	}
	if err := b.Run(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(first < 100, handled.Load(), "handled, highest attempt", attempts.Load())
	// Output: true 100 handled, highest attempt 1
}
