package drivers

import (
	"context"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Config is an adapter's configuration, which connects.
type Config interface {
	Driver(ctx context.Context) (pubsub.Driver, error)
}

// An Opening says what the errors of opening a broker need besides: all fields are required, but Explain.
type Opening[C Config] struct {
	Broker   string // the adapter's name
	Hint     string // how its URLs are written
	Parse    func(rawURL string) (C, error)
	Classify func(error) (pubsub.Code, bool)
	Explain  func(error) (hint string) // what there is to do about an error of Driver; "" = nobody knows
}

// Check returns the error of a URL that cannot be read.
func (o Opening[C]) Check(rawURL string) error {
	_, err := o.parse(rawURL)
	return err
}

func (o Opening[C]) parse(rawURL string) (C, error) {
	c, err := o.Parse(rawURL)
	if err != nil {
		return c, &pubsub.Error{Op: "open", Broker: o.Broker, Code: pubsub.ErrInvalid, Err: err, Hint: o.Hint}
	}
	return c, nil
}

// URL connects to rawURL.
func (o Opening[C]) URL(ctx context.Context, rawURL string, opts *pubsub.Options) (*pubsub.Broker, error) {
	c, err := o.parse(rawURL)
	if err != nil {
		return nil, err
	}
	return o.Config(ctx, c, opts)
}

// Config connects as c says.
func (o Opening[C]) Config(ctx context.Context, c C, opts *pubsub.Options) (*pubsub.Broker, error) {
	d, err := c.Driver(ctx)
	if err != nil {
		return nil, o.failed(ctx, err)
	}
	b, err := pubsub.New(ctx, d, opts)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (o Opening[C]) failed(ctx context.Context, err error) error {
	e := &pubsub.Error{Op: "open", Broker: o.Broker, Err: err}
	if ctx.Err() != nil {
		e.Code = pubsub.ErrCanceled
		return e
	}
	e.Code, _ = o.Classify(err)
	if o.Explain != nil {
		e.Hint = o.Explain(err)
	}
	return e
}
