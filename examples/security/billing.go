package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// billing is the service that verifies, decrypts and bills orders.
type billing struct {
	broker *pubsub.Broker

	mu       sync.Mutex
	bills    map[string]bool  // by order
	byKey    map[string]int   // bills, by the key that the order was signed with
	refused  map[string]error // why, by order
	replayed map[string]bool  // what somebody has sent again
}

func openBilling(ctx context.Context, open func(...pubsub.Middleware) (*pubsub.Broker, error), path string) (*billing, error) {
	b := &billing{bills: map[string]bool{}, byKey: map[string]int{}, refused: map[string]error{}, replayed: map[string]bool{}}
	keys, err := security.OpenKeyring(path, security.KeyringOptions{Poll: poll})
	if err != nil {
		return nil, err
	}
	b.broker, err = open(
		security.Sign(security.SignOptions{Keys: keys}),
		security.Replay(security.ReplayOptions{OnReplay: func(d *pubsub.Delivery) { b.note(func() { b.replayed[d.ID] = true }) }}),
		security.Encrypt(security.EncryptOptions{Unwrap: []security.KMS{keys.KMS("")}}),
	)
	if err != nil {
		return nil, err
	}
	_, err = b.broker.Subscribe(ctx, pubsub.Subscription{
		Topic: topic, Group: "billing",
		DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(d *pubsub.Delivery, err error) { b.note(func() { b.refused[d.ID] = err }) }},
	}, b.bill)
	if err != nil {
		_ = b.broker.Close() // the first error tells more
		return nil, err
	}
	return b, nil
}

// bill gets what was verified and decrypted, and nothing else.
func (b *billing) bill(ctx context.Context, d *pubsub.Delivery) error {
	from, _ := security.From(ctx)
	if from.Producer != "orders" || string(d.Payload) != text {
		return pubsub.Permanent(fmt.Errorf("an order of %q that says %q", from.Producer, d.Payload))
	}
	b.note(func() {
		b.bills[d.ID] = true
		b.byKey[from.Key]++
	})
	return nil
}

func (b *billing) note(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *billing) count() (n int) {
	b.note(func() { n = len(b.bills) })
	return n
}

// until waits for what b has noted, until ctx ends.
func (b *billing) until(ctx context.Context, holds func() bool) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		done := false
		b.note(func() { done = holds() })
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			b.mu.Lock()
			defer b.mu.Unlock()
			return fmt.Errorf("%w: %d billed, refused: %v", ctx.Err(), len(b.bills), b.refused)
		case <-tick.C:
		}
	}
}
