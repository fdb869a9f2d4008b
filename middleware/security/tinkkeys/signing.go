package tinkkeys

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/signature/ecdsa"
	"github.com/tink-crypto/tink-go/v2/signature/ed25519"

	"github.com/omnibus-go/omnibus/middleware/security"
)

// SigningKeys makes keys of a security.Keyring out of a signature keyset, or of its public one for who verifies. They are owner's, and called by owner and the key's
// ID, as in "orders/1234567890". The primary key is active; others are passive, disabled ones revoked, destroyed ones left out. What they sign Tink verifies, and the
// other way round: a key whose signatures would differ is an error, which is one with a prefix of Tink's, another curve, another hash, or P1363 instead of DER.
//
// The keys are out of Tink's hands then. A Keyring gets them by NewKeyring or Replace; also those of a keyset that has changed.
func SigningKeys(h *keyset.Handle, owner string) ([]security.Key, error) {
	if _, err := h.Primary(); err != nil {
		return nil, fmt.Errorf("keyset: it has no primary key: %w", err)
	}
	var ring struct {
		Keys []exported `json:"keys"`
	}
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			return nil, fmt.Errorf("keyset: %w", err)
		}
		if e.KeyStatus() == keyset.Destroyed {
			continue
		}
		out := exported{ID: owner + "/" + nameOf(e), Owner: owner, Status: statusOf(e)}
		if err := out.take(e.Key()); err != nil {
			return nil, fmt.Errorf("keyset: key %s %w", nameOf(e), err)
		}
		ring.Keys = append(ring.Keys, out)
	}
	b, err := json.Marshal(ring)
	if err != nil {
		return nil, fmt.Errorf("keyset: %w", err)
	}
	return security.DecodeKeys(b)
}

// exported is a key as security.DecodeKeys reads it.
type exported struct {
	ID      string          `json:"kid"`
	Suite   security.Suite  `json:"suite"`
	Owner   string          `json:"owner"`
	Status  security.Status `json:"status"`
	Private string          `json:"private,omitempty"`
	Public  string          `json:"public,omitempty"`
}

func statusOf(e *keyset.Entry) security.Status {
	switch {
	case e.KeyStatus() != keyset.Enabled:
		return security.Revoked
	case e.IsPrimary():
		return security.Active
	default:
		return security.Passive
	}
}

func (x *exported) take(k key.Key) error {
	switch k := k.(type) {
	case *ed25519.PrivateKey:
		x.private(security.Ed25519, k.PrivateKeyBytes())
		return takesEd25519(k.Parameters())
	case *ed25519.PublicKey:
		x.public(security.Ed25519, k.KeyBytes())
		return takesEd25519(k.Parameters())
	case *ecdsa.PrivateKey:
		x.private(security.P256, k.PrivateKeyValue())
		return takesP256(k.Parameters())
	case *ecdsa.PublicKey:
		x.public(security.P256, k.PublicPoint())
		return takesP256(k.Parameters())
	}
	return fmt.Errorf("is a %T: it does not sign, or not with Ed25519 or P-256; make the keyset of ED25519KeyWithoutPrefixTemplate or ECDSAP256KeyWithoutPrefixTemplate", k)
}

func (x *exported) private(s security.Suite, b secretdata.Bytes) {
	x.Suite, x.Private = s, base64.RawURLEncoding.EncodeToString(b.Data(insecuresecretdataaccess.Token{}))
}

func (x *exported) public(s security.Suite, b []byte) {
	x.Suite, x.Public = s, base64.RawURLEncoding.EncodeToString(b)
}

func takesEd25519(p key.Parameters) error {
	if p, ok := p.(*ed25519.Parameters); ok && p.Variant() == ed25519.VariantNoPrefix {
		return nil
	}
	return errors.New("makes signatures with a prefix of Tink's, which these messages do not have: make the keyset of ED25519KeyWithoutPrefixTemplate")
}

func takesP256(p key.Parameters) error {
	if p, ok := p.(*ecdsa.Parameters); ok && p.Variant() == ecdsa.VariantNoPrefix && p.CurveType() == ecdsa.NistP256 && p.HashType() == ecdsa.SHA256 &&
		p.SignatureEncoding() == ecdsa.DER {
		return nil
	}
	return errors.New("makes other signatures than these messages have, which are ECDSA on P-256 with SHA-256 in DER without a prefix: make the keyset of " +
		"ECDSAP256KeyWithoutPrefixTemplate")
}
