package security

import "github.com/omnibus-go/omnibus/middleware/security/internal/primitive"

// A Suite is what a key is for, as it is named on the wire and in keyring files.
type Suite string

const (
	Ed25519    Suite = "ed25519"     // signatures: the fastest that others can verify
	P256       Suite = "p256"        // signatures: ECDSA with SHA-256, for who must have NIST's curves
	HMACSHA256 Suite = "hmac-sha256" // for one trust domain only: who can verify can sign
	AES256GCM  Suite = "aes256gcm"   // wraps data keys with a secret that both sides have
	HPKEX25519 Suite = "hpke-x25519" // wraps data keys for who has the private half
	HPKEP256   Suite = "hpke-p256"   // the same, on a curve of NIST
)

// signs says whether keys of the suite are for signatures.
func (s Suite) signs() bool { return s == Ed25519 || s == P256 || s == HMACSHA256 }

// symmetric says whether there is but one key, and that a secret.
func (s Suite) symmetric() bool { return s == HMACSHA256 || s == AES256GCM }

func newSignature(s Suite, private, public []byte) (primitive.Signature, error) {
	switch s {
	case Ed25519:
		return primitive.NewEd25519(private, public)
	case P256:
		return primitive.NewP256(private, public)
	default:
		return primitive.NewHMAC(private)
	}
}
