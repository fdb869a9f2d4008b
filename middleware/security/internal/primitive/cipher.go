package primitive

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

const (
	// KeySize is that of AES-256, in bytes.
	KeySize = 32
	// Overhead is what sealing adds: a nonce of 12 bytes before, a tag of 16 behind.
	Overhead = 28
)

// A Cipher is AES-256 in GCM with one key. It seals under random nonces, so that a key is good for 2^32 messages. Safe for concurrent use.
type Cipher struct{ aead cipher.AEAD }

// NewCipher takes a key of 32 bytes.
func NewCipher(key []byte) (Cipher, error) {
	if len(key) != KeySize {
		return Cipher{}, fmt.Errorf("an AES-256 key has %d bytes, not %d", KeySize, len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return Cipher{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return Cipher{aead}, err
}

// Seal makes nonce, ciphertext and tag. plain stays as it is.
func (c Cipher) Seal(plain, associated []byte) []byte {
	return c.aead.Seal(make([]byte, 0, len(plain)+Overhead), nil, plain, associated) //nolint:gosec // no nonce is given: it makes one
}

// ErrOpen says that what was to be opened was not sealed with this key and this associated data. It tells no more.
const ErrOpen = constError("not authentic")

// Open returns what was sealed, never nil. sealed stays as it is.
func (c Cipher) Open(sealed, associated []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrOpen
	}
	plain, err := c.aead.Open(make([]byte, 0, len(sealed)-Overhead), nil, sealed, associated)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

// Extract is the first half of HKDF with SHA-256.
func Extract(secret, salt []byte) ([]byte, error) { return hkdf.Extract(sha256.New, secret, salt) }

// Expand is its second half: size bytes, whose use info says.
func Expand(prk []byte, info string, size int) ([]byte, error) {
	return hkdf.Expand(sha256.New, prk, info, size)
}
