package tinkkeys_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/signature"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/middleware/security/tinkkeys"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Both keysets rotate while several publish and several handle, each process with KMSs of its own: no message is lost, and no publish fails.
func TestRotationUnderLoad(t *testing.T) {
	const rounds, publishers, every = 8, 4, 2 * time.Millisecond
	path, master, server := filepath.Join(t.TempDir(), "billing.tink"), newMaster(t), memory.NewServer(memory.Config{})
	wraps, signs := newKeyset(t, aead.AES256GCMKeyTemplate()), newKeyset(t, signature.ED25519KeyWithoutPrefixTemplate())
	write := func() { writeFile(t, path, encrypted(t, wraps, master, ""), 0o600) }
	write()
	kms := func() *tinkkeys.KMS { return must(tinkkeys.Open(path, master, tinkkeys.FileOptions{Poll: every}))(t) }
	open := func(layers ...pubsub.Middleware) *pubsub.Broker {
		b := must(pubsub.New(t.Context(), server.Driver(), &pubsub.Options{Use: layers}))(t)
		t.Cleanup(func() {
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
		return b
	}
	verifies := must(security.NewKeyring(signingKeys(t, public(t, signs), "orders")...))(t)
	private := must(security.NewKeyring(signingKeys(t, signs, "orders")...))(t)

	var handled sync.Map
	var keys sync.Map // that have signed
	var n atomic.Int64
	for range 2 {
		b := open(security.Sign(security.SignOptions{Keys: verifies}), security.Encrypt(security.EncryptOptions{Unwrap: []security.KMS{kms()}}))
		must(b.Subscribe(t.Context(), pubsub.Subscription{Topic: "orders", Group: "billing", Concurrency: 4}, func(ctx context.Context, d *pubsub.Delivery) error {
			from, _ := security.From(ctx)
			keys.Store(from.Key, true)
			if _, again := handled.LoadOrStore(d.ID, true); !again && string(d.Payload) == "payload of "+d.ID {
				n.Add(1)
			}
			return nil
		}))(t)
	}
	var wg sync.WaitGroup
	var published atomic.Int64
	stop := make(chan struct{})
	used := kms()
	for p := range publishers {
		layers := []pubsub.Middleware{
			security.Sign(security.SignOptions{Keys: private, Producer: "orders"}),
			security.Encrypt(security.EncryptOptions{Producer: "orders", Recipients: []security.KMS{used}}),
		}
		if p%2 == 0 { // and some have data keys of their own
			layers[1] = security.Encrypt(security.EncryptOptions{Producer: "orders", Recipients: []security.KMS{kms()}})
		}
		b := open(layers...)
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprintf("%d-%d", p, i)
				if err := b.Publish(t.Context(), "orders", pubsub.Message{ID: id, Type: "order", Payload: []byte("payload of " + id)}); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
				published.Add(1)
			}
		})
	}
	more := func() {
		t.Helper()
		at := published.Load()
		poll.Until(t, "nothing is published any more", func() bool { return published.Load() >= at+20 })
	}
	replace := func(r *security.Keyring, keys ...security.Key) {
		t.Helper()
		if err := r.Replace(keys...); err != nil {
			t.Fatal(err)
		}
	}
	for range rounds {
		var wrap, sign uint32
		wraps, wrap = added(t, wraps, aead.AES256GCMKeyTemplate())
		signs, sign = added(t, signs, signature.ED25519KeyWithoutPrefixTemplate())
		write()
		replace(verifies, signingKeys(t, public(t, signs), "orders")...)
		<-time.After(2 * every)
		more()
		wraps, signs = promoted(t, wraps, wrap), promoted(t, signs, sign)
		write()
		replace(private, signingKeys(t, signs, "orders")...)
		more()
		poll.Until(t, "the new key does not wrap", func() bool { kek, _ := used.Current(); return kek == fmt.Sprint(wrap) })
	}
	close(stop)
	wg.Wait()
	poll.Until(t, "messages are missing", func() bool { return n.Load() == published.Load() })
	signers := 0
	keys.Range(func(any, any) bool { signers++; return true })
	if signers != rounds+1 {
		t.Errorf("%d keys have signed, want %d", signers, rounds+1)
	}
	t.Logf("%d messages", published.Load())
}
