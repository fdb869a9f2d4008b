package drivers_test

import (
	"context"
	"errors"
	"testing"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

var (
	errBad  = errors.New("no such URL")
	errDown = errors.New("down")
)

// A config is an adapter's.
type config struct{ err error }

func (c config) Driver(context.Context) (pubsub.Driver, error) {
	if c.err != nil {
		return nil, c.err
	}
	return memory.NewServer(memory.Config{}).Driver(), nil
}

// Errors of opening have the code, the adapter's name, what there is to do, and the reason.
func TestOpening(t *testing.T) {
	o := drivers.Opening[config]{
		Broker: "mine", Hint: "mine://host", Classify: func(error) (pubsub.Code, bool) { return pubsub.ErrDenied, true },
		Parse: func(url string) (c config, err error) {
			if url == "bad" {
				err = errBad
			}
			return config{map[string]error{"down": errDown}[url]}, err
		},
		Explain: func(error) string { return "ask for it" },
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		url  string
		want *pubsub.Error
	}{
		"bad":       {t.Context(), "bad", &pubsub.Error{Code: pubsub.ErrInvalid, Hint: "mine://host", Err: errBad}},
		"down":      {t.Context(), "down", &pubsub.Error{Code: pubsub.ErrDenied, Hint: "ask for it", Err: errDown}},
		"cancelled": {ended, "down", &pubsub.Error{Code: pubsub.ErrCanceled, Err: errDown}},
	} {
		b, err := o.URL(c.ctx, c.url, nil)
		c.want.Op, c.want.Broker = "open", "mine"
		if e, ok := errors.AsType[*pubsub.Error](err); b != nil || !ok || *e != *c.want {
			t.Errorf("%s: %+v, want %+v", name, err, c.want)
		}
		if err := o.Check(c.url); (err != nil) != (c.url == "bad") {
			t.Errorf("%s: the check says %v", name, err)
		}
	}
	if b, err := o.URL(t.Context(), "", &pubsub.Options{Require: pubsub.Capabilities{Durability: pubsub.Replicated}}); b != nil || err == nil {
		t.Errorf("what the broker does not have: %v, %v", b, err)
	}
	b, err := o.URL(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
