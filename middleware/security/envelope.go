package security

import (
	"bytes"

	"github.com/omnibus-go/omnibus/middleware/security/internal/primitive"
)

const (
	magic         = "OMN"
	suiteCipher   = 1 // aes256gcm, the only one
	sizeID        = 16
	sizeCommit    = 32
	maxRecipients = 8

	infoKey    = "omnibus/v1/aes256gcm/key"
	infoCommit = "omnibus/v1/aes256gcm/commit"
)

// An envelope is what omnienc says: which data key encrypts the payload, and for whom it is wrapped.
type envelope struct {
	id, commit []byte
	recipients []recipient
}

type recipient struct {
	provider, kek string
	wrapped       []byte
}

// encode writes the header.
func (e *envelope) encode() string {
	f := append(frame(magic), wireVersion, suiteCipher)
	f.raw(e.id)
	f.raw(e.commit)
	f.byte(byte(len(e.recipients)))
	for _, r := range e.recipients {
		f.text8(r.provider)
		f.text8(r.kek)
		f.bytes16(r.wrapped)
	}
	return encoding.EncodeToString(f)
}

// parseEnvelope reads the header, and says whether it is one.
func parseEnvelope(text string) (envelope, bool) {
	b, err := decode(text)
	if err != nil {
		return envelope{}, false
	}
	r := reader{rest: b}
	head := r.take(len(magic) + 2)
	e := envelope{id: r.take(sizeID), commit: r.take(sizeCommit)}
	n := int(r.byte())
	if r.bad || !bytes.Equal(head, append([]byte(magic), wireVersion, suiteCipher)) || n == 0 || n > maxRecipients {
		return envelope{}, false
	}
	e.recipients = make([]recipient, n)
	for i := range e.recipients {
		e.recipients[i] = recipient{string(r.bytes8()), string(r.bytes8()), r.bytes16()}
	}
	return e, r.end()
}

// bound is what says where a data key is used, and what is encrypted with it.
func (e *envelope) bound(producer, topic string) []byte {
	f := make(frame, 0, 64+len(producer)+len(topic))
	f.byte(suiteCipher)
	f.raw(e.id)
	f.raw(e.commit)
	f.text8(producer)
	f.text8(topic)
	return f
}

// binding is what a data key is wrapped with: nobody can use it elsewhere.
func (e *envelope) binding(producer, topic string) []byte {
	f := append(make(frame, headroom), e.bound(producer, topic)...)
	return f.envelope(typeWrap)
}

// derive makes of a data key what encrypts with it, and what says that no other key was meant.
func derive(dek, id []byte) (c primitive.Cipher, commit []byte, err error) {
	prk, err := primitive.Extract(dek, id)
	if err != nil {
		return c, nil, err
	}
	key, err := primitive.Expand(prk, infoKey, primitive.KeySize)
	if err != nil {
		return c, nil, err
	}
	if commit, err = primitive.Expand(prk, infoCommit, sizeCommit); err != nil {
		return c, nil, err
	}
	c, err = primitive.NewCipher(key)
	return c, commit, err
}
