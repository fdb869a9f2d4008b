package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

func notEmpty(m *pubsub.Message) error {
	if len(m.Payload) == 0 {
		return errors.New("no payload")
	}
	return nil
}

// What is wrong is told to whoever publishes it, and never reaches a handler.
func ExampleValidate() {
	validate := middleware.Validate(map[string]func(*pubsub.Message) error{"order.placed": notEmpty})
	m := pubsub.Message{Type: "order.placed"}
	fmt.Println(validate.Outgoing(context.Background(), "orders", &m))
	m.Payload = []byte("{}")
	fmt.Println(validate.Outgoing(context.Background(), "orders", &m))
	// Output:
	// no payload
	// <nil>
}

func TestValidate(t *testing.T) {
	checks := map[string]func(*pubsub.Message) error{
		"order": notEmpty,
		"boom":  func(*pubsub.Message) error { panic("here") },
		"free":  func(*pubsub.Message) error { return nil },
	}
	strict := map[string]func(*pubsub.Message) error{"": func(m *pubsub.Message) error { return fmt.Errorf("type %q is not ours", m.Type) }, "free": checks["free"]}
	for name, tt := range map[string]struct {
		checks map[string]func(*pubsub.Message) error
		m      pubsub.Message
		want   string
	}{
		"valid":           {checks, pubsub.Message{Type: "order", Payload: []byte("x")}, ""},
		"not valid":       {checks, pubsub.Message{Type: "order"}, "no payload"},
		"a panic":         {checks, pubsub.Message{Type: "boom"}, "its validation panicked: here"},
		"another type":    {checks, pubsub.Message{Type: "other"}, ""},
		"its own, strict": {strict, pubsub.Message{Type: "free"}, ""},
		"rest, strict":    {strict, pubsub.Message{Type: "other"}, `type "other" is not ours`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				layer := middleware.Validate(tt.checks)
				refuses := pubsubtest.Open(t, opts(layer), "t")
				err := refuses.Publish(t.Context(), "t", tt.m)
				if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, pubsub.ErrRefused) || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("published: %v", err)
				}
				sub := pubsub.Subscription{Topic: "t", Group: "g", Use: layers(layer)}
				want := pubsubtest.Fate{Acked: tt.want == "", Attempts: 1}
				if tt.want != "" {
					want.Reason = "validation"
				}
				called := false
				fate := pubsubtest.Deliver(t, sub, func(context.Context, *pubsub.Delivery) error { called = true; return nil }, tt.m)
				fate.Want(t, want)
				if called != (tt.want == "") || tt.want != "" && !strings.Contains(fate.Err.Error(), tt.want) {
					t.Errorf("called %v, error %v", called, fate.Err)
				}
			})
		})
	}
}

// In a batch the others go on.
func TestValidateBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sub := pubsub.Subscription{Topic: "t", Group: "g", Use: layers(middleware.Validate(map[string]func(*pubsub.Message) error{"": notEmpty}))}
		fates := pubsubtest.Open(t, nil).DeliverBatch(sub, pubsub.Batch{}, func(_ context.Context, ds []*pubsub.Delivery) error {
			for _, d := range ds {
				if len(d.Payload) == 0 {
					t.Errorf("the handler got %s", d.ID)
				}
			}
			return nil
		}, message("a"), pubsub.Message{ID: "empty"}, message("b"))
		fates[0].Want(t, pubsubtest.Fate{Acked: true})
		fates[1].Want(t, pubsubtest.Fate{Reason: "validation"})
		fates[2].Want(t, pubsubtest.Fate{Acked: true})
	})
}
