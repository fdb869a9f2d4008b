package middleware

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Validate checks messages by their type, in both directions: what is wrong is refused when it is published, and given up with the reason
// "validation" when it is received: trying again cannot help. The function "" takes every type that has none of its own; without it those
// pass. A function must not change the message; many goroutines call it. One that panics finds the message wrong.
//
// Do not use it to decode: pubsub.Typed does that, and once. Do not use it for what may become right later, such as an order that
// refers to a customer who is not known yet: that is an error of the handler, which is retried.
//
// It costs about 40 ns beside the function, and no allocation.
func Validate(byType map[string]func(*pubsub.Message) error) pubsub.Middleware {
	byType = maps.Clone(byType)
	m := pubsub.Middleware{
		Name: "validate", After: []string{"sign", "encrypt", "compress"},
		Why: "it would look at bytes that are not yet, or no longer, the publisher's",
	}
	if len(byType) == 0 {
		m.Err = errors.New("there is no function: nothing would be checked")
	}
	for typ, f := range byType {
		if f == nil {
			m.Err = fmt.Errorf("the function for %q is nil", typ)
		}
	}
	rest := byType[""]
	check := func(m *pubsub.Message) (err error) {
		f, ok := byType[m.Type]
		if !ok {
			f = rest
		}
		if f == nil {
			return nil
		}
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("its validation panicked: %v", r)
			}
		}()
		return f(m)
	}
	m.Outgoing = func(_ context.Context, _ string, m *pubsub.Message) error { return check(m) }
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			if err := check(&d.Message); err != nil {
				return pubsub.GiveUp(pubsub.ReasonValidation, fmt.Errorf("not valid: %w", err))
			}
			return next(ctx, d)
		}
	}
	return m
}
