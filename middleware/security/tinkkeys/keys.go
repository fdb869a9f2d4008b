package tinkkeys

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesctrhmac"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcmsiv"
	"github.com/tink-crypto/tink-go/v2/aead/chacha20poly1305"
	"github.com/tink-crypto/tink-go/v2/aead/xaesgcm"
	"github.com/tink-crypto/tink-go/v2/aead/xchacha20poly1305"
	"github.com/tink-crypto/tink-go/v2/hybrid"
	"github.com/tink-crypto/tink-go/v2/hybrid/ecies"
	"github.com/tink-crypto/tink-go/v2/hybrid/hpke"
	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// A keys is what a KMS takes of one keyset. It never changes.
type keys struct {
	primary string
	byID    map[string]wrapper // those that are enabled, by their names on the wire
}

// A wrapper is one key, with which nothing but its own ciphertexts opens. Of a public half unwrap is nil.
type wrapper struct {
	wrap, unwrap func(secret, context []byte) ([]byte, error)
}

// keysOf makes a wrapper of each enabled key. Disabled ones are asked nothing: what is not there will never open.
func keysOf(h *keyset.Handle) (*keys, error) {
	primary, err := h.Primary()
	if err != nil {
		return nil, fmt.Errorf("the keyset has no primary key: %w", err)
	}
	all := &keys{primary: nameOf(primary), byID: map[string]wrapper{}}
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			return nil, err
		}
		if e.KeyStatus() != keyset.Enabled {
			continue
		}
		alone, err := only(h, e.KeyID())
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", nameOf(e), err)
		}
		if all.byID[nameOf(e)], err = newWrapper(alone, e.Key()); err != nil {
			return nil, fmt.Errorf("key %s: %w", nameOf(e), err)
		}
	}
	if _, ok := all.byID[all.primary]; !ok {
		return nil, fmt.Errorf("the primary key %s is not enabled: make another one primary (tinkey promote-key)", all.primary)
	}
	return all, nil
}

func nameOf(e *keyset.Entry) string { return strconv.FormatUint(uint64(e.KeyID()), 10) }

// only is the keyset of one of the keys. Tink's own primitives over a whole keyset try all its keys without a prefix; here a message names one.
func only(h *keyset.Handle, id uint32) (*keyset.Handle, error) {
	m := keyset.NewManagerFromHandle(h)
	if err := m.SetPrimary(id); err != nil {
		return nil, err
	}
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			return nil, err
		}
		if e.KeyID() == id {
			continue
		}
		if err := m.Delete(e.KeyID()); err != nil {
			return nil, err
		}
	}
	return m.Handle()
}

func newWrapper(h *keyset.Handle, k key.Key) (wrapper, error) {
	switch k.(type) {
	case *aesgcm.Key, *aesgcmsiv.Key, *aesctrhmac.Key, *chacha20poly1305.Key, *xchacha20poly1305.Key, *xaesgcm.Key:
		a, err := aead.New(h)
		if err != nil {
			return wrapper{}, err
		}
		return wrapper{a.Encrypt, a.Decrypt}, nil
	case *hpke.PublicKey, *ecies.PublicKey:
		enc, err := hybrid.NewHybridEncrypt(h)
		if err != nil {
			return wrapper{}, err
		}
		return wrapper{enc.Encrypt, nil}, nil
	case *hpke.PrivateKey, *ecies.PrivateKey:
		dec, err := hybrid.NewHybridDecrypt(h)
		if err != nil {
			return wrapper{}, err
		}
		public, err := h.Public()
		if err != nil {
			return wrapper{}, err
		}
		enc, err := hybrid.NewHybridEncrypt(public)
		if err != nil {
			return wrapper{}, err
		}
		return wrapper{enc.Encrypt, dec.Decrypt}, nil
	default:
		return wrapper{}, notThisPrimitive(h, "wrap data keys: make the keyset of an AEAD or a hybrid template, AES256_GCM for one; keys that are at a cloud's KMS are none")
	}
}

// notThisPrimitive says of which type a key is, and what it cannot do.
func notThisPrimitive(h *keyset.Handle, what string) error {
	if infos := h.KeysetInfo().GetKeyInfo(); len(infos) == 1 {
		return fmt.Errorf("a key of the type %s cannot %s", infos[0].GetTypeUrl(), what)
	}
	return errors.New("the key cannot " + what)
}
