package security

import (
	"context"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security/internal/primitive"
	"github.com/omnibus-go/omnibus/pubsub"
)

// LookAt lets a Keyring look at its file, if it is time, by a clock that says so.
func LookAt(r *Keyring, now time.Time) { r.file.look(r, now) }

// EncryptWithin is Encrypt with data keys that may do less.
func EncryptWithin(opts EncryptOptions, messages, bytes int64) pubsub.Middleware {
	e := newEncrypter(opts)
	e.keys.limits.messages, e.keys.limits.bytes = messages, bytes
	return pubsub.Middleware{Name: "encrypt", Outgoing: e.outgoing, Incoming: e.incoming, Err: e.check()}
}

// TwoKeys makes a header omnienc whose recipients each have another data key, as somebody would who wants each to read another text. The first is the one that
// is committed to.
func TwoKeys(kms []KMS, producer, topic string) (header string, err error) {
	e := envelope{id: primitive.Random(sizeID)}
	deks := [][]byte{primitive.Random(primitive.KeySize), primitive.Random(primitive.KeySize)}
	if _, e.commit, err = derive(deks[0], e.id); err != nil {
		return "", err
	}
	for i, k := range kms {
		kek, err := k.Current()
		if err != nil {
			return "", err
		}
		wrapped, err := k.Wrap(context.Background(), kek, deks[i], e.binding(producer, topic))
		if err != nil {
			return "", err
		}
		e.recipients = append(e.recipients, recipient{k.Provider(), kek, wrapped})
	}
	return e.encode(), nil
}

// OpensKey says why the data key of a recipient cannot be used.
func OpensKey(k KMS, header, producer, topic string, at int) error {
	e, ok := parseEnvelope(header)
	if !ok {
		return errFrame
	}
	_, err := unwrap(context.Background(), k, &e, &e.recipients[at], e.binding(producer, topic))
	return err
}

// Reencode reads a header omnienc and writes it again; ok = false where it is none.
func Reencode(text string) (again string, ok bool) {
	e, ok := parseEnvelope(text)
	if !ok {
		return "", false
	}
	return e.encode(), true
}

// Envelope puts the pre-authentication encoding around a body.
func Envelope(kind, body string) []byte {
	return append(make(frame, headroom), body...).envelope(kind)
}
