package programs_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// An operator looks at what billing has given up, and replays what timed out: the gateway answers again.
func Example_deadLetters() {
	ctx := context.Background()
	b, err := pubsub.Mux{memory.Opener()}.Open(ctx, "mem://", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	gateway := &slowGateway{}
	gaveUp, billed := make(chan struct{}, 10), make(chan string, 10)
	giveUp(ctx, b, gateway, gaveUp, billed)
	gateway.answers.Store(true)

	q := dlq.Open(b, "orders", "billing")

	groups, err := q.Groups(ctx, dlq.Filter{})
	if err != nil {
		log.Fatal(err)
	}
	for _, g := range groups {
		fmt.Printf("%6d  %s  %s\n", g.Count, g.Reason, g.Error)
	}

	timeouts := dlq.Filter{Category: "timeout", Since: time.Now().Add(-24 * time.Hour)}
	for rec, err := range q.List(ctx, timeouts) { // looks, takes nothing away
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(rec.Message.ID, rec.Message.Key, rec.Attempts, rec.Error)
	}

	rep, err := q.Replay(ctx, timeouts, dlq.Replay{
		Rate: 100,
		Progress: func(done, total int) {
			if done == total { // a terminal would see every step
				fmt.Printf("%d/%d\n", done, total)
			}
		},
	})
	if err != nil {
		log.Fatal(err) // nothing is lost; Plan and Run go on where they were
	}
	fmt.Printf("%d replayed, %d skipped, %d failed\n", rep.Replayed, rep.Skipped, rep.Failed)
	fmt.Println("billed", <-billed, <-billed)
	// Output:
	//      2  max-attempts  lookup gateway: i/o timeout
	//      1  permanent  card declined
	// o-1 c-42 2 lookup gateway: i/o timeout
	// o-3 c-7 2 lookup gateway: i/o timeout
	// 2/2
	// 2 replayed, 0 skipped, 0 failed
	// billed o-1 o-3
}

// giveUp runs billing until it has given up three orders: two time out, one card is declined.
func giveUp(ctx context.Context, b *pubsub.Broker, g *slowGateway, gaveUp chan struct{}, billed chan<- string) {
	billing := pubsub.Subscription{
		Topic: "orders", Group: "billing",
		Rules: []pubsub.Rule{{
			Category: "timeout", When: isTimeout,
			Retry: pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{time.Millisecond}},
		}},
		DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(*pubsub.Delivery, error) { gaveUp <- struct{}{} }},
	}
	bill := func(_ context.Context, o Order, _ *pubsub.Delivery) error {
		if err := g.charge(o); err != nil {
			return err
		}
		billed <- o.ID
		return nil
	}
	if _, err := b.Subscribe(ctx, billing, orderPlaced.Handler(bill)); err != nil {
		log.Fatal(err)
	}
	for _, o := range []Order{{"o-1", "c-42", 1999}, {"o-2", "c-42", 0}, {"o-3", "c-7", 500}} {
		m, err := orderPlaced.Message(o)
		if err != nil {
			log.Fatal(err)
		}
		m.ID = o.ID
		if err := b.Publish(ctx, "orders", m); err != nil {
			log.Fatal(err)
		}
		<-gaveUp
	}
}

// slowGateway times out until it answers, and declines free orders.
type slowGateway struct{ answers atomic.Bool }

func (g *slowGateway) charge(o Order) error {
	switch {
	case o.Cents == 0:
		return pubsub.Permanent(errCardDeclined)
	case !g.answers.Load():
		return &net.DNSError{Err: "i/o timeout", Name: "gateway", IsTimeout: true}
	}
	return nil
}
