package tinkkeys_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/hybrid"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/signature"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/middleware/security/tinkkeys"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Orders are signed with a Tink keyset and encrypted for who bills them with another, whose private half is in a file that a master key encrypts.
func Example() {
	ctx := context.Background()
	// In real life tinkey makes the keysets, and the master key is at a cloud's KMS.
	signs, err := keyset.NewHandle(signature.ED25519KeyWithoutPrefixTemplate())
	check(err)
	wraps, err := keyset.NewHandle(hybrid.DHKEM_P256_HKDF_SHA256_HKDF_SHA256_AES_256_GCM_Key_Template())
	check(err)
	verifies, err := signs.Public()
	check(err)
	wrapsFor, err := wraps.Public()
	check(err)
	masterKeys, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	check(err)
	master, err := aead.New(masterKeys)
	check(err)
	dir, err := os.MkdirTemp("", "tink")
	check(err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "billing.tink")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	check(err)
	check(wraps.Write(keyset.NewJSONWriter(file), master))
	check(file.Close())

	ring := func(keys []security.Key, err error) *security.Keyring {
		check(err)
		r, err := security.NewKeyring(keys...)
		check(err)
		return r
	}
	server := memory.NewServer(memory.Config{})
	forBilling, err := tinkkeys.New(wrapsFor, tinkkeys.Options{})
	check(err)
	orders, err := pubsub.New(ctx, server.Driver(), &pubsub.Options{Use: []pubsub.Middleware{
		security.Sign(security.SignOptions{Keys: ring(tinkkeys.SigningKeys(signs, "orders")), Producer: "orders"}),
		security.Encrypt(security.EncryptOptions{Producer: "orders", Recipients: []security.KMS{forBilling}}),
	}})
	check(err)
	defer orders.Close()
	own, err := tinkkeys.Open(path, master, tinkkeys.FileOptions{})
	check(err)
	billing, err := pubsub.New(ctx, server.Driver(), &pubsub.Options{Use: []pubsub.Middleware{
		security.Sign(security.SignOptions{Keys: ring(tinkkeys.SigningKeys(verifies, "orders"))}),
		security.Encrypt(security.EncryptOptions{Unwrap: []security.KMS{own}}),
	}})
	check(err)
	defer billing.Close()

	done := make(chan struct{})
	_, err = billing.Subscribe(ctx, pubsub.Subscription{Topic: "orders.placed", Group: "billing"}, func(ctx context.Context, d *pubsub.Delivery) error {
		from, _ := security.From(ctx)
		fmt.Printf("%s, signed by %s\n", d.Payload, from.Producer)
		close(done)
		return nil
	})
	check(err)
	check(orders.Publish(ctx, "orders.placed", pubsub.Message{Type: "order", Payload: []byte("3 apples")}))
	<-done
	// Output: 3 apples, signed by orders
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
