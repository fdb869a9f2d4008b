package pubsub

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A Middleware is one layer around the application, in both directions. Layers are listed from the wire
// inwards: incoming messages pass them top down, outgoing ones bottom up, so one list is right for both.
// Executing retries, dead letters and recovering panics are the engine's: no layer can be in the wrong order with them.
type Middleware struct {
	Name string // shown in errors; names the layer in After

	// Outgoing sees each message before it is sent, on the publishing goroutine. It may change m, which
	// is the engine's copy; an error refuses this message alone. nil = passes.
	Outgoing func(ctx context.Context, topic string, m *Message) error

	// Incoming wraps the handler; called once per subscription. d.Message may be replaced: every attempt starts
	// from the raw message again. A panic of the handler comes back to the layers as an error. nil = passes.
	Incoming func(next Handler) Handler

	// Observe is told what has happened. It must not block. nil = not interested.
	Observe func(Event)

	// After names layers that, where present, must be listed before this one; Why says what would go wrong. Open and Subscribe
	// refuse any other order and say it.
	After []string
	Why   string // in a few words, for the error; "" = "it says so"

	Err error // why the layer cannot be used as it was configured: Open and Subscribe refuse it; nil = it can
}

// An Event is something that has happened: a confirmation, a settlement, a retry, a reconnect.
type Event struct {
	Kind         EventKind     // what has happened
	Topic, Group string        // of the subscription, whose Topic may be a pattern; of EventPublished Topic alone, the message's
	Count        int           // messages that it is about; 0 for connections
	Bytes        int64         // payload bytes of those
	Attempt      int           // of EventDelivered, EventSettled, EventRetried and EventDeadLettered
	Policy       string        // of EventRetried and EventDeadLettered: the Name of the policy that decided; "" = none did
	Duration     time.Duration // EventPublished: until confirmed; EventSettled, EventRetried, EventDeadLettered: the handler's run; EventRetried's delay is not in it
	Err          error         // EventPublished: why it failed; the handler's failure; why the connection was lost
}

// EventKind says what happened.
type EventKind uint8

const (
	EventPublished    EventKind = iota // a message has its fate; Err tells which
	EventDelivered                     // a handler is about to be called
	EventSettled                       // acked
	EventRetried                       // failed or snoozed; it will be delivered again
	EventDeadLettered                  // given up, and stored (or dropped, where that was asked for)
	EventExpired                       // its TTL was over: acked without a handler
	EventDisconnected                  // a session of a subscription ended; Err says why
	EventReconnected                   // it has another one
)

// String is the event in a word, as in "settled".
func (k EventKind) String() string {
	return enumText(k, "published", "delivered", "settled", "retried", "dead-lettered", "expired", "disconnected", "reconnected")
}

// CheckLayers is what Open and Subscribe say of layers in this order: those of Options.Use, then those of Subscription.Use.
func CheckLayers(layers []Middleware) error { return checkLayers(layers) }

// checkLayers refuses layers that cannot be used, and an order in which one would do harm.
func checkLayers(layers []Middleware) error {
	for i, m := range layers {
		if m.Err != nil {
			return fmt.Errorf("middleware %q: %w", m.Name, m.Err)
		}
		for _, before := range m.After {
			if slices.ContainsFunc(layers[i+1:], func(o Middleware) bool { return o.Name == before }) {
				why := m.Why
				if why == "" {
					why = "it says so"
				}
				return fmt.Errorf("middleware %q must be listed after %q: %s", m.Name, before, why)
			}
		}
	}
	return nil
}

// wrapHandler puts the incoming halves around h, the first listed outermost.
func wrapHandler(layers []Middleware, h Handler) (Handler, error) {
	if slices.ContainsFunc(layers, func(m Middleware) bool { return m.Incoming != nil }) {
		h = recovering(h)
	}
	for _, m := range slices.Backward(layers) {
		if m.Incoming == nil {
			continue
		}
		if h = m.Incoming(h); h == nil {
			return nil, fmt.Errorf("middleware %q returned a nil handler", m.Name)
		}
	}
	return h, nil
}

// recovering turns a panic of h into an error, so that layers which clean up, count or log see one kind of failure.
func recovering(h Handler) Handler {
	return func(ctx context.Context, d *Delivery) (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = newPanic(r)
			}
		}()
		return h(ctx, d)
	}
}

func observers(layers []Middleware) []func(Event) {
	var obs []func(Event)
	for _, m := range layers {
		if m.Observe != nil {
			obs = append(obs, m.Observe)
		}
	}
	return obs
}
