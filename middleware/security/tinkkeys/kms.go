package tinkkeys

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/omnibus-go/omnibus/middleware/security"
)

const defaultProvider = "tink"

// Options are what New takes. The zero value is usable.
type Options struct {
	Provider string // names the KMS on the wire: who unwraps must call it the same, and by another name another keyset that it unwraps with; "" = "tink"
}

// A KMS is a security.KMS with the keys of a Tink keyset. Safe for concurrent use. There is nothing to close.
type KMS struct {
	provider string
	file     *file // nil = it comes from none

	keys    atomic.Pointer[keys]
	version atomic.Uint64
}

// New makes a KMS of an AEAD keyset, a hybrid one, or a public keyset of that, which wraps only. Any other is an error.
func New(h *keyset.Handle, opts Options) (*KMS, error) {
	k := newKMS(opts.Provider)
	if err := k.Replace(h); err != nil {
		return nil, err
	}
	return k, nil
}

func newKMS(provider string) *KMS {
	if provider == "" {
		provider = defaultProvider
	}
	return &KMS{provider: provider}
}

// Replace gives the KMS another keyset, at once. Where it returns an error nothing has changed. What it gives a KMS that comes from a file counts until that changes.
func (k *KMS) Replace(h *keyset.Handle) error {
	all, err := keysOf(h)
	if err != nil {
		return fmt.Errorf("keyset: %w", err)
	}
	k.install(all)
	return nil
}

// install makes keys count. What is unwrapped after the new version is known is unwrapped with them, so they come first.
func (k *KMS) install(all *keys) {
	k.keys.Store(all)
	k.version.Add(1)
}

// Provider is Options.Provider.
func (k *KMS) Provider() string { return k.provider }

// Version changes with the keyset.
func (k *KMS) Version() uint64 {
	if k.file != nil {
		k.file.look(k, time.Now(), false)
	}
	return k.version.Load()
}

// Current is the ID of the primary key.
func (k *KMS) Current() (string, error) {
	if k.file != nil {
		k.file.look(k, time.Now(), false)
		k.file.rest()
	}
	return k.keys.Load().primary, nil
}

// Wrap encrypts with the primary key.
func (k *KMS) Wrap(_ context.Context, kek string, dek, binding []byte) ([]byte, error) {
	all := k.keys.Load()
	if kek != all.primary {
		return nil, fmt.Errorf("the key %s is not the primary one of the keyset", kek)
	}
	return all.byID[kek].wrap(dek, binding)
}

// Unwrap decrypts with the key that is named. One that is not known is looked for in the file at once; where that cannot be read nobody knows whether it is there,
// which is an outage.
func (k *KMS) Unwrap(ctx context.Context, kek string, wrapped, binding []byte) ([]byte, error) {
	key, err := k.find(ctx, kek)
	if err != nil {
		return nil, err
	}
	if key.unwrap == nil {
		return nil, security.ErrUnwrap
	}
	dek, err := key.unwrap(wrapped, binding)
	if err != nil {
		return nil, security.ErrUnwrap // the keys are here, so it is no outage
	}
	return dek, nil
}

// find returns an enabled key, or ErrUnwrap, or why nobody knows whether there is one.
func (k *KMS) find(ctx context.Context, kek string) (wrapper, error) {
	if k.file == nil {
		if key, ok := k.keys.Load().byID[kek]; ok {
			return key, nil
		}
		return wrapper{}, security.ErrUnwrap
	}
	for _, atOnce := range []bool{false, true} {
		k.file.look(k, time.Now(), atOnce)
		if err := k.file.wait(ctx); err != nil {
			return wrapper{}, err
		}
		if key, ok := k.keys.Load().byID[kek]; ok {
			return key, nil
		}
	}
	if err := k.file.reason(); err != nil {
		return wrapper{}, fmt.Errorf("the key %s may be in a file that cannot be used: %w", kek, err)
	}
	return wrapper{}, security.ErrUnwrap
}
