package programs_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

type tenantKey struct{}

func withTenant(ctx context.Context, tenant string) context.Context {
	return context.WithValue(ctx, tenantKey{}, tenant)
}
func tenantOf(ctx context.Context) string { t, _ := ctx.Value(tenantKey{}).(string); return t }

var errNoTenant = errors.New("no tenant")

// tenantMiddleware writes the tenant of the publisher's context into a header, and gives handlers a context with it.
func tenantMiddleware() pubsub.Middleware {
	return pubsub.Middleware{
		Name:  "tenant",
		After: []string{"sign"}, // so that the header is signed, and believed only once verified
		Why:   "the tenant would be believed before its signature is checked",

		Outgoing: func(ctx context.Context, topic string, m *pubsub.Message) error {
			t := tenantOf(ctx)
			if t == "" {
				return errNoTenant // refuses this message; the others go on
			}
			m.Headers.Set("tenant", t)
			return nil
		},

		Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				t := d.Headers.Get("tenant")
				if t == "" {
					return pubsub.Permanent(errNoTenant)
				}
				return next(withTenant(ctx, t), d)
			}
		},
	}
}

// A middleware of one's own, both directions in one value.
func Example_tenant() {
	ctx := context.Background()
	running, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	b := memory.New(&pubsub.Options{Use: []pubsub.Middleware{tenantMiddleware()}})
	defer b.Close()
	_, err := b.Subscribe(running, pubsub.Subscription{Topic: "orders", Group: "audit"}, func(ctx context.Context, d *pubsub.Delivery) error {
		defer stop()
		fmt.Printf("%s ordered %s\n", tenantOf(ctx), d.Payload)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}

	tea := pubsub.Message{Payload: []byte("tea")}
	err = b.Publish(ctx, "orders", tea)
	fmt.Println(errors.Is(err, pubsub.ErrRefused), errors.Is(err, errNoTenant))
	if err := b.Publish(withTenant(ctx, "acme"), "orders", tea); err != nil {
		log.Fatal(err)
	}
	if err := b.Run(running); err != nil {
		log.Fatal(err)
	}

	// in a harmful order it is refused
	_, err = pubsub.Mux{memory.Opener()}.Open(ctx, "mem://",
		&pubsub.Options{Use: []pubsub.Middleware{tenantMiddleware(), {Name: "sign"}}})
	fmt.Println(errors.Is(err, pubsub.ErrInvalid))
	// Output:
	// true true
	// acme ordered tea
	// true
}
