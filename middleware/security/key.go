package security

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"log/slog"

	"github.com/omnibus-go/omnibus/middleware/security/internal/primitive"
)

// A Status is how far a key is in its life. The zero value is no status.
type Status string

const (
	Active  Status = "active"  // signs or wraps, and is accepted
	Passive Status = "passive" // is only accepted: a new key that others must hear of first, or an old one whose messages still lie around
	Revoked Status = "revoked" // is never accepted, whenever a message says that it was signed
)

// A Key is one key of a Keyring. It is a value that cannot change; none of its forms in text, logs and JSON has anything of the key itself: EncodeKeys
// writes that. The zero value is no key.
type Key struct {
	ID     string // names the key on the wire, in one Keyring only once; 1 to 255 bytes
	Suite  Suite  // what it is for: to sign, or to wrap
	Owner  string // who signs with it, or for whom it wraps; 1 to 255 bytes
	Status Status // Active, Passive or Revoked

	signature primitive.Signature // of a suite that signs
	wrap      primitive.Wrap      // of the others
}

const maxName = 255 // bytes of what stands behind a length of one byte

// GenerateKey makes a new key, which is active. An unknown suite is an error, and so is an ID or an owner of no bytes or more than 255.
func GenerateKey(suite Suite, id, owner string) (Key, error) {
	var private []byte
	switch suite {
	case Ed25519, HMACSHA256, AES256GCM:
		private = primitive.Random(primitive.KeySize)
	case P256, HPKEP256, HPKEX25519:
		curve := ecdh.P256()
		if suite == HPKEX25519 {
			curve = ecdh.X25519()
		}
		k, err := curve.GenerateKey(nil) // the reader is not looked at
		if err != nil {
			return Key{}, fmt.Errorf("key %q: %w", id, err)
		}
		private = k.Bytes()
	}
	return newKey(suite, id, owner, Active, private, nil)
}

// newKey makes a key of its halves, one of which may be nil.
func newKey(suite Suite, id, owner string, status Status, private, public []byte) (Key, error) {
	k := Key{ID: id, Suite: suite, Owner: owner, Status: status}
	var err error
	switch {
	case suite.symmetric() && public != nil:
		err = errors.New("a key of this suite has no public half")
	case suite.signs():
		k.signature, err = newSignature(suite, private, public)
	case suite == AES256GCM:
		k.wrap, err = primitive.NewCipherWrap(private)
	case suite == HPKEX25519:
		k.wrap, err = primitive.NewPublicWrap(ecdh.X25519(), private, public)
	case suite == HPKEP256:
		k.wrap, err = primitive.NewPublicWrap(ecdh.P256(), private, public)
	default:
		err = fmt.Errorf("there is no suite %q", suite)
	}
	if err != nil {
		return Key{}, fmt.Errorf("key %q: %w", id, err)
	}
	if err := k.check(); err != nil {
		return Key{}, err
	}
	return k, nil
}

// check says what is wrong with what anybody can set. A status that there is not would be neither active nor revoked: a key that was to be revoked be accepted.
func (k *Key) check() error {
	switch {
	case k.signature == nil && k.wrap == nil:
		return errors.New("a zero Key")
	case k.ID == "" || len(k.ID) > maxName:
		return fmt.Errorf("key %q: its ID has %d bytes; it needs 1 to %d", k.ID, len(k.ID), maxName)
	case k.Owner == "" || len(k.Owner) > maxName:
		return fmt.Errorf("key %q: its owner has %d bytes; it needs 1 to %d", k.ID, len(k.Owner), maxName)
	case k.Status != Active && k.Status != Passive && k.Status != Revoked:
		return fmt.Errorf("key %q: its status is %q, which is none of active, passive, revoked", k.ID, k.Status)
	case k.Suite.signs() != (k.signature != nil):
		return fmt.Errorf("key %q: it is of another suite than %q", k.ID, k.Suite)
	}
	return nil
}

// With returns the key with another status. One that is none of the three is refused by whoever gets the key.
func (k Key) With(s Status) Key {
	k.Status = s
	return k
}

// Public returns the key without its private half, for those who verify, or wrap for its owner. A symmetric key has no such half: that is an error.
func (k Key) Public() (Key, error) {
	if k.Suite.symmetric() {
		return Key{}, fmt.Errorf("key %q: %s is symmetric: who accepts it can also make it", k.ID, k.Suite)
	}
	return newKey(k.Suite, k.ID, k.Owner, k.Status, nil, k.public())
}

// HasPrivate says whether the key has a private half, or is symmetric: whoever has it can sign, or unwrap.
func (k Key) HasPrivate() bool { return k.private() != nil }

func (k Key) private() []byte {
	switch {
	case k.signature != nil:
		return k.signature.Private()
	case k.wrap != nil:
		return k.wrap.Private()
	}
	return nil
}

func (k Key) public() []byte {
	switch {
	case k.signature != nil:
		return k.signature.Public()
	case k.wrap != nil:
		return k.wrap.Public()
	}
	return nil
}

// String tells which key it is.
func (k Key) String() string { return fmt.Sprintf("key %q (%s, %s)", k.ID, k.Suite, k.Status) }

// Format writes the String, whatever the verb.
func (k Key) Format(s fmt.State, _ rune) { fmt.Fprint(s, k.String()) }

// LogValue is the String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText is the String: nothing that prints JSON prints a key.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
