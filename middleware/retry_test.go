package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

var errPartner = errors.New("the partner is down")

func isPartner(err error) bool { return errors.Is(err, errPartner) }

// One policy for all subscriptions of a service; what the handler says itself is stronger.
func ExampleRetry() {
	policy := middleware.Retry(pubsub.Policy{MaxAttempts: 5},
		pubsub.Rule{Category: "partner", When: isPartner, Retry: pubsub.Policy{MaxAttempts: 20, Initial: time.Minute, Max: 30 * time.Minute}})
	for _, said := range []error{errors.New("nil map"), errPartner, pubsub.Permanent(errPartner), pubsub.RetryAfter(time.Second, errPartner)} {
		err := wrap(func(context.Context, *pubsub.Delivery) error { return said }, policy)(context.Background(), &pubsub.Delivery{})
		outcome, after := pubsub.OutcomeOf(err)
		fmt.Println(err, "→", outcome, after)
	}
	// Output:
	// nil map → retry 0s
	// the partner is down → retry 0s
	// the partner is down → permanent 0s
	// the partner is down → retry 1s
}

// Attempts never multiply: one classification counts, the innermost.
func TestRetryInnermostWins(t *testing.T) {
	outer := middleware.Retry(fixed(7, 7*time.Second))
	inner := middleware.Retry(fixed(3, 3*time.Second), pubsub.Rule{Category: "partner", When: isPartner, Retry: fixed(2, 2*time.Second)})
	sub := pubsub.Subscription{Topic: "t", Group: "g", Retry: fixed(5, 5*time.Second),
		Rules: []pubsub.Rule{{Category: "subscription", When: func(error) bool { return true }, Retry: fixed(6, 6*time.Second)}}}
	for name, tt := range map[string]struct {
		use  []pubsub.Middleware
		says error
		want pubsubtest.Fate
	}{
		"layer beats subscription":  {layers(inner), errFailed, pubsubtest.Fate{Attempts: 3, Reason: "max-attempts", Delays: []time.Duration{3 * time.Second, 3 * time.Second}}},
		"rule of the layer":         {layers(inner), errPartner, pubsubtest.Fate{Attempts: 2, Reason: "max-attempts", Category: "partner", Delays: []time.Duration{2 * time.Second}}},
		"inner layer beats outer":   {layers(outer, inner), errFailed, pubsubtest.Fate{Attempts: 3, Reason: "max-attempts"}},
		"two rules, one in a layer": {layers(outer, inner), errPartner, pubsubtest.Fate{Attempts: 2, Reason: "max-attempts", Category: "partner"}},
		"no layer":                  {nil, errFailed, pubsubtest.Fate{Attempts: 6, Reason: "max-attempts", Category: "subscription"}},
		"handler's RetryAfter":      {layers(inner), pubsub.RetryAfter(time.Second, errPartner), pubsubtest.Fate{Attempts: 6, Reason: "max-attempts", Delays: []time.Duration{time.Second, time.Second, time.Second, time.Second, time.Second}}},
		"handler's RetryBy":         {layers(inner), pubsub.RetryBy(fixed(4, time.Second), errFailed), pubsubtest.Fate{Attempts: 4, Reason: "max-attempts"}},
		"handler's Permanent":       {layers(outer, inner), pubsub.Permanent(errPartner), pubsubtest.Fate{Attempts: 1, Reason: "permanent"}},
		"Expected is no class":      {layers(inner), pubsub.Expected(errFailed), pubsubtest.Fate{Attempts: 3, Reason: "max-attempts"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sub := sub
				sub.Use = tt.use
				pubsubtest.Deliver(t, sub, func(context.Context, *pubsub.Delivery) error { return tt.says }, message("1")).Want(t, tt.want)
			})
			synctest.Test(t, func(t *testing.T) {
				b := pubsubtest.Open(t, opts(tt.use...))
				b.DeliverBatch(sub, pubsub.Batch{}, func(context.Context, []*pubsub.Delivery) error { return tt.says }, message("1"))[0].Want(t, tt.want)
			})
		})
	}
}

// A panic is a failure like another, and a When that panics does not match.
func TestRetryPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		layer := middleware.Retry(fixed(2, time.Second), pubsub.Rule{When: func(error) bool { panic("when") }})
		sub := pubsub.Subscription{Topic: "t", Group: "g", Use: layers(layer)}
		pubsubtest.Deliver(t, sub, func(context.Context, *pubsub.Delivery) error { panic("handler") }, message("1")).
			Want(t, pubsubtest.Fate{Attempts: 2, Reason: "max-attempts"})
	})
}

// A handler that the engine has ended is a timeout for the layers too, whatever it returns: a rule can match it, and it is no poison.
func TestHandlerTimeoutIsKnownToLayers(t *testing.T) {
	for _, below := range [][]pubsub.Middleware{nil, layers(middleware.Poison(middleware.PoisonOptions{}))} {
		synctest.Test(t, func(t *testing.T) {
			late := pubsub.Rule{Category: "late", When: func(err error) bool { return errors.Is(err, pubsub.ErrTimeout) }, Retry: fixed(4, time.Second)}
			sub := pubsub.Subscription{Topic: "t", Group: "g", HandlerTimeout: time.Second,
				Use: append(layers(middleware.Retry(fixed(9, time.Second), late)), below...)}
			fate := pubsubtest.Deliver(t, sub, func(ctx context.Context, _ *pubsub.Delivery) error { <-ctx.Done(); return ctx.Err() }, message("1"))
			fate.Want(t, pubsubtest.Fate{Attempts: 4, Category: "late", Reason: "hang", Err: pubsub.ErrTimeout})
			if n := strings.Count(fate.Err.Error(), "takes longer than"); n != 1 {
				t.Errorf("the reason is told %d times: %v", n, fate.Err)
			}
		})
	}
}
