package programs_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

type Order struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Cents    int64  `json:"cents"`
}

var orderPlaced = pubsub.Typed[Order]{
	Type: "order.placed",
	Key:  func(o Order) string { return o.Customer },
}

var (
	errCardDeclined = errors.New("card declined")
	errRateLimited  = errors.New("gateway: rate limited")
)

// Two services want every order. Billing retries what may succeed later, waits when its partner asks for it, and gives up on what
// cannot succeed: that is kept in the dead letters.
func Example_orders() {
	ctx := context.Background()
	running, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()

	b, err := pubsub.Mux{memory.Opener()}.Open(ctx, "mem://", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	var left atomic.Int32 // of what this example waits for
	left.Store(6)
	done := func() {
		if left.Add(-1) == 0 {
			stop()
		}
	}

	gateway := &gateway{}
	billing := pubsub.Subscription{
		Topic:       "orders",
		Group:       "billing",
		Concurrency: 16, // one customer's orders still one after the other
		Retry:       pubsub.Policy{MaxAttempts: 20, Max: 10 * time.Minute},
		Rules: []pubsub.Rule{{
			When:  isTimeout,
			Retry: pubsub.Policy{Name: "timeout", MaxAttempts: 20, Immediate: 2, Initial: 100 * time.Millisecond},
		}},
		// out of attempts: the group's dead letters
		DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(*pubsub.Delivery, error) { done() }},
	}
	bill := func(ctx context.Context, o Order, d *pubsub.Delivery) error {
		switch err := gateway.charge(ctx, o); {
		case errors.Is(err, errCardDeclined):
			return pubsub.Permanent(err) // dead letters, now
		case errors.Is(err, errRateLimited):
			return pubsub.Pause(30*time.Millisecond, err) // not this message's fault
		case err != nil:
			return err // retried by the policy
		}
		fmt.Printf("billed %s in attempt %d\n", o.ID, d.Attempt)
		done()
		return nil // acked
	}
	if _, err := b.Subscribe(running, billing, orderPlaced.Handler(bill)); err != nil {
		log.Fatal(err)
	}
	shipping := pubsub.Subscription{Topic: "orders", Group: "shipping"}
	ship := func(_ context.Context, o Order, _ *pubsub.Delivery) error {
		fmt.Println("shipped", o.ID)
		done()
		return nil
	}
	if _, err := b.Subscribe(running, shipping, orderPlaced.Handler(ship)); err != nil {
		log.Fatal(err)
	}

	for _, o := range []Order{{"o-1", "c-42", 1999}, {"o-2", "c-42", 0}, {"o-3", "c-7", 500}} {
		if err := orderPlaced.Publish(ctx, b, "orders", o); err != nil {
			log.Fatal(err)
		}
	}
	if err := b.Run(running); err != nil { // until it ends, for a service by SIGTERM; then drains
		log.Fatal(err)
	}

	dead := pubsub.Place{Topic: "orders", Group: "billing", Kind: pubsub.PlaceDead}
	for rec, err := range b.Browse(ctx, dead, pubsub.Position{}) { // looks, takes nothing away
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("kept %s: %s, %s\n", rec.Msg.Payload, rec.Msg.Headers.Get("omnibus-dlq-reason"), rec.Msg.Headers.Get("omnibus-dlq-error"))
	}
	// Unordered output:
	// shipped o-1
	// shipped o-2
	// shipped o-3
	// billed o-1 in attempt 3
	// billed o-3 in attempt 1
	// kept {"id":"o-2","customer":"c-42","cents":0}: permanent, card declined
}

// gateway times out twice on o-1, declines free orders and is rate limited on the first sight of o-3.
type gateway struct{ timeouts, limits atomic.Int32 }

func (g *gateway) charge(_ context.Context, o Order) error {
	switch {
	case o.ID == "o-1" && g.timeouts.Add(1) <= 2:
		return &net.DNSError{Err: "slow", IsTimeout: true}
	case o.Cents == 0:
		return errCardDeclined
	case o.ID == "o-3" && g.limits.Add(1) == 1:
		return errRateLimited
	}
	return nil
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}
