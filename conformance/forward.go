package conformance

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// optional is what a layer of the suite does with the interfaces that a driver may leave out. Each method but Purge, Topics and those about what waits is called only
// where the driver below has it.
type optional interface {
	pubsub.Driver
	Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error]
	Lag(ctx context.Context, topic, group string) (pubsub.Lag, error)
	Seek(ctx context.Context, topic, group string, to pubsub.Start) error
	Purge(ctx context.Context, p pubsub.Place, upTo pubsub.Position) error
	pubsub.Waiter
	pubsub.Rescheduler
	pubsub.Lister
}

// shaped shows of layer only the optional interfaces that below has: the engine asks for them by type.
func shaped(layer optional, below pubsub.Driver) pubsub.Driver {
	_, b := below.(pubsub.Browser)
	_, l := below.(pubsub.Lagger)
	_, s := below.(pubsub.Seeker)
	type (
		driver  = pubsub.Driver
		browser = pubsub.Browser
		lagger  = pubsub.Lagger
		seeker  = pubsub.Seeker
	)
	switch {
	case b && l && s:
		return layer
	case b && l:
		return struct {
			driver
			browser
			lagger
		}{layer, layer, layer}
	case b && s:
		return struct {
			driver
			browser
			seeker
		}{layer, layer, layer}
	case l && s:
		return struct {
			driver
			lagger
			seeker
		}{layer, layer, layer}
	case b:
		return struct {
			driver
			browser
		}{layer, layer}
	case l:
		return struct {
			driver
			lagger
		}{layer, layer}
	case s:
		return struct {
			driver
			seeker
		}{layer, layer}
	}
	return struct{ driver }{layer}
}

// below forwards the optional interfaces to a driver.
type below struct{ pubsub.Driver }

func (b below) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return b.Driver.(pubsub.Browser).Browse(ctx, p, from)
}

func (b below) Lag(ctx context.Context, topic, group string) (pubsub.Lag, error) {
	return b.Driver.(pubsub.Lagger).Lag(ctx, topic, group)
}

// Purge says of a driver that has none what the engine says of it, so that there are not twice as many shapes.
func (b below) Purge(ctx context.Context, p pubsub.Place, upTo pubsub.Position) error {
	if x, ok := b.Driver.(pubsub.Purger); ok {
		return x.Purge(ctx, p, upTo)
	}
	return b.lacks("Purge", p.Topic)
}

// Topics does the same.
func (b below) Topics(ctx context.Context) ([]string, error) {
	if x, ok := b.Driver.(pubsub.Lister); ok {
		return x.Topics(ctx)
	}
	return nil, b.lacks("Topics", "")
}

// Waiting, Reschedule and Withdraw do the same: Capabilities.Waiting is what a driver says of them.
func (b below) Waiting(ctx context.Context, topic, group string) iter.Seq2[pubsub.Waiting, error] {
	if x, ok := b.Driver.(pubsub.Waiter); ok {
		return x.Waiting(ctx, topic, group)
	}
	return func(yield func(pubsub.Waiting, error) bool) { yield(pubsub.Waiting{}, b.lacks("Waiting", topic)) }
}

func (b below) Reschedule(ctx context.Context, topic, group string, w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error) {
	if x, ok := b.Driver.(pubsub.Rescheduler); ok {
		return x.Reschedule(ctx, topic, group, w, in)
	}
	return w, b.lacks("RetryNow", topic)
}

func (b below) Withdraw(ctx context.Context, topic, group string, w pubsub.Waiting) error {
	if x, ok := b.Driver.(pubsub.Rescheduler); ok {
		return x.Withdraw(ctx, topic, group, w)
	}
	return b.lacks("DeadLetterNow", topic)
}

func (b below) lacks(feature, topic string) error {
	return &pubsub.Error{Op: "forward", Broker: b.Name(), Topic: topic, Code: pubsub.ErrUnsupported, Err: errors.New(feature)}
}

func (b below) Seek(ctx context.Context, topic, group string, to pubsub.Start) error {
	return b.Driver.(pubsub.Seeker).Seek(ctx, topic, group, to)
}
