package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	late     = 100 // orders that the outage costs
	declined = 20  // orders whose card is declined
	outage   = "outage"
)

var (
	errGateway  = errors.New("the gateway does not answer")
	errDeclined = errors.New("card declined")
)

// A gateway does not answer until it does.
type gateway struct{ answers atomic.Bool }

// billing is the service whose dead letters they are.
type billing struct {
	gateway gateway
	billed  chan string
}

func (s *billing) bill(_ context.Context, d *pubsub.Delivery) error {
	switch {
	case d.Type == "declined":
		return pubsub.Permanent(errDeclined)
	case !s.gateway.answers.Load():
		return errGateway
	}
	s.billed <- d.ID
	return nil
}

// giveUp runs billing, and returns when it has given up every order.
func giveUp(ctx context.Context, b *pubsub.Broker, topic string) (*billing, error) {
	s := &billing{billed: make(chan string, 10*late)}
	var left atomic.Int32
	left.Store(late + declined)
	all := make(chan struct{})
	_, err := b.Subscribe(ctx, pubsub.Subscription{
		Topic: topic, Group: "billing",
		Rules: []pubsub.Rule{{
			Category: outage,
			When:     func(err error) bool { return errors.Is(err, errGateway) },
			Retry:    pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{10 * time.Millisecond}}, // no patience: a service has minutes
		}},
		DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(*pubsub.Delivery, error) {
			if left.Add(-1) == 0 {
				close(all)
			}
		}},
	}, s.bill)
	if err != nil {
		return nil, err
	}
	msgs := make([]pubsub.Message, late+declined)
	for i := range msgs {
		msgs[i] = pubsub.Message{ID: fmt.Sprint("o-", i+1), Key: fmt.Sprint("customer-", i+1), Type: "order"}
		if i >= late {
			msgs[i].Type = "declined"
		}
	}
	msgs[0].Key = "ann"
	if err := b.PublishBatch(ctx, topic, msgs); err != nil {
		return nil, err
	}
	select {
	case <-all:
		return s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%d orders were not given up: %w", left.Load(), ctx.Err())
	}
}
