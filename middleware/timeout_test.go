package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// A call that hangs ends with the time that one message may take.
func ExampleTimeout() {
	h := wrap(func(ctx context.Context, _ *pubsub.Delivery) error {
		<-ctx.Done() // a query, a request
		return ctx.Err()
	}, middleware.Timeout(10*time.Millisecond))
	err := h(context.Background(), &pubsub.Delivery{})
	fmt.Println(errors.Is(err, pubsub.ErrTimeout))
	fmt.Println(err)
	// Output:
	// true
	// pubsub: handle: timed out: the handler takes longer than 10ms: context deadline exceeded
}

func TestTimeout(t *testing.T) {
	wait := func(ctx context.Context) error { <-ctx.Done(); return errFailed }
	for name, tt := range map[string]struct {
		limit time.Duration
		h     func(ctx context.Context, attempt int) error
		want  pubsubtest.Fate
	}{
		"in time":            {time.Second, func(context.Context, int) error { return nil }, pubsubtest.Fate{Acked: true, Attempts: 1}},
		"too late":           {time.Second, func(ctx context.Context, _ int) error { return wait(ctx) }, pubsubtest.Fate{Attempts: 2, Err: pubsub.ErrTimeout, Category: "timeout", Reason: "max-attempts"}},
		"late, but finished": {time.Second, func(ctx context.Context, _ int) error { _ = wait(ctx); return nil }, pubsubtest.Fate{Acked: true, Attempts: 1}},
		"fails in time":      {time.Second, func(context.Context, int) error { return errFailed }, pubsubtest.Fate{Attempts: 3, Err: errFailed, Reason: "max-attempts"}},
		"ignores it":         {time.Second, func(context.Context, int) error { time.Sleep(time.Minute); return errFailed }, pubsubtest.Fate{Attempts: 2, Err: errFailed, Category: "timeout"}},
		"says Permanent":     {time.Second, func(ctx context.Context, _ int) error { return pubsub.Permanent(wait(ctx)) }, pubsubtest.Fate{Attempts: 1, Reason: "permanent"}},
		"forever":            {pubsub.Forever, func(ctx context.Context, _ int) error { time.Sleep(4 * time.Minute); return ctx.Err() }, pubsubtest.Fate{Acked: true}},
	} {
		t.Run(name, func(t *testing.T) {
			retry := middleware.Retry(fixed(3, time.Second), pubsub.Rule{Category: "timeout", When: func(err error) bool { return errors.Is(err, pubsub.ErrTimeout) }, Retry: fixed(2, time.Second)})
			sub := pubsub.Subscription{Topic: "t", Group: "g"}
			synctest.Test(t, func(t *testing.T) {
				b := pubsubtest.Open(t, opts(retry, middleware.Timeout(tt.limit)))
				b.Deliver(sub, func(ctx context.Context, d *pubsub.Delivery) error { return tt.h(ctx, d.Attempt) }, message("1"))[0].Want(t, tt.want)
			})
			synctest.Test(t, func(t *testing.T) {
				b := pubsubtest.Open(t, opts(retry, middleware.Timeout(tt.limit)))
				b.DeliverBatch(sub, pubsub.Batch{}, func(_ context.Context, ds []*pubsub.Delivery) error { return tt.h(ds[0].Context(), ds[0].Attempt) }, message("1"))[0].Want(t, tt.want)
			})
		})
	}
}

// A drain is no timeout: the message goes back, and counts nothing.
func TestTimeoutAndDrain(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	h := wrap(func(ctx context.Context, _ *pubsub.Delivery) error {
		cancel(errFailed)
		return ctx.Err()
	}, middleware.Timeout(time.Hour))
	if err := h(ctx, &pubsub.Delivery{}); errors.Is(err, pubsub.ErrTimeout) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
