package primitive

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
)

// A Signature is one algorithm for signatures, with one key. Safe for concurrent use.
type Signature interface {
	Sign(message []byte) ([]byte, error) // an error where the private half is missing
	Verify(message, signature []byte) bool
	Private() []byte // nil = the private half is missing
	Public() []byte  // nil = there is none
}

// ErrNoPrivate is what a key says that can only verify, or only wrap.
const ErrNoPrivate = constError("the key has no private half")

type constError string

func (e constError) Error() string { return string(e) }

// ed25519Key is Ed25519 of RFC 8032.
type ed25519Key struct {
	private ed25519.PrivateKey // nil = only verifies
	public  ed25519.PublicKey
}

// NewEd25519 makes a key of a seed of 32 bytes, or of a public key of 32 bytes; one of them may be nil, and both must fit.
func NewEd25519(seed, public []byte) (Signature, error) {
	k := ed25519Key{public: public}
	if seed != nil {
		if len(seed) != ed25519.SeedSize {
			return nil, fmt.Errorf("an Ed25519 private key has %d bytes, not %d", ed25519.SeedSize, len(seed))
		}
		k.private = ed25519.NewKeyFromSeed(seed)
		own, _ := k.private.Public().(ed25519.PublicKey)
		if public != nil && !own.Equal(ed25519.PublicKey(public)) {
			return nil, errors.New("the public key belongs to another private key")
		}
		k.public = own
	}
	if len(k.public) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("an Ed25519 public key has %d bytes, not %d", ed25519.PublicKeySize, len(k.public))
	}
	return k, nil
}

func (k ed25519Key) Sign(message []byte) ([]byte, error) {
	if k.private == nil {
		return nil, ErrNoPrivate
	}
	return ed25519.Sign(k.private, message), nil
}

func (k ed25519Key) Verify(message, signature []byte) bool {
	return ed25519.Verify(k.public, message, signature)
}

func (k ed25519Key) Private() []byte {
	if k.private == nil {
		return nil
	}
	return k.private.Seed()
}

func (k ed25519Key) Public() []byte { return k.public }

// p256Key is ECDSA on P-256 with SHA-256; its signatures are DER.
type p256Key struct {
	private *ecdsa.PrivateKey // nil = only verifies
	public  *ecdsa.PublicKey
}

// NewP256 makes a key of a private key of 32 bytes, or of an uncompressed public point of 65 bytes; one of them may be nil, and both must fit.
func NewP256(private, public []byte) (Signature, error) {
	var k p256Key
	var err error
	if public != nil {
		if k.public, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), public); err != nil {
			return nil, errors.New("this is no uncompressed point of P-256")
		}
	}
	if private != nil {
		if k.private, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), private); err != nil {
			return nil, errors.New("this is no private key of P-256") // not err: it might tell of the key
		}
		if k.public != nil && !k.private.PublicKey.Equal(k.public) {
			return nil, errors.New("the public key belongs to another private key")
		}
		k.public = &k.private.PublicKey
	}
	if k.public == nil {
		return nil, errors.New("there is neither a private nor a public key")
	}
	return k, nil
}

// Sign is deterministic, as RFC 6979 has it: a weak source of random numbers cannot give the key away.
func (k p256Key) Sign(message []byte) ([]byte, error) {
	if k.private == nil {
		return nil, ErrNoPrivate
	}
	digest := sha256.Sum256(message)
	return k.private.Sign(nil, digest[:], crypto.SHA256)
}

func (k p256Key) Verify(message, signature []byte) bool {
	digest := sha256.Sum256(message)
	return ecdsa.VerifyASN1(k.public, digest[:], signature)
}

func (k p256Key) Private() []byte {
	if k.private == nil {
		return nil
	}
	b, err := k.private.Bytes()
	if err != nil {
		return nil // it was parsed, so it has some
	}
	return b
}

func (k p256Key) Public() []byte {
	b, err := k.public.Bytes()
	if err != nil {
		return nil
	}
	return b
}

const hmacSize = 32 // of a key, at least, and of a signature

// hmacKey is HMAC with SHA-256: who can verify can sign.
type hmacKey []byte

// NewHMAC makes a key of a secret of at least 32 bytes.
func NewHMAC(secret []byte) (Signature, error) {
	if len(secret) < hmacSize {
		return nil, fmt.Errorf("an HMAC key has at least %d bytes, not %d", hmacSize, len(secret))
	}
	return hmacKey(secret), nil
}

func (k hmacKey) Sign(message []byte) ([]byte, error) {
	return hmacSum(k, message), nil
}

func (k hmacKey) Verify(message, signature []byte) bool {
	return hmac.Equal(hmacSum(k, message), signature)
}

func (k hmacKey) Private() []byte { return k }
func (k hmacKey) Public() []byte  { return nil }

func hmacSum(key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message) // never fails
	return h.Sum(nil)
}

// Equal compares two secrets, or what is made of them, in constant time.
func Equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// Random makes n bytes that nobody can guess.
func Random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails: the process ends first
	return b
}
