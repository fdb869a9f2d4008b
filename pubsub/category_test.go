package pubsub_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

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

// Which policy gave a message up is said in its dead letter and in the event.
func TestPolicyIsNamed(t *testing.T) {
	errSlow := errors.New("slow")
	slow := func(err error) bool { return errors.Is(err, errSlow) }
	once := pubsub.Policy{MaxAttempts: 1}
	named := pubsub.Policy{MaxAttempts: 1, Name: "named"}
	for name, c := range map[string]struct {
		sub  pubsub.Subscription
		err  error
		want string
	}{
		"the subscription's":   {pubsub.Subscription{Retry: once}, errSlow, "default"},
		"one with a name":      {pubsub.Subscription{Retry: named}, errSlow, "named"},
		"a rule's":             {pubsub.Subscription{Rules: []pubsub.Rule{{Category: "timeout", When: slow, Retry: once}}}, errSlow, "timeout"},
		"a rule's with a name": {pubsub.Subscription{Rules: []pubsub.Rule{{Category: "timeout", When: slow, Retry: named}}}, errSlow, "named"},
		"after a delay":        {pubsub.Subscription{Retry: named}, pubsub.RetryAfter(0, errSlow), "named"},
		"none":                 {pubsub.Subscription{Retry: named}, pubsub.Permanent(errSlow), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var told pubsub.Event
			c.sub.Use = []pubsub.Middleware{{Name: "watch", Observe: func(ev pubsub.Event) {
				if ev.Kind == pubsub.EventDeadLettered {
					told = ev
				}
			}}}
			h := dead(t, c.sub, func(context.Context, *pubsub.Delivery) error { return c.err })
			if got := h.Get("omnibus-dlq-policy"); got != c.want || told.Policy != c.want {
				t.Errorf("the dead letter names the policy %q and the event %q, want %q", got, told.Policy, c.want)
			}
		})
	}
}

// What RetryBy leaves out has the defaults of every policy.
func TestRetryByHasDefaults(t *testing.T) {
	calls := 0
	h := dead(t, pubsub.Subscription{Retry: pubsub.Policy{MaxAttempts: 1}}, func(context.Context, *pubsub.Delivery) error {
		calls++
		return pubsub.RetryBy(pubsub.Policy{Name: "own", Delays: []time.Duration{time.Second}}, errors.New("slow"))
	})
	if calls != 10 || h.Get("omnibus-dlq-policy") != "own" {
		t.Errorf("%d calls, given up by the policy %q", calls, h.Get("omnibus-dlq-policy"))
	}
}
