package security

import (
	"context"
	"crypto/sha256"
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
		return errNoSign
	}
	text, err := encryptionOf(&d.Message)
	switch {
	case err != nil:
		return err
	case text == "" && (d.Payload == nil || e.Plain):
		return nil
	case text == "":
		return ErrUnencrypted
	case d.Payload == nil:
		return ErrUndecryptable
	}
	if e.Unsigned {
		producer = ""
	}
	key := e.open(ctx, text, producer, topic)
	if key.err != nil {
		return key.err
	}
	f := e.associated(key.bound, &d.Message)
	if f == nil {
		return ErrUndecryptable
	}
	defer e.frames.Put(f)
	plain, err := key.cipher.Open(d.Payload, f.envelope(typeCipher))
	if err != nil {
		return ErrUndecryptable
	}
	d.Payload = plain
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
			return "", ErrMalformed
		}
		text = h.Value
	}
	return text, nil
}

// open returns the key of a header omnienc.
func (e *encrypter) open(ctx context.Context, text, producer, topic string) opened {
	return e.cache.open(ctx, e.nameOf(text, producer, topic), func(ctx context.Context) opened {
		env, ok := parseEnvelope(text)
		if !ok {
			return opened{err: ErrMalformed}
		}
		c, err := e.unwrap(ctx, &env, producer, topic)
		return opened{c, env.bound(producer, topic), err}
	})
}

// nameOf is what a data key is kept under: all that it depends on.
func (e *encrypter) nameOf(text, producer, topic string) cacheKey {
	f := e.borrow()
	defer e.frames.Put(f)
	for _, k := range e.Unwrap {
		if v, ok := k.(Versioned); ok {
			f.int64(int64(v.Version()))
		}
	}
	f.text8(producer)
	f.text8(topic)
	*f = append(*f, text...)
	return sha256.Sum256(*f)
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
		c, err := unwrap(ctx, e.Unwrap[at], env, r, binding)
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
	return c, ErrUndecryptable
}
