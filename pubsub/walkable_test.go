package pubsub_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A causeError is an error whose nil pointer cannot be unwrapped.
type causeError struct{ cause error }

func (e *causeError) Error() string { return "it has a cause" }
func (e *causeError) Unwrap() error { return e.cause }

// A handler that returns a nil pointer as an error fails like any other; nothing panics where nobody recovers.
func TestErrorThatCannotBeUnwrapped(t *testing.T) {
	for name, wrap := range map[string]func(error) error{
		"as it is":  func(err error) error { return err },
		"permanent": pubsub.Permanent,
		"joined":    func(err error) error { return pubsub.Permanent(pubsub.WithStack(err)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := memory.New(nil)
				defer b.Close()
				sub := pubsub.Subscription{Topic: "t", Group: "g", Retry: pubsub.Policy{MaxAttempts: 1}}
				if _, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error {
					var none *causeError
					return wrap(none)
				}); err != nil {
					t.Fatal(err)
				}
				if err := b.Publish(t.Context(), "t", pubsub.Message{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				n := 0
				for r, err := range b.Browse(t.Context(), pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceDead}, pubsub.Position{}) {
					if err != nil {
						t.Fatal(err)
					}
					n++
					if text := r.Msg.Headers.Get("omnibus-dlq-error"); !strings.Contains(text, "nil pointer") {
						t.Errorf("the dead letter says %q", text)
					}
				}
				if n != 1 {
					t.Errorf("%d dead letters, want 1", n)
				}
			})
		})
	}
}
