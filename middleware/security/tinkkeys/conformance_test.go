package tinkkeys_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/hybrid"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/middleware/security/tinkkeys"
	"github.com/omnibus-go/omnibus/pubsub"
)

// encryptedProperties are the suite's properties of what is encrypted.
const encryptedProperties = "Security/Stripped Security/CiphertextMoved Security/RecipientsChanged Security/NonceReuse Security/Canary Security/Flood Security/KMSDown " +
	"Fidelity/MiddlewareViewSigned"

// What the suite asks of encryption holds with data keys that Tink wraps.
func TestSuite(t *testing.T) {
	selected := strings.Fields(encryptedProperties)
	for name, template := range map[string]*tinkpb.KeyTemplate{
		"AEAD": aead.AES256GCMKeyTemplate(), "hybrid": hybrid.DHKEM_P256_HKDF_SHA256_HKDF_SHA256_AES_256_GCM_Key_Template(),
	} {
		t.Run(name, func(t *testing.T) {
			h, used := newKeyset(t, template), 0
			conformance.Run(t, conformance.Harness{
				Variant: "tink-" + strings.ToLower(name),
				Select:  func(p conformance.Property) bool { return slices.Contains(selected, p.Name) },
				Fresh: func() conformance.Harness {
					server := memory.NewServer(memory.Config{})
					return conformance.Harness{
						Driver: func(context.Context) (pubsub.Driver, error) { return server.Driver(), nil },
						KMS: func() (security.KMS, error) {
							used++
							return tinkkeys.New(h, tinkkeys.Options{})
						},
					}
				},
				Wrap: func(t conformance.T, f func()) { synctest.Test(t.(*testing.T), func(*testing.T) { f() }) },
			})
			if used < len(selected) {
				t.Errorf("it was used %d times by %d properties", used, len(selected))
			}
		})
	}
}
