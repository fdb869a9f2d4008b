package middleware_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// An order causes an invoice, the invoice a mail: all three belong together.
func ExampleCorrelate() {
	ctx := context.Background()
	b := memory.New(&pubsub.Options{Use: []pubsub.Middleware{middleware.Correlate()}})
	defer b.Close()
	done := make(chan struct{})
	forward := func(to, id string) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			fmt.Printf("%s: correlation %q, causation %q\n", d.ID, d.Headers.Get(middleware.HeaderCorrelation), d.Headers.Get(middleware.HeaderCausation))
			if to == "" {
				close(done)
				return nil
			}
			return b.Publish(ctx, to, pubsub.Message{ID: id})
		}
	}
	for topic, h := range map[string]pubsub.Handler{"mails": forward("", ""), "invoices": forward("mails", "mail-1"), "orders": forward("invoices", "invoice-1")} {
		if _, err := b.Subscribe(ctx, pubsub.Subscription{Topic: topic, Group: "g"}, h); err != nil {
			fmt.Println(err)
		}
	}
	if err := b.Publish(ctx, "orders", pubsub.Message{ID: "order-1"}); err != nil {
		fmt.Println(err)
	}
	<-done
	// Output:
	// order-1: correlation "", causation ""
	// invoice-1: correlation "order-1", causation "order-1"
	// mail-1: correlation "order-1", causation "invoice-1"
}

// In a batch and a Receive loop the context is the delivery's; what the application has set stays.
func TestCorrelate(t *testing.T) {
	for _, form := range []string{"handler", "batch", "pull"} {
		t.Run(form, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := pubsubtest.Open(t, opts(middleware.Correlate()), "t", "out")
				cause := message("cause")
				cause.Headers = pubsub.Headers{{Name: "correlation-id", Value: "begin"}, {Name: "x", Value: "y"}}
				handle := func(ctx context.Context, d *pubsub.Delivery) error {
					if c := middleware.CorrelationID(ctx); c != "begin" || middleware.CausationID(ctx) != "cause" {
						t.Errorf("correlation %q", c)
					}
					own := message("own")
					own.Headers = pubsub.Headers{{Name: "causation-id", Value: "mine"}}
					if err := b.Publish(ctx, "out", message("effect")); err != nil {
						return err
					}
					return b.Publish(ctx, "out", own)
				}
				sub := pubsub.Subscription{Topic: "t", Group: "g"}
				switch form {
				case "handler":
					b.Deliver(sub, handle, cause)[0].Want(t, pubsubtest.Fate{Acked: true, Attempts: 1})
				case "batch":
					b.DeliverBatch(sub, pubsub.Batch{}, func(_ context.Context, ds []*pubsub.Delivery) error { return handle(ds[0].Context(), ds[0]) }, cause)[0].
						Want(t, pubsubtest.Fate{Acked: true, Attempts: 1})
				case "pull":
					loop, err := b.Receive(t.Context(), sub)
					if err != nil {
						t.Fatal(err)
					}
					if err := b.Publish(t.Context(), "t", cause); err != nil {
						t.Fatal(err)
					}
					for lease, err := range loop {
						if err != nil {
							t.Fatal(err)
						}
						if err := lease.Settle(t.Context(), handle(lease.Context(), lease.Delivery)); err != nil {
							t.Error(err)
						}
						break
					}
				}
				time.Sleep(time.Second)
				pubsubtest.WantMessages(t, b.Published("out"),
					pubsub.Message{ID: "effect", Headers: pubsub.Headers{{Name: "correlation-id", Value: "begin"}, {Name: "causation-id", Value: "cause"}}},
					pubsub.Message{ID: "own", Headers: pubsub.Headers{{Name: "causation-id", Value: "mine"}, {Name: "correlation-id", Value: "begin"}}})
			})
		})
	}
	m := message("first")
	if err := middleware.Correlate().Outgoing(t.Context(), "t", &m); err != nil || m.Headers != nil {
		t.Errorf("without a cause: %v, %v", err, m.Headers)
	}
	if middleware.CorrelationID(t.Context()) != "" || middleware.CausationID(t.Context()) != "" {
		t.Error("an empty context has a correlation")
	}
}
