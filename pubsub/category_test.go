package pubsub_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestCategoryOf(t *testing.T) {
	errSlow := errors.New("slow")
	synctest.Test(t, func(t *testing.T) {
		told, routed := make(chan string, 10), make(chan string, 10)
		b := memory.New(nil)
		defer b.Close()
		sub := pubsub.Subscription{
			Topic: "t", Group: "g", Retry: pubsub.Policy{MaxAttempts: 1},
			Rules: []pubsub.Rule{{Category: "timeout", When: func(err error) bool { return errors.Is(err, errSlow) }, Retry: pubsub.Policy{MaxAttempts: 1}}},
			DeadLetter: pubsub.DeadLetter{
				Route:        func(_ *pubsub.Delivery, err error) string { routed <- pubsub.CategoryOf(err); return "" },
				OnDeadLetter: func(_ *pubsub.Delivery, err error) { told <- pubsub.CategoryOf(err) },
			},
		}
		_, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error {
			switch d.Type {
			case "slow":
				return errSlow
			case "slow for good":
				return pubsub.Permanent(errSlow)
			case "slow for a layer":
				layer := pubsub.Rule{Category: "layer", When: func(error) bool { return true }, Retry: pubsub.Policy{MaxAttempts: 1}}
				_, err := layer.Classify(errSlow)
				return err
			}
			return errors.New("other")
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct{ typ, want string }{{"slow", "timeout"}, {"slow for good", "timeout"}, {"slow for a layer", "layer"}, {"other", ""}} {
			if err := b.Publish(t.Context(), "t", pubsub.Message{Type: c.typ}); err != nil {
				t.Fatal(err)
			}
			if got := <-routed; got != c.want {
				t.Errorf("Route of %q is told the category %q, want %q", c.typ, got, c.want)
			}
			if got := <-told; got != c.want {
				t.Errorf("OnDeadLetter of %q is told the category %q, want %q", c.typ, got, c.want)
			}
		}
	})
	if got := pubsub.CategoryOf(nil); got != "" {
		t.Errorf("nil has the category %q", got)
	}
}
