// Command security has two services that exchange signed and encrypted messages, gives both of them new keys twice while messages flow, and then lets somebody who
// has the broker but no key try what he can.
//
//	go run ./examples/security
//	BROKER_URL=nats://127.0.0.1:4222 go run ./examples/security
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	topic = "orders.placed"
	text  = "3 apples for Alice"
	poll  = 10 * time.Millisecond // how often keyrings are looked at; the default is 1s
	last  = 3                     // how many keys each service has, one after another
)

func main() {
	if err := run(context.Background(), cmp.Or(os.Getenv("BROKER_URL"), "mem://security")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url string) (err error) {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	dir, err := os.MkdirTemp("", "keys")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	keys := newRings(dir)
	if err := keys.add(1, security.Active); err != nil {
		return err
	}

	mux := brokers.All()
	open := func(layers ...pubsub.Middleware) (*pubsub.Broker, error) {
		return mux.Open(ctx, url, &pubsub.Options{Use: layers})
	}
	billing, err := openBilling(ctx, open, keys.billing.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, billing.broker.Close()) }()
	orders, err := openOrders(open, keys.orders.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, orders.Close()) }()
	thief, err := openThief(ctx, open)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, thief.broker.Close()) }()

	load := begin(ctx, orders)
	if err := billing.until(ctx, func() bool { return billing.byKey["orders-1"] > 10 }); err != nil {
		return err
	}
	fmt.Println("orders are signed with orders-1")
	for n := 2; n <= last; n++ {
		if err := rotate(ctx, keys, billing, n); err != nil {
			return err
		}
	}
	published, err := load.end()
	if err != nil {
		return err
	}
	if err := billing.until(ctx, func() bool { return len(billing.bills) == published }); err != nil {
		return err
	}
	if len(billing.refused) > 0 || len(billing.byKey) != last {
		return fmt.Errorf("refused %v, keys %v", billing.refused, billing.byKey)
	}
	fmt.Println("each order was billed, none was refused")
	return thief.try(ctx, orders, billing)
}

// rotate gives both services new keys, the n-th, while messages flow. `omnibus keys rotate` and `omnibus keys retire` take the same steps.
func rotate(ctx context.Context, keys *rings, billing *billing, n int) error {
	if err := keys.add(n, security.Passive); err != nil { // accepted, and not used yet
		return err
	}
	if err := rest(ctx, 2*poll); err != nil { // until both services have looked at their keyrings
		return err
	}
	if err := keys.set(n-1, security.Passive, n, security.Active); err != nil {
		return err
	}
	next := fmt.Sprintf("orders-%d", n)
	// Orders are billed one after another: those before the first with the new keys are billed, too. It is signed after it was encrypted, perhaps still for
	// the old key; a later one is not.
	if err := billing.until(ctx, func() bool { return billing.byKey[next] > 10 }); err != nil {
		return err
	}
	if err := keys.drop(n - 1); err != nil { // no message needs them any more
		return err
	}
	at := billing.count()
	if err := billing.until(ctx, func() bool { return len(billing.bills) > at+10 }); err != nil {
		return err
	}
	fmt.Printf("orders are signed with %s, the keys before it are gone\n", next)
	return nil
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// openOrders opens the service that signs orders and encrypts them for billing.
func openOrders(open func(...pubsub.Middleware) (*pubsub.Broker, error), path string) (*pubsub.Broker, error) {
	keys, err := security.OpenKeyring(path, security.KeyringOptions{Poll: poll})
	if err != nil {
		return nil, err
	}
	return open(
		security.Sign(security.SignOptions{Keys: keys, Producer: "orders"}),
		security.Encrypt(security.EncryptOptions{Producer: "orders", Recipients: []security.KMS{keys.KMS("billing")}}),
	)
}

// A load is orders that are placed all the time.
type load struct {
	stop      context.CancelFunc
	done      chan error
	published int // of those, when it has ended
}

func begin(ctx context.Context, orders *pubsub.Broker) *load {
	running, stop := context.WithCancel(ctx)
	l := &load{stop: stop, done: make(chan error, 1)}
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-running.Done():
				l.done <- nil
				return
			case <-tick.C:
			}
			m := pubsub.Message{ID: fmt.Sprintf("order-%d", l.published), Type: "order", Key: "alice", Payload: []byte(text)} // of one key: in order
			if err := orders.Publish(ctx, topic, m); err != nil {
				l.done <- err
				return
			}
			l.published++
		}
	}()
	return l
}

// end ends it, and returns how many orders were placed.
func (l *load) end() (int, error) {
	l.stop()
	err := <-l.done
	return l.published, err
}
