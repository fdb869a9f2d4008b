package tinkkeys_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/daead"
	"github.com/tink-crypto/tink-go/v2/hybrid"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/signature"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/middleware/security/tinkkeys"
)

var (
	_ security.KMS       = (*tinkkeys.KMS)(nil)
	_ security.Versioned = (*tinkkeys.KMS)(nil)
)

func aeads() map[string]*tinkpb.KeyTemplate {
	return map[string]*tinkpb.KeyTemplate{
		"AES-GCM": aead.AES256GCMKeyTemplate(), "AES-GCM without a prefix": aead.AES256GCMNoPrefixKeyTemplate(), "AES-GCM-SIV": aead.AES256GCMSIVKeyTemplate(),
		"AES-CTR-HMAC": aead.AES256CTRHMACSHA256KeyTemplate(), "ChaCha20": aead.ChaCha20Poly1305KeyTemplate(), "XChaCha20": aead.XChaCha20Poly1305KeyTemplate(),
		"XAES-GCM": aead.XAES256GCM192BitNonceKeyTemplate(),
	}
}

func hybrids() map[string]*tinkpb.KeyTemplate {
	return map[string]*tinkpb.KeyTemplate{
		"HPKE": hybrid.DHKEM_P256_HKDF_SHA256_HKDF_SHA256_AES_256_GCM_Key_Template(), "HPKE without a prefix": hybrid.DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM_Raw_Key_Template(),
		"ECIES": hybrid.ECIESHKDFAES128GCMKeyTemplate(),
	}
}

// wrap has a data key wrapped by the key that wraps now.
func wrap(t *testing.T, k security.KMS, dek []byte, binding string) (kek string, wrapped []byte) {
	t.Helper()
	kek, err := k.Current()
	if err != nil {
		t.Fatal(err)
	}
	return kek, must(k.Wrap(t.Context(), kek, dek, []byte(binding)))(t)
}

func wantOpens(t *testing.T, k security.KMS, kek string, wrapped []byte, binding string, want []byte) {
	t.Helper()
	if got, err := k.Unwrap(t.Context(), kek, wrapped, []byte(binding)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what %s has wrapped opens to %x, %v", kek, got, err)
	}
}

func wantClosed(t *testing.T, what string, k security.KMS, kek string, wrapped []byte, binding string) {
	t.Helper()
	if got, err := k.Unwrap(t.Context(), kek, wrapped, []byte(binding)); !errors.Is(err, security.ErrUnwrap) || got != nil {
		t.Errorf("%s opens to %x, %v; want ErrUnwrap", what, got, err)
	}
}

// Whatever is not the same key, bound to the same, opens nothing. Tink opens what is wrapped, and what Tink encrypts is unwrapped.
func TestWrapping(t *testing.T) {
	dek := random()
	check := func(t *testing.T, h, wraps *keyset.Handle, template *tinkpb.KeyTemplate, encrypt, decrypt func(text, context []byte) ([]byte, error)) {
		t.Helper()
		more, second := added(t, h, template)
		k := newKMS(t, more)
		kek, wrapped := wrap(t, newKMS(t, wraps), dek, "context")
		if want := fmt.Sprint(primary(t, h)); kek != want {
			t.Errorf("the key is called %s, want %s", kek, want)
		}
		wantOpens(t, k, kek, wrapped, "context", dek)
		wantClosed(t, "another binding", k, kek, wrapped, "contexu")
		wantClosed(t, "no binding", k, kek, wrapped, "")
		wantClosed(t, "another key of the keyset", k, fmt.Sprint(second), wrapped, "context")
		wantClosed(t, "a key that is not there", k, "1", wrapped, "context")
		wantClosed(t, "another spelling of the key", k, "0"+kek, wrapped, "context")
		wantClosed(t, "no key", k, "", wrapped, "context")
		wantClosed(t, "another keyset", newKMS(t, newKeyset(t, template)), kek, wrapped, "context")
		for i := range wrapped {
			altered := bytes.Clone(wrapped)
			altered[i] ^= 1
			wantClosed(t, fmt.Sprintf("with byte %d altered it", i), k, kek, altered, "context")
			wantClosed(t, fmt.Sprintf("cut to %d bytes it", i), k, kek, wrapped[:i], "context")
		}
		if got, err := decrypt(wrapped, []byte("context")); err != nil || !bytes.Equal(got, dek) {
			t.Errorf("Tink opens it to %x, %v", got, err)
		}
		theirs := must(encrypt(dek, []byte("context")))(t)
		wantOpens(t, k, kek, theirs, "context", dek)
	}
	for name, template := range aeads() {
		t.Run(name, func(t *testing.T) {
			h := newKeyset(t, template)
			a := must(aead.New(h))(t)
			check(t, h, h, template, a.Encrypt, a.Decrypt)
		})
	}
	for name, template := range hybrids() {
		t.Run(name, func(t *testing.T) {
			h := newKeyset(t, template)
			enc, dec := must(hybrid.NewHybridEncrypt(public(t, h)))(t), must(hybrid.NewHybridDecrypt(h))(t)
			check(t, h, public(t, h), template, enc.Encrypt, dec.Decrypt)
			kek, wrapped := wrap(t, newKMS(t, h), dek, "context") // whoever can unwrap can wrap
			wantOpens(t, newKMS(t, h), kek, wrapped, "context", dek)
			wantClosed(t, "with the public half alone it", newKMS(t, public(t, h)), kek, wrapped, "context")
		})
	}
}

// The primary key wraps; older ones unwrap until they are disabled, and each change is a new version.
func TestRotation(t *testing.T) {
	dek, h := random(), newKeyset(t, aead.AES256GCMKeyTemplate())
	k := newKMS(t, h)
	version := k.Version()
	replace := func(h *keyset.Handle) {
		t.Helper()
		if err := k.Replace(h); err != nil {
			t.Fatal(err)
		}
		if now := k.Version(); now == version {
			t.Error("another keyset has the same version")
		} else {
			version = now
		}
	}
	old, wrapped := wrap(t, k, dek, "context")
	h, id := added(t, h, aead.XChaCha20Poly1305KeyTemplate()) // of another kind
	replace(h)
	if kek, _ := wrap(t, k, dek, "context"); kek != old {
		t.Errorf("%s wraps, which is not primary yet", kek)
	}
	h = promoted(t, h, id)
	replace(h)
	kek, again := wrap(t, k, dek, "context")
	if kek != fmt.Sprint(id) {
		t.Errorf("%s wraps, want %d", kek, id)
	}
	if _, err := k.Wrap(t.Context(), old, dek, nil); err == nil {
		t.Error("a key wraps that is not primary any more")
	}
	wantOpens(t, k, old, wrapped, "context", dek)
	wantOpens(t, k, kek, again, "context", dek)
	replace(disabled(t, h, must(h.Entry(0))(t).KeyID()))
	wantClosed(t, "with a disabled key it", k, old, wrapped, "context")
	wantOpens(t, k, kek, again, "context", dek)
	wantError(t, "a keyset of another primitive", k.Replace(newKeyset(t, signature.ED25519KeyTemplate())), "Ed25519PrivateKey", "AES256_GCM")
	if k.Version() != version {
		t.Error("a keyset that is refused has a version")
	}
	wantOpens(t, k, kek, again, "context", dek)
}

func TestWhatWrapsNothing(t *testing.T) {
	envelope := must(aead.CreateKMSEnvelopeAEADKeyTemplate("fake-kms://key", aead.AES256GCMKeyTemplate()))(t)
	for name, template := range map[string]*tinkpb.KeyTemplate{
		"signatures": signature.ECDSAP256KeyTemplate(), "a MAC": mac.HMACSHA256Tag256KeyTemplate(), "deterministic": daead.AESSIVKeyTemplate(), "at a KMS": envelope,
	} {
		h := newKeyset(t, template)
		_, err := tinkkeys.New(h, tinkkeys.Options{})
		wantError(t, name, err, fmt.Sprint("key ", primary(t, h)), "cannot wrap data keys", "AES256_GCM")
	}
	mixed, _ := added(t, newKeyset(t, aead.AES256GCMKeyTemplate()), mac.HMACSHA256Tag256KeyTemplate())
	_, err := tinkkeys.New(mixed, tinkkeys.Options{})
	wantError(t, "one of two keys is a MAC", err, "HmacKey")
	_, err = tinkkeys.New(nil, tinkkeys.Options{})
	wantError(t, "no keyset", err, "no primary key")
}

// Each of several KMSs is found by its provider; where they have the same each tries what is for it.
func TestProviders(t *testing.T) {
	billing, shipping := newKeyset(t, aead.AES256GCMKeyTemplate()), newKeyset(t, aead.AES256GCMKeyTemplate())
	if p := newKMS(t, billing).Provider(); p != "tink" {
		t.Errorf("the provider is %q", p)
	}
	own := must(tinkkeys.New(billing, tinkkeys.Options{Provider: "vault"}))(t)
	if p := own.Provider(); p != "vault" {
		t.Errorf("the provider is %q", p)
	}
	out := security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{newKMS(t, billing), newKMS(t, shipping)}})
	wire := message()
	if err := out.Outgoing(context.Background(), "orders", &wire); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*keyset.Handle{billing, shipping} {
		wantHandled(t, wire, security.Encrypt(security.EncryptOptions{Unsigned: true, Unwrap: []security.KMS{newKMS(t, h)}}))
	}
	err := handle(t, wire, security.Encrypt(security.EncryptOptions{Unsigned: true, Unwrap: []security.KMS{newKMS(t, newKeyset(t, aead.AES256GCMKeyTemplate()))}}))
	if !errors.Is(err, security.ErrUndecryptable) {
		t.Errorf("with another keyset: %v", err)
	}
}
