package primitive

import (
	"crypto/ecdh"
	"crypto/hpke"
	"errors"
)

// A Wrap seals small secrets, bound to a context. Safe for concurrent use.
type Wrap interface {
	Wrap(secret, context []byte) ([]byte, error)
	Unwrap(wrapped, context []byte) ([]byte, error) // ErrOpen, or ErrNoPrivate
	Private() []byte                                // nil = the private half is missing
	Public() []byte                                 // nil = there is none
}

// cipherWrap is AES-256 in GCM with the context as associated data.
type cipherWrap struct {
	Cipher
	key []byte
}

// NewCipherWrap wraps with a key of 32 bytes.
func NewCipherWrap(key []byte) (Wrap, error) {
	c, err := NewCipher(key)
	return cipherWrap{c, key}, err
}

func (w cipherWrap) Wrap(secret, context []byte) ([]byte, error)    { return w.Seal(secret, context), nil }
func (w cipherWrap) Unwrap(wrapped, context []byte) ([]byte, error) { return w.Open(wrapped, context) }
func (w cipherWrap) Private() []byte                                { return w.key }
func (w cipherWrap) Public() []byte                                 { return nil }

// publicWrap is HPKE of RFC 9180 in base mode, with HKDF-SHA256 and AES-256-GCM, and the context as its info.
type publicWrap struct {
	private hpke.PrivateKey // nil = only wraps
	public  hpke.PublicKey
}

// NewPublicWrap makes a key of a private or a public key as RFC 9180 writes them; one of them may be nil, and both must fit.
func NewPublicWrap(curve ecdh.Curve, private, public []byte) (Wrap, error) {
	var w publicWrap
	var err error
	kem := hpke.DHKEM(curve)
	if public != nil {
		if w.public, err = kem.NewPublicKey(public); err != nil {
			return nil, errors.New("this is no public key of the suite")
		}
	}
	if private != nil {
		if w.private, err = kem.NewPrivateKey(private); err != nil {
			return nil, errors.New("this is no private key of the suite") // not err: it might tell of the key
		}
		own := w.private.PublicKey()
		if w.public != nil && !Equal(own.Bytes(), w.public.Bytes()) {
			return nil, errors.New("the public key belongs to another private key")
		}
		w.public = own
	}
	if w.public == nil {
		return nil, errors.New("there is neither a private nor a public key")
	}
	return w, nil
}

func (w publicWrap) Wrap(secret, context []byte) ([]byte, error) {
	return hpke.Seal(w.public, hpke.HKDFSHA256(), hpke.AES256GCM(), context, secret)
}

func (w publicWrap) Unwrap(wrapped, context []byte) ([]byte, error) {
	if w.private == nil {
		return nil, ErrNoPrivate
	}
	secret, err := hpke.Open(w.private, hpke.HKDFSHA256(), hpke.AES256GCM(), context, wrapped)
	if err != nil {
		return nil, ErrOpen
	}
	return secret, nil
}

func (w publicWrap) Private() []byte {
	if w.private == nil {
		return nil
	}
	b, err := w.private.Bytes()
	if err != nil {
		return nil // it was parsed, so it has some
	}
	return b
}

func (w publicWrap) Public() []byte { return w.public.Bytes() }
