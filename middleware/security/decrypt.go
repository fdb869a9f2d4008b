package security

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/omnibus-go/omnibus/middleware/security/internal/primitive"
	"github.com/omnibus-go/omnibus/pubsub"
)

func (e *encrypter) incoming(next pubsub.Handler) pubsub.Handler {
	return func(ctx context.Context, d *pubsub.Delivery) error {
		err := e.decrypt(ctx, d)
		switch {
		case err == nil:
			return next(ctx, d)
		case isRefusal(err):
			return pubsub.GiveUp(pubsub.ReasonVerification, err)
		default:
			return pubsub.Pause(e.Pause, err)
		}
	}
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[Refusal](err)
	return ok
}

// decrypt replaces the payload of d. An error that is no Refusal is an outage.
func (e *encrypter) decrypt(ctx context.Context, d *pubsub.Delivery) error {
	producer, topic := "", d.Topic
	if v, ok := From(ctx); ok {
		producer, topic = v.Producer, v.Topic
	} else if !e.Unsigned {
		return Unsigned
	}
	text, err := encryptionOf(&d.Message)
	switch {
	case err != nil:
		return err
	case text == "" && (d.Payload == nil || e.Plain):
		return nil
	case text == "":
		return Unencrypted
	case d.Payload == nil:
		return Undecryptable
	}
	env, ok := parseEnvelope(text)
	if !ok {
		return Malformed
	}
	if e.Unsigned {
		producer = ""
	}
	key, err := e.unwrap(ctx, &env, producer, topic)
	if err != nil {
		return err
	}
	err = e.associated(&env, producer, topic, &d.Message, func(ad []byte) error {
		plain, err := key.Open(d.Payload, ad)
		if err == nil {
			d.Payload = plain
		}
		return err
	})
	if err != nil {
		return Undecryptable
	}
	d.Headers.Del(headerEncryption)
	if len(d.Headers) == 0 {
		d.Headers = nil
	}
	return nil
}

// encryptionOf returns the header omnienc, "" where there is none.
func encryptionOf(m *pubsub.Message) (text string, err error) {
	for i := range m.Headers {
		h := &m.Headers[i]
		if !ownHeader(h.Name) || h.Name == headerSignature { // a signature that nobody asks for
			continue
		}
		if h.Name != headerEncryption || h.Kind != pubsub.HeaderText || text != "" || h.Value == "" || len(h.Value) > maxEncryption {
			return "", Malformed
		}
		text = h.Value
	}
	return text, nil
}

// unwrap finds the key that one of the recipients can have.
func (e *encrypter) unwrap(ctx context.Context, env *envelope, producer, topic string) (c primitive.Cipher, err error) {
	var outage error
	binding := env.binding(producer, topic)
	for i := range env.recipients {
		r := &env.recipients[i]
		at := slices.IndexFunc(e.Unwrap, func(k KMS) bool { return k.Provider() == r.provider })
		if at < 0 {
			continue
		}
		c, err := e.cache.open(ctx, e.Unwrap[at], env, r, binding)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, ErrUnwrap) {
			outage = fmt.Errorf("%q does not unwrap a data key: %w", r.provider, err)
		}
	}
	if outage != nil {
		return c, outage
	}
	return c, Undecryptable
}
