package security_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Orders are signed by who places them and encrypted for who bills them; nobody between the two can read or change one.
func Example() {
	ctx := context.Background()
	// In real life each service has a keyring file, see OpenKeyring: the private half of a key leaves its owner never.
	signs, err := security.GenerateKey(security.Ed25519, "orders-2026-01", "orders")
	check(err)
	wraps, err := security.GenerateKey(security.HPKEP256, "billing-2026-01", "billing")
	check(err)
	verifies, err := signs.Public()
	check(err)
	wrapsFor, err := wraps.Public()
	check(err)
	ofOrders, err := security.NewKeyring(signs, wrapsFor)
	check(err)
	ofBilling, err := security.NewKeyring(verifies, wraps)
	check(err)

	server := memory.NewServer(memory.Config{})
	orders, err := pubsub.New(ctx, server.Driver(), &pubsub.Options{Use: []pubsub.Middleware{
		security.Sign(security.SignOptions{Keys: ofOrders, Producer: "orders"}),
		security.Encrypt(security.EncryptOptions{Producer: "orders", Recipients: []security.KMS{ofOrders.KMS("billing")}}),
	}})
	check(err)
	defer orders.Close()
	billing, err := pubsub.New(ctx, server.Driver(), &pubsub.Options{Use: []pubsub.Middleware{
		security.Sign(security.SignOptions{Keys: ofBilling}),
		security.Encrypt(security.EncryptOptions{Unwrap: []security.KMS{ofBilling.KMS("")}}),
	}})
	check(err)
	defer billing.Close()

	done := make(chan struct{})
	_, err = billing.Subscribe(ctx, pubsub.Subscription{Topic: "orders.placed", Group: "billing"}, func(ctx context.Context, d *pubsub.Delivery) error {
		from, _ := security.From(ctx)
		fmt.Printf("%s, signed by %s with %s\n", d.Payload, from.Producer, from.Key)
		close(done)
		return nil
	})
	check(err)
	check(orders.Publish(ctx, "orders.placed", pubsub.Message{Type: "order", Payload: []byte("3 apples")}))
	<-done
	// Output: 3 apples, signed by orders with orders-2026-01
}

// The consumer's check is the control: what a producer may not publish is given up, though it has signed it.
func ExampleAccess() {
	policy, err := security.DecodePolicy([]byte(`{
		"publish": {"orders": [{"topics": ["orders.>"], "types": ["order.*"]}]},
		"consume": {"billing": ["orders.placed"]}
	}`))
	check(err)
	fmt.Println(policy.MayPublish("orders", "orders.placed", "order.placed"), policy.MayPublish("ledger", "orders.placed", "order.placed"))
	fmt.Println(policy.MayConsume("billing", "orders.placed"), policy.MayConsume("billing", "payments"))
	// Output:
	// true false
	// true false
}

// A new key is passive until everybody has it, and an old one stays passive as long as its messages lie around.
func ExampleKeyring_Replace() {
	old, err := security.GenerateKey(security.Ed25519, "2026-01", "orders")
	check(err)
	next, err := security.GenerateKey(security.Ed25519, "2026-02", "orders")
	check(err)
	keys, err := security.NewKeyring(old)
	check(err)
	sign := security.Sign(security.SignOptions{Keys: keys, Producer: "orders"})
	m := pubsub.Message{ID: "1", Type: "order"}
	check(sign.Outgoing(context.Background(), "orders.placed", &m)) // signed with the old key

	check(keys.Replace(old, next.With(security.Passive)))                       // 1. everywhere
	check(keys.Replace(old.With(security.Passive), next.With(security.Active))) // 2. where it signs
	handle := sign.Incoming(func(context.Context, *pubsub.Delivery) error { return nil })
	fmt.Println(handle(context.Background(), &pubsub.Delivery{Message: m, Topic: "orders.placed"}))

	check(keys.Replace(old.With(security.Revoked), next)) // or, if others may have it
	err = handle(context.Background(), &pubsub.Delivery{Message: m, Topic: "orders.placed"})
	fmt.Println(errors.Is(err, security.ErrForged), err)
	// Output:
	// <nil>
	// false unknown or revoked key
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
