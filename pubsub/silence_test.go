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

// silent is a broker that answers nothing after it was opened. Its adapter waits for Ping for a second, for the rest as long as ctx lasts.
type silent struct{ pubsub.Driver }

func (silent) OpenSource(ctx context.Context, _ pubsub.SourceSpec) (pubsub.Source, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (silent) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	<-ctx.Done()
	return ctx.Err()
}

// ErrCanceled means that the caller's own ctx has ended. A deadline that the caller has not set is the broker's failure.
func TestSilentBrokerIsUnavailable(t *testing.T) {
	sub := pubsub.Subscription{Topic: "t", Group: "g"}
	for name, call := range map[string]func(context.Context, *pubsub.Broker) error{
		"subscribe": func(ctx context.Context, b *pubsub.Broker) error {
			_, err := b.Subscribe(ctx, sub, func(context.Context, *pubsub.Delivery) error { return nil })
			return err
		},
		"ping": func(ctx context.Context, b *pubsub.Broker) error { return b.Ping(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, err := pubsub.New(t.Context(), silent{memory.NewServer(memory.Config{}).Driver()}, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				if err := call(context.Background(), b); !errors.Is(err, pubsub.ErrUnavailable) {
					t.Errorf("without a deadline: %v; want ErrUnavailable", err)
				}
				short, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				if err := call(short, b); !errors.Is(err, pubsub.ErrCanceled) {
					t.Errorf("with a deadline that has passed: %v; want ErrCanceled", err)
				}
				gone, leave := context.WithCancel(t.Context())
				time.AfterFunc(500*time.Millisecond, leave)
				if err := call(gone, b); !errors.Is(err, pubsub.ErrCanceled) {
					t.Errorf("with a canceled ctx: %v; want ErrCanceled", err)
				}
			})
		})
	}
}
