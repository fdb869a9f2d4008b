package benchclient_test

import (
	"context"
	"testing"

	"github.com/omnibus-go/omnibus/internal/benchclient"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A broker that does not know yet who leads a new topic is asked again, and its answer counts; any other error ends the run.
func TestPendingAsksAgain(t *testing.T) {
	for code, want := range map[pubsub.Code]bool{pubsub.ErrUnavailable: true, pubsub.ErrDenied: false} {
		asked := 0
		d := &forgetful{Driver: memory.NewServer(memory.Config{}).Driver(), lag: func() (pubsub.Lag, error) {
			if asked++; asked < 3 {
				return pubsub.Lag{}, &pubsub.Error{Op: "lag", Code: code}
			}
			return pubsub.Lag{Messages: 7, Kind: pubsub.LagExact}, nil
		}}
		b, err := pubsub.New(t.Context(), d, nil)
		if err != nil {
			t.Fatal(err)
		}
		n, err := benchclient.New(b).Pending(t.Context(), "orders", "billing")
		if got := err == nil && n == 7; got != want {
			t.Errorf("%v: %d, %v after %d answers", code, n, err, asked)
		}
		b.Close()
	}
}

type forgetful struct {
	pubsub.Driver
	lag func() (pubsub.Lag, error)
}

func (f *forgetful) Lag(context.Context, string, string) (pubsub.Lag, error) { return f.lag() }
