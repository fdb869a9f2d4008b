package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

var (
	errNegative = errors.New("an item has a negative quantity")
	errTotal    = errors.New("the items do not add up to the total")
	errDeclined = errors.New("the card was declined")
	errGateway  = errors.New("the payment gateway timed out")
	errCountry  = errors.New("no carrier delivers to that country")
	errTruck    = errors.New("the truck for large goods is full, the next one comes soon")
)

// A group is one service that wants every order: what it subscribes with and what it does with one.
type group struct {
	sub    pubsub.Subscription
	handle func(ctx context.Context, o Order, d *pubsub.Delivery) error
}

// work subscribes the group, and lets the books know what it makes of this run's orders.
func (g group) work(ctx context.Context, b *pubsub.Broker, id string, books *ledger, a *account) (*pubsub.Consumer, error) {
	g.sub.DeadLetter.OnDeadLetter = func(d *pubsub.Delivery, _ error) {
		if d.Headers.Get(runHeader) == id {
			books.deadLettered(a, d.ID)
		}
	}
	return b.Subscribe(ctx, g.sub, orderPlaced.Handler(func(ctx context.Context, o Order, d *pubsub.Delivery) error {
		if d.Headers.Get(runHeader) != id {
			return nil
		}
		err := g.handle(ctx, o, d)
		books.handled(a, o, d.Attempt, err)
		return err
	}))
}

// groups are short of patience, so that the example ends in seconds: leave out Retry and Rules for delays of 1s to 5min.
func groups(topic string, bank *gateway) []group {
	return []group{{
		sub: pubsub.Subscription{
			Topic:       topic,
			Group:       "billing",
			Concurrency: 16, // one customer's orders still one after the other
			Retry:       pubsub.Policy{MaxAttempts: 3, Initial: 20 * time.Millisecond},
			Rules: []pubsub.Rule{{
				Category: gatewayFailed,
				When:     func(err error) bool { return errors.Is(err, errGateway) },
				Retry:    pubsub.Policy{MaxAttempts: 4, Immediate: 1, Initial: 50 * time.Millisecond},
			}},
		},
		handle: bank.bill,
	}, {
		sub: pubsub.Subscription{
			Topic:       topic,
			Group:       "shipping",
			Concurrency: 4,
		},
		handle: ship,
	}}
}

const gatewayFailed = "gateway" // the category of its failures

// A gateway takes payments.
type gateway struct {
	recovered atomic.Bool // until then some of them time out
}

// bill charges an order. The payment tokens that misbehave are those of a test gateway.
func (bank *gateway) bill(_ context.Context, o Order, d *pubsub.Delivery) error {
	var sum int64
	for _, it := range o.Items {
		if it.Quantity < 0 {
			return pubsub.Permanent(errNegative) // trying again cannot help: dead letters, now
		}
		sum += it.Quantity * it.Cents
	}
	if sum != o.Cents {
		return pubsub.Permanent(errTotal)
	}
	switch {
	case o.Payment == "tok_declined":
		return pubsub.Permanent(errDeclined)
	case o.Payment == "tok_timeout" && !bank.recovered.Load(),
		o.Payment == "tok_timeout_once" && d.Attempt <= 1,
		o.Payment == "tok_timeout_twice" && d.Attempt <= 2:
		return errGateway // tried again by the rule; out of attempts: dead letters
	}
	return nil // acked
}

// ship hands an order to a carrier.
func ship(_ context.Context, o Order, d *pubsub.Delivery) error {
	switch o.Country {
	case "DE", "AT", "CH", "FR", "NL", "DK", "GB", "PL":
	default:
		return pubsub.Permanent(errCountry)
	}
	for _, it := range o.Items {
		if it.SKU == "SOFA-3" && d.Attempt == 1 {
			return pubsub.RetryAfter(30*time.Millisecond, errTruck) // this failure knows when to try again
		}
	}
	return nil
}
