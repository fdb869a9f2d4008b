package security

import (
	"context"
	"errors"
	"fmt"

	"github.com/omnibus-go/omnibus/middleware/security/internal/primitive"
)

// A KMS keeps the keys that wrap data keys, on one side of the wire or both. Many goroutines call it. A Keyring has one, and module tinkkeys has one of Tink keysets.
type KMS interface {
	// Provider names it on the wire, in 1 to 255 bytes: who unwraps finds it by that.
	Provider() string

	// Current names the key that wraps now, in 1 to 255 bytes. It is asked for each message, so it must not wait for anything; another answer than before
	// makes a new data key.
	Current() (kek string, err error)

	// Wrap encrypts a data key. What it returns must not open with another binding; a KMS that cannot see to that is Unbound.
	Wrap(ctx context.Context, kek string, dek, binding []byte) ([]byte, error)

	// Unwrap undoes it. ErrUnwrap says that this will never open: no such key, no right to it, not authentic. Any other error is an outage, and will be
	// tried again for as long as it takes.
	Unwrap(ctx context.Context, kek string, wrapped, binding []byte) ([]byte, error)
}

// ErrUnwrap is what KMS.Unwrap says of a wrapped key that will never open.
const ErrUnwrap = unwrapError("the data key cannot be unwrapped")

type unwrapError string

func (e unwrapError) Error() string { return string(e) }

// Unbound is implemented by a KMS that cannot bind what it wraps to a context. It is refused unless EncryptOptions.AllowUnbound names its provider.
type Unbound interface {
	Unbound() bool // true = what it wraps opens whatever the binding
}

// Versioned is implemented by a KMS whose keys can be revoked from one moment to the next: another version than before, and no data key that was unwrapped
// earlier is used again without asking.
type Versioned interface {
	Version() uint64 // asked for each message, so it must not wait for anything
}

const keyringProvider = "keyring"

// KMS returns the Keyring's own: it wraps for recipient, with that one's active key, and unwraps with whatever key of the Keyring a message names and is not
// revoked. recipient may be "" where nothing is published.
func (r *Keyring) KMS(recipient string) KMS { return keyringKMS{r, recipient} }

type keyringKMS struct {
	ring      *Keyring
	recipient string
}

func (k keyringKMS) Provider() string { return keyringProvider }
func (k keyringKMS) Version() uint64  { return k.ring.now().version }

func (k keyringKMS) Current() (string, error) {
	if key := k.ring.now().wraps[k.recipient]; key != nil {
		return key.ID, nil
	}
	return "", fmt.Errorf("the keyring has no active key that wraps for %q", k.recipient)
}

func (k keyringKMS) Wrap(_ context.Context, kek string, dek, binding []byte) ([]byte, error) {
	key := k.ring.now().byID[kek]
	if key == nil || key.wrap == nil || key.Status != Active {
		return nil, fmt.Errorf("the keyring has no active key %q that wraps", kek)
	}
	return key.wrap.Wrap(dek, binding)
}

func (k keyringKMS) Unwrap(_ context.Context, kek string, wrapped, binding []byte) ([]byte, error) {
	key := k.ring.now().accepted([]byte(kek))
	if key == nil || key.wrap == nil {
		return nil, ErrUnwrap
	}
	dek, err := key.wrap.Unwrap(wrapped, binding)
	if errors.Is(err, primitive.ErrOpen) || errors.Is(err, primitive.ErrNoPrivate) {
		return nil, ErrUnwrap
	}
	return dek, err
}
