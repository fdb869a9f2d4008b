package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// Typed binds a Go type to its messages, once for both directions. The zero value is JSON with no key and no type.
type Typed[T any] struct {
	Type  string         // Message.Type; a message of another type is dead-lettered; "" = not checked
	Key   func(T) string // Message.Key; nil = none
	Codec Codec          // nil = JSON
}

// Message encodes v. An error is an ErrInvalid with the codec's own inside.
func (t Typed[T]) Message(v T) (Message, error) {
	b, err := t.codec().Marshal(v)
	if err != nil {
		return Message{}, &Error{Op: "encode", Code: ErrInvalid, Err: err}
	}
	m := Message{Type: t.Type, Payload: b, ContentType: t.codec().ContentType()}
	if t.Key != nil {
		m.Key = t.Key(v)
	}
	return m, nil
}

// Publish encodes v and publishes it to topic. Its errors are those of Message and of Publisher.Publish.
func (t Typed[T]) Publish(ctx context.Context, p Publisher, topic string, v T) error {
	m, err := t.Message(v)
	if err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			e.Topic = topic
		}
		return err
	}
	return p.Publish(ctx, topic, m)
}

// Decode reads a delivery. The error is already Permanent.
func (t Typed[T]) Decode(d *Delivery) (v T, err error) {
	if t.Type != "" && d.Type != t.Type {
		return v, undecodable(fmt.Errorf("type is %q, want %q", d.Type, t.Type))
	}
	if err := t.codec().Unmarshal(d.Payload, &v); err != nil {
		return v, undecodable(err)
	}
	return v, nil
}

func undecodable(err error) error {
	return &outcome{kind: OutcomePermanent, reason: ReasonUndecodable, err: fmt.Errorf("cannot be decoded: %w", err)}
}

// Handler decodes, then calls h. What cannot be decoded goes to the dead letters as it came.
func (t Typed[T]) Handler(h func(ctx context.Context, v T, d *Delivery) error) Handler {
	if h == nil {
		return nil // Subscribe refuses it by name
	}
	return func(ctx context.Context, d *Delivery) error {
		v, err := t.Decode(d)
		if err != nil {
			return err
		}
		return h(ctx, v, d)
	}
}

// BatchHandler decodes a batch, then calls h with those that could be; the others go to the dead letters as they came.
// The Errs of a *BatchError that h returns are by index of what h was given.
func (t Typed[T]) BatchHandler(h func(ctx context.Context, vs []T, ds []*Delivery) error) BatchHandler {
	if h == nil {
		return nil
	}
	return func(ctx context.Context, batch []*Delivery) error {
		vs, ds := make([]T, 0, len(batch)), make([]*Delivery, 0, len(batch))
		errs := make([]error, len(batch))
		at := make([]int, 0, len(batch))
		for i, d := range batch {
			v, err := t.Decode(d)
			if err != nil {
				errs[i] = err
				continue
			}
			vs, ds, at = append(vs, v), append(ds, d), append(at, i)
		}
		if len(vs) > 0 {
			for j, err := range batchErrors(h(ctx, vs, ds), len(vs)) {
				errs[at[j]] = err
			}
		}
		return &BatchError{Errs: errs}
	}
}

// batchErrors spreads what a BatchHandler returned over its n messages.
func batchErrors(err error, n int) []error {
	if err == nil {
		return make([]error, n)
	}
	if b, ok := errors.AsType[*BatchError](err); ok {
		if len(b.Errs) == n {
			return b.Errs
		}
		err = fmt.Errorf("batch handler returned %d errors for %d messages: %w", len(b.Errs), n, err)
	}
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

func (t Typed[T]) codec() Codec {
	if t.Codec == nil {
		return JSON{}
	}
	return t.Codec
}

// A Codec turns values into payloads and back. Unmarshal gets a pointer. Safe for concurrent use.
type Codec interface {
	ContentType() string                // a media type, e.g. "application/json"
	Marshal(v any) ([]byte, error)      // an error is an ErrInvalid of Typed.Message
	Unmarshal(data []byte, v any) error // an error sends the message to the dead letters, as undecodable
}

// JSON is the Codec of encoding/json.
type JSON struct{}

// ContentType is application/json.
func (JSON) ContentType() string { return "application/json" }

// Marshal is json.Marshal.
func (JSON) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

// Unmarshal is json.Unmarshal.
func (JSON) Unmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }
