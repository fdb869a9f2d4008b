package tinkkeys_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/signature"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/middleware/security/internal/primitive"
	"github.com/omnibus-go/omnibus/middleware/security/tinkkeys"
	"github.com/omnibus-go/omnibus/pubsub"
)

func signs() map[security.Suite]*tinkpb.KeyTemplate {
	return map[security.Suite]*tinkpb.KeyTemplate{
		security.Ed25519: signature.ED25519KeyWithoutPrefixTemplate(), security.P256: signature.ECDSAP256KeyWithoutPrefixTemplate(),
	}
}

func signingKeys(t *testing.T, h *keyset.Handle, owner string) []security.Key {
	t.Helper()
	return must(tinkkeys.SigningKeys(h, owner))(t)
}

func signLayer(t *testing.T, producer string, keys ...security.Key) pubsub.Middleware {
	t.Helper()
	return security.Sign(security.SignOptions{Keys: must(security.NewKeyring(keys...))(t), Producer: producer})
}

func signed(t *testing.T, l pubsub.Middleware) pubsub.Message {
	t.Helper()
	m := message()
	if err := l.Outgoing(context.Background(), "orders", &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// What is signed with the private keyset is verified with the public one; Tink has the same signatures as the wire format, both ways.
func TestSigningKeys(t *testing.T) {
	for suite, template := range signs() {
		t.Run(string(suite), func(t *testing.T) {
			h := newKeyset(t, template)
			private, verifies := signingKeys(t, h, "orders"), signingKeys(t, public(t, h), "orders")
			if k := private[0]; len(private) != 1 || k.ID != fmt.Sprintf("orders/%d", primary(t, h)) || k.Suite != suite || k.Owner != "orders" || k.Status != security.Active || !k.HasPrivate() {
				t.Errorf("the keys are %v", private)
			}
			own := must(private[0].Public())(t)
			if !bytes.Equal(must(security.EncodeKeys(own))(t), must(security.EncodeKeys(verifies...))(t)) {
				t.Error("the public keyset has another key than the private one")
			}
			wire := signed(t, signLayer(t, "orders", private...))
			wantHandled(t, wire, signLayer(t, "", verifies...))
			wire.Payload = []byte("4 apples")
			if err := handle(t, wire, signLayer(t, "", verifies...)); !errors.Is(err, security.ErrForged) {
				t.Errorf("an altered message: %v", err)
			}
			if err := handle(t, signed(t, signLayer(t, "orders", private...)), signLayer(t, "", signingKeys(t, public(t, newKeyset(t, template)), "orders")...)); !errors.Is(err, security.ErrUnknownKey) {
				t.Errorf("another keyset: %v", err)
			}
			checkSignatures(t, h)
		})
	}
}

// A rotated keyset signs with its primary key, and accepts what the others have signed but for disabled ones.
func TestSigningKeysRotate(t *testing.T) {
	h := newKeyset(t, signature.ED25519KeyWithoutPrefixTemplate())
	old := primary(t, h)
	before := signed(t, signLayer(t, "orders", signingKeys(t, h, "orders")...))
	h, id := added(t, h, signature.ECDSAP256KeyWithoutPrefixTemplate()) // of the other kind
	early := signLayer(t, "", signingKeys(t, public(t, h), "orders")...)
	h = promoted(t, h, id)
	after := signed(t, signLayer(t, "orders", signingKeys(t, h, "orders")...))
	wantHandled(t, after, early)
	late := signLayer(t, "", signingKeys(t, public(t, h), "orders")...)
	wantHandled(t, before, late)
	wantHandled(t, after, late)
	h = disabled(t, h, old)
	over := signLayer(t, "", signingKeys(t, public(t, h), "orders")...)
	wantHandled(t, after, over)
	if err := handle(t, before, over); !errors.Is(err, security.ErrUnknownKey) {
		t.Errorf("a disabled key: %v", err)
	}
	status := map[string]security.Status{}
	for _, k := range signingKeys(t, h, "orders") {
		status[k.ID] = k.Status
	}
	if len(status) != 2 || status[fmt.Sprintf("orders/%d", old)] != security.Revoked || status[fmt.Sprintf("orders/%d", id)] != security.Active {
		t.Errorf("the keys are %v", status)
	}
}

// A key whose signatures would not be those of the wire format is not taken.
func TestOtherSignaturesAreRefused(t *testing.T) {
	const ed, p256 = "ED25519KeyWithoutPrefixTemplate", "ECDSAP256KeyWithoutPrefixTemplate"
	for name, c := range map[string]struct {
		template *tinkpb.KeyTemplate
		says     string
	}{
		"Ed25519 with a prefix": {signature.ED25519KeyTemplate(), ed},
		"P-256 with a prefix":   {signature.ECDSAP256KeyTemplate(), p256},
		"P-256 in P1363":        {signature.ECDSAP256RawKeyTemplate(), p256},
		"P-384":                 {signature.ECDSAP384SHA384KeyWithoutPrefixTemplate(), p256},
		"an AEAD":               {aead.AES256GCMKeyTemplate(), ed},
	} {
		h := newKeyset(t, c.template)
		_, err := tinkkeys.SigningKeys(h, "orders")
		wantError(t, name, err, fmt.Sprint("key ", primary(t, h)), c.says)
		if name != "an AEAD" {
			_, err = tinkkeys.SigningKeys(public(t, h), "orders")
			wantError(t, name+", public", err, c.says)
		}
	}
	_, err := tinkkeys.SigningKeys(nil, "orders")
	wantError(t, "no keyset", err, "no primary key")
	_, err = tinkkeys.SigningKeys(newKeyset(t, signature.ED25519KeyWithoutPrefixTemplate()), "")
	wantError(t, "no owner", err, "owner")
}

// checkSignatures asserts that Tink verifies what the functions of package security sign, and the other way round.
func checkSignatures(t *testing.T, h *keyset.Handle) {
	t.Helper()
	var ring struct {
		Keys []struct{ Suite, Private, Public string }
	}
	if err := json.Unmarshal(must(security.EncodeKeys(signingKeys(t, h, "orders")...))(t), &ring); err != nil {
		t.Fatal(err)
	}
	half := func(text string) []byte { return must(base64.RawURLEncoding.DecodeString(text))(t) }
	newKey := primitive.NewEd25519
	if ring.Keys[0].Suite == string(security.P256) {
		newKey = primitive.NewP256
	}
	ours := must(newKey(half(ring.Keys[0].Private), half(ring.Keys[0].Public)))(t)
	signer, verifier := must(signature.NewSigner(h))(t), must(signature.NewVerifier(public(t, h)))(t)
	for range 50 { // a DER signature is now and then shorter
		text := random()
		if err := verifier.Verify(must(ours.Sign(text))(t), text); err != nil {
			t.Fatalf("Tink does not verify what was signed: %v", err)
		}
		if !ours.Verify(text, must(signer.Sign(text))(t)) {
			t.Fatal("what Tink has signed is not verified")
		}
	}
}
