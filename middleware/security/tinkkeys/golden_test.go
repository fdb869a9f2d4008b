package tinkkeys_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/hybrid"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/signature"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/middleware/security/tinkkeys"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A golden is testdata/golden.json: keysets as Tink has written them, and messages that were encrypted and signed with them.
type golden struct {
	About    string          `json:"about"`
	Master   json.RawMessage `json:"master"` // in cleartext
	Vectors  []goldenVector  `json:"vectors"`
	Producer string          `json:"producer"`
	Topic    string          `json:"topic"`
}

type goldenVector struct {
	Name    string          `json:"name"`
	Wraps   json.RawMessage `json:"wraps"` // encrypted with the master key
	Signs   json.RawMessage `json:"signs"` // the public keyset
	Type    string          `json:"type"`
	ID      string          `json:"id"`
	Content string          `json:"content_type"`
	Headers []pubsub.Header `json:"headers"`
	Payload []byte          `json:"payload"`
}

const goldenPath = "testdata/golden.json"

var update = flag.Bool("update", false, "write testdata/golden.json anew")

// What was written once is read for ever: the file is made once for a version of the wire format.
func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	var file golden
	if err := json.Unmarshal(must(os.ReadFile(goldenPath))(t), &file); err != nil {
		t.Fatal(err)
	}
	master := must(aead.New(must(insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(file.Master))))(t)))(t)
	if len(file.Vectors) < 4 {
		t.Errorf("there are %d messages", len(file.Vectors))
	}
	for _, v := range file.Vectors {
		path := filepath.Join(t.TempDir(), "keys.tink")
		writeFile(t, path, v.Wraps, 0o600)
		kms := must(tinkkeys.Open(path, master, tinkkeys.FileOptions{}))(t)
		verifies := signingKeys(t, must(keyset.ReadWithNoSecrets(keyset.NewJSONReader(bytes.NewReader(v.Signs))))(t), file.Producer)
		wire := pubsub.Message{ID: v.ID, Type: v.Type, ContentType: v.Content, Headers: v.Headers, Payload: v.Payload}
		layers := []pubsub.Middleware{signLayer(t, "", verifies...), security.Encrypt(security.EncryptOptions{Unwrap: []security.KMS{kms}})}
		if err := handle(t, wire, layers...); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		wire.Payload[20]++
		if err := handle(t, wire, layers...); !errors.Is(err, security.ErrForged) {
			t.Errorf("%s, altered: %v", v.Name, err)
		}
	}
}

func writeGolden(t *testing.T) {
	t.Helper()
	h := newKeyset(t, aead.AES256GCMKeyTemplate())
	master := must(aead.New(h))(t)
	file := golden{
		About:  "Keysets of Tink, and messages of version 1 of the wire format that are encrypted and signed with them. The payload is \"3 apples\". The clock does not matter.",
		Master: cleartext(t, h), Producer: "orders", Topic: "orders",
	}
	for _, c := range []struct {
		name         string
		wraps, signs *tinkpb.KeyTemplate
	}{
		{"AES256_GCM, Ed25519", aead.AES256GCMKeyTemplate(), signature.ED25519KeyWithoutPrefixTemplate()},
		{"AES256_GCM without a prefix, P-256", aead.AES256GCMNoPrefixKeyTemplate(), signature.ECDSAP256KeyWithoutPrefixTemplate()},
		{"XCHACHA20_POLY1305, Ed25519", aead.XChaCha20Poly1305KeyTemplate(), signature.ED25519KeyWithoutPrefixTemplate()},
		{"HPKE on P-256, P-256", hybrid.DHKEM_P256_HKDF_SHA256_HKDF_SHA256_AES_256_GCM_Key_Template(), signature.ECDSAP256KeyWithoutPrefixTemplate()},
	} {
		wraps, id := added(t, newKeyset(t, c.wraps), c.wraps)
		wraps = promoted(t, wraps, id)
		signs := newKeyset(t, c.signs)
		synctest.Test(t, func(t *testing.T) { // the clock begins in 2000: nobody's is behind
			file.Vectors = append(file.Vectors, goldenVectorOf(t, c.name, wraps, signs, master))
		})
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", " ")
	if err := enc.Encode(file); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenPath, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func goldenVectorOf(t *testing.T, name string, wraps, signs *keyset.Handle, master tink.AEAD) goldenVector {
	t.Helper()
	m := message()
	encrypt := security.Encrypt(security.EncryptOptions{Producer: "orders", Recipients: []security.KMS{newKMS(t, wraps)}})
	for _, l := range []pubsub.Middleware{encrypt, signLayer(t, "orders", signingKeys(t, signs, "orders")...)} {
		if err := l.Outgoing(context.Background(), "orders", &m); err != nil {
			t.Fatal(err)
		}
	}
	return goldenVector{
		Name: name, Wraps: encrypted(t, wraps, master, ""), Signs: cleartext(t, public(t, signs)),
		ID: m.ID, Type: m.Type, Content: m.ContentType, Headers: m.Headers, Payload: m.Payload,
	}
}
