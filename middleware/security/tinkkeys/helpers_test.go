package tinkkeys_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/omnibus-go/omnibus/middleware/security/tinkkeys"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must[T any](v T, err error) func(tb testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

func newKeyset(tb testing.TB, template *tinkpb.KeyTemplate) *keyset.Handle {
	tb.Helper()
	return must(keyset.NewHandle(template))(tb)
}

// edited is a keyset after somebody has worked on it.
func edited(tb testing.TB, h *keyset.Handle, edit func(m *keyset.Manager) error) *keyset.Handle {
	tb.Helper()
	m := keyset.NewManagerFromHandle(h)
	if err := edit(m); err != nil {
		tb.Fatal(err)
	}
	return must(m.Handle())(tb)
}

// added is a keyset with one more key, which is not primary yet.
func added(tb testing.TB, h *keyset.Handle, template *tinkpb.KeyTemplate) (_ *keyset.Handle, id uint32) {
	tb.Helper()
	return edited(tb, h, func(m *keyset.Manager) (err error) {
		id, err = m.Add(template)
		return err
	}), id
}

func promoted(tb testing.TB, h *keyset.Handle, id uint32) *keyset.Handle {
	tb.Helper()
	return edited(tb, h, func(m *keyset.Manager) error { return m.SetPrimary(id) })
}

func disabled(tb testing.TB, h *keyset.Handle, id uint32) *keyset.Handle {
	tb.Helper()
	return edited(tb, h, func(m *keyset.Manager) error { return m.Disable(id) })
}

func primary(tb testing.TB, h *keyset.Handle) uint32 {
	tb.Helper()
	return must(h.Primary())(tb).KeyID()
}

func public(tb testing.TB, h *keyset.Handle) *keyset.Handle {
	tb.Helper()
	return must(h.Public())(tb)
}

func newKMS(tb testing.TB, h *keyset.Handle) *tinkkeys.KMS {
	tb.Helper()
	return must(tinkkeys.New(h, tinkkeys.Options{}))(tb)
}

func newMaster(tb testing.TB) tink.AEAD {
	tb.Helper()
	return must(aead.New(newKeyset(tb, aead.AES256GCMKeyTemplate())))(tb)
}

// encrypted is a keyset as a file has it.
func encrypted(tb testing.TB, h *keyset.Handle, master tink.AEAD, associated string) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := h.WriteWithAssociatedData(keyset.NewJSONWriter(&b), master, []byte(associated)); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func cleartext(tb testing.TB, h *keyset.Handle) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&b)); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// writeFile puts a file into its place in one step.
func writeFile(tb testing.TB, path string, b []byte, mode os.FileMode) {
	tb.Helper()
	if err := os.WriteFile(path+".next", b, mode); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(path+".next", mode); err != nil { // whatever the umask
		tb.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		tb.Fatal(err)
	}
}

func wantError(tb testing.TB, what string, err error, says ...string) {
	tb.Helper()
	for _, s := range says {
		if err == nil || !strings.Contains(err.Error(), s) {
			tb.Errorf("%s: %v, want an error that says %q", what, err, s)
		}
	}
}

func random() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return b
}

func message() pubsub.Message {
	return pubsub.Message{ID: "1", Type: "order", ContentType: "text/plain", Payload: []byte("3 apples")}
}

// handle passes what is on the wire through layers, the outermost first; nil = a handler has got the message.
func handle(tb testing.TB, wire pubsub.Message, layers ...pubsub.Middleware) error {
	tb.Helper()
	h := pubsub.Handler(func(_ context.Context, d *pubsub.Delivery) error {
		if string(d.Payload) != "3 apples" {
			tb.Errorf("a handler gets %q", d.Payload)
		}
		return nil
	})
	for _, l := range slices.Backward(layers) {
		if l.Err != nil {
			tb.Fatal(l.Err)
		}
		h = l.Incoming(h)
	}
	return h(context.Background(), &pubsub.Delivery{Message: wire.Clone(), Topic: "orders", Group: "g", Attempt: 1})
}

func wantHandled(tb testing.TB, wire pubsub.Message, layers ...pubsub.Middleware) {
	tb.Helper()
	if err := handle(tb, wire, layers...); err != nil {
		tb.Errorf("it is not handled: %v", err)
	}
}

// withoutPrimary is a keyset as Tink serialises it, whose primary key is disabled.
func withoutPrimary(tb testing.TB, h *keyset.Handle) []byte {
	tb.Helper()
	set := insecurecleartextkeyset.KeysetMaterial(h)
	set.Key[0].Status = tinkpb.KeyStatusType_DISABLED
	return must(proto.Marshal(set))(tb)
}

func encryptedJSON(ciphertext []byte) []byte {
	return []byte(`{"encryptedKeyset": "` + base64.StdEncoding.EncodeToString(ciphertext) + `"}`)
}
