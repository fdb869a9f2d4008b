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

// Layers are told of the same hand-backs that the engine counts as no failure, and of no other end of a context.
func TestHandedBack(t *testing.T) {
	own := func(err error) func(ctx context.Context) (context.Context, context.CancelFunc) {
		return func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(err)
			return ctx, func() {}
		}
	}
	for name, tt := range map[string]struct {
		end   func(*memory.Server, *pubsub.Broker)                            // while the handler waits for its ctx
		layer func(ctx context.Context) (context.Context, context.CancelFunc) // above the one that asks
		want  bool
	}{
		"drained":        {func(_ *memory.Server, b *pubsub.Broker) { go b.Close() }, context.WithCancel, true},
		"lease lost":     {func(s *memory.Server, _ *pubsub.Broker) { s.DropSessions() }, context.WithCancel, true},
		"handler's time": {nil, context.WithCancel, false},
		"a layer's time": {nil, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, false},
		"a layer's reason":       {nil, own(errors.New("enough")), false},
		"a layer's cancellation": {nil, own(nil), false},
		"drained before layer's time": {func(_ *memory.Server, b *pubsub.Broker) { go b.Close() }, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				type answer struct{ before, after bool }
				answers := make(chan answer, 1)
				above := pubsub.Middleware{Name: "above", Incoming: func(next pubsub.Handler) pubsub.Handler {
					return func(ctx context.Context, d *pubsub.Delivery) error {
						ctx, cancel := tt.layer(ctx)
						defer cancel()
						return next(ctx, d)
					}
				}}
				asks := pubsub.Middleware{Name: "asks", Incoming: func(next pubsub.Handler) pubsub.Handler {
					return func(ctx context.Context, d *pubsub.Delivery) error {
						a := answer{before: pubsub.HandedBack(ctx)}
						err := next(ctx, d)
						a.after = pubsub.HandedBack(ctx)
						select {
						case answers <- a:
						default: // it comes again
						}
						return err
					}
				}}
				s := memory.NewServer(memory.Config{})
				b, err := s.Open(t.Context(), &pubsub.Options{Use: []pubsub.Middleware{above, asks}, DrainTimeout: time.Second})
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				waits := make(chan struct{}, 10)
				sub := pubsub.Subscription{Topic: "t", Group: "g", HandlerTimeout: 10 * time.Second}
				if _, err := b.Subscribe(t.Context(), sub, func(ctx context.Context, _ *pubsub.Delivery) error {
					waits <- struct{}{}
					<-ctx.Done()
					return errors.New("ended")
				}); err != nil {
					t.Fatal(err)
				}
				publish(t, b, 1)
				<-waits
				if tt.end != nil {
					tt.end(s, b)
				}
				if got := <-answers; got.before || got.after != tt.want {
					t.Errorf("handed back: %v before and %v after, want %v", got.before, got.after, tt.want)
				}
			})
		})
	}
	if pubsub.HandedBack(t.Context()) {
		t.Error("a context that goes on is handed back")
	}
}
