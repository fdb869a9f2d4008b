package security_test

import (
	"bytes"
	"context"
	"crypto/fips140"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// wrapSuites are those that may be used: FIPS 140 knows no X25519.
func wrapSuites() []security.Suite {
	if fips140.Enforced() {
		return []security.Suite{security.AES256GCM, security.HPKEP256}
	}
	return []security.Suite{security.AES256GCM, security.HPKEX25519, security.HPKEP256}
}

// A party has the layers of a service.
type party struct {
	ring *security.Keyring
	sign pubsub.Middleware
	enc  pubsub.Middleware
}

// parties are a producer and a consumer of what it encrypts, with as little in the keyring of each as it needs.
func parties(tb testing.TB, sign, wrap security.Suite) (orders, billing party) {
	tb.Helper()
	s, w := key(tb, sign, "orders-1", "orders"), key(tb, wrap, "billing-1", "billing")
	sOut, wOut := s, w
	if sign != security.HMACSHA256 {
		sOut = public(tb, s)
	}
	if wrap != security.AES256GCM {
		wOut = public(tb, w)
	}
	orders.ring, billing.ring = ring(tb, s, wOut), ring(tb, sOut, w)
	orders.sign = security.Sign(security.SignOptions{Keys: orders.ring, Producer: "orders"})
	orders.enc = security.Encrypt(security.EncryptOptions{Producer: "orders", Recipients: []security.KMS{orders.ring.KMS("billing")}})
	billing.sign = security.Sign(security.SignOptions{Keys: billing.ring})
	billing.enc = security.Encrypt(security.EncryptOptions{Unwrap: []security.KMS{billing.ring.KMS("")}})
	return orders, billing
}

func TestEncryptedArrivesAsItWasSent(t *testing.T) {
	for _, wrap := range wrapSuites() {
		t.Run(string(wrap), func(t *testing.T) {
			orders, billing := parties(t, security.P256, wrap)
			large := order()
			large.Payload = bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			packed := order()
			packed.Headers.Add("content-encoding", "gzip")
			for name, m := range map[string]pubsub.Message{
				"full": order(), "nil": {ID: "1", Type: "t"}, "empty": {ID: "1", Type: "t", Payload: []byte{}}, "1 MiB": large, "packed": packed,
			} {
				wire := mustSend(t, "a", m, orders.sign, orders.enc)
				if len(m.Payload) > 0 && bytes.Contains(wire.Payload, m.Payload[:8]) || (wire.Payload == nil) != (m.Payload == nil) {
					t.Errorf("%s: the payload on the wire is %.80q", name, wire.Payload)
				}
				got, err := receive(t.Context(), "a", wire, billing.sign, billing.enc)
				if err != nil || !reflect.DeepEqual(got.msg, m) {
					t.Errorf("%s came as %+v, %v", name, got, err)
				}
			}
			wantRefused(t, "a", mustSend(t, "a", order(), orders.sign), security.ErrUnencrypted, billing.sign, billing.enc)
			wantPaused(t, mustSend(t, "a", order(), orders.enc), billing.enc)
			learning := security.Encrypt(security.EncryptOptions{Unwrap: []security.KMS{billing.ring.KMS("")}, Plain: true})
			if got, err := receive(t.Context(), "a", mustSend(t, "a", order(), orders.sign), billing.sign, learning); err != nil || !reflect.DeepEqual(got.msg, order()) {
				t.Errorf("what is not encrypted came as %+v, %v", got, err)
			}
		})
	}
}

func TestSeveralRecipients(t *testing.T) {
	a, b := key(t, security.HPKEP256, "a-1", "a"), key(t, security.AES256GCM, "b-1", "b")
	both := ring(t, public(t, a), b)
	enc := security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{both.KMS("a"), both.KMS("b")}})
	wire := mustSend(t, "t", order(), enc)
	for name, r := range map[string]*security.Keyring{"a": ring(t, a), "b": ring(t, b)} {
		got, err := receive(t.Context(), "t", wire, security.Encrypt(security.EncryptOptions{Unsigned: true, Unwrap: []security.KMS{r.KMS("")}}))
		if err != nil || !reflect.DeepEqual(got.msg, order()) {
			t.Errorf("%s got %+v, %v", name, got, err)
		}
	}
	stranger := ring(t, key(t, security.AES256GCM, "b-1", "b"))
	wantRefused(t, "t", wire, security.ErrUndecryptable, security.Encrypt(security.EncryptOptions{Unsigned: true, Unwrap: []security.KMS{stranger.KMS("")}}))
	onlyPublic := ring(t, public(t, a))
	wantRefused(t, "t", wire, security.ErrUndecryptable, security.Encrypt(security.EncryptOptions{Unsigned: true, Unwrap: []security.KMS{onlyPublic.KMS("")}}))
}

// Attacks 11 and 12, where no signature would find them first.
func TestMovedCiphertextIsRefused(t *testing.T) {
	r := ring(t, key(t, security.AES256GCM, "k", "us"), key(t, security.AES256GCM, "k2", "them"))
	enc := security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{r.KMS("us")}})
	wide := security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{r.KMS("them"), r.KMS("us")}})
	m := order()
	m.Headers.Add("content-encoding", "gzip")
	sent, other := mustSend(t, "a", m, enc), mustSend(t, "a", m, wide)
	header := func(edit func(b []byte) []byte) func(m *pubsub.Message) {
		return func(m *pubsub.Message) {
			b, err := base64.RawURLEncoding.DecodeString(m.Headers.Get("omnienc"))
			if err != nil {
				t.Fatal(err)
			}
			m.Headers.Set("omnienc", base64.RawURLEncoding.EncodeToString(edit(b)))
		}
	}
	const commitAt, countAt = 5 + 16, 5 + 16 + 32
	for name, attack := range map[string]alteration{
		"id":                     {security.ErrUndecryptable, func(m *pubsub.Message) { m.ID = "o-2" }},
		"type":                   {security.ErrUndecryptable, func(m *pubsub.Message) { m.Type = "x" }},
		"id and type":            {security.ErrUndecryptable, func(m *pubsub.Message) { m.ID, m.Type = m.Type, m.ID }},
		"content type":           {security.ErrUndecryptable, func(m *pubsub.Message) { m.ContentType = "" }},
		"content encoding":       {security.ErrUndecryptable, func(m *pubsub.Message) { m.Headers.Set("content-encoding", "br") }},
		"no content encoding":    {security.ErrUndecryptable, func(m *pubsub.Message) { m.Headers.Del("content-encoding") }},
		"content encoding twice": {security.ErrUndecryptable, func(m *pubsub.Message) { m.Headers.Add("content-encoding", "gzip") }},
		"ciphertext":             {security.ErrUndecryptable, func(m *pubsub.Message) { m.Payload[20]++ }},
		"ciphertext cut":         {security.ErrUndecryptable, func(m *pubsub.Message) { m.Payload = m.Payload[:len(m.Payload)-1] }},
		"ciphertext longer":      {security.ErrUndecryptable, func(m *pubsub.Message) { m.Payload = append(m.Payload, 0) }},
		"ciphertext short":       {security.ErrUndecryptable, func(m *pubsub.Message) { m.Payload = m.Payload[:27] }},
		"ciphertext empty":       {security.ErrUndecryptable, func(m *pubsub.Message) { m.Payload = []byte{} }},
		"ciphertext nil":         {security.ErrUndecryptable, func(m *pubsub.Message) { m.Payload = nil }},
		"no header":              {security.ErrUnencrypted, func(m *pubsub.Message) { m.Headers.Del("omnienc") }},
		"header of another":      {security.ErrUndecryptable, func(m *pubsub.Message) { m.Headers.Set("omnienc", other.Headers.Get("omnienc")) }},
		"payload of another":     {security.ErrUndecryptable, func(m *pubsub.Message) { m.Payload = other.Payload }},
		"wrapped key of another": {security.ErrUndecryptable, header(func(b []byte) []byte { return append(b[:len(b)-8], 1, 2, 3, 4, 5, 6, 7, 8) })},
		"data key's id":          {security.ErrUndecryptable, header(func(b []byte) []byte { b[6]++; return b })},
		"commitment":             {security.ErrUndecryptable, header(func(b []byte) []byte { b[commitAt]++; return b })},
		"another provider":       {security.ErrUndecryptable, header(replace("keyring", "keyrong"))},
		"another key":            {security.ErrUndecryptable, header(replace("\x01k", "\x01q"))},
		"two headers":            {security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Add("omnienc", m.Headers.Get("omnienc")) }},
		"another case":           {security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Add("OmniEnc", "x") }},
		"empty header":           {security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Set("omnienc", "") }},
		"oversized":              {security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Set("omnienc", strings.Repeat("A", 16<<10+1)) }},
		"another version":        {security.ErrMalformed, header(func(b []byte) []byte { b[3] = 2; return b })},
		"another suite":          {security.ErrMalformed, header(func(b []byte) []byte { b[4] = 0; return b })},
		"another magic":          {security.ErrMalformed, header(func(b []byte) []byte { b[0] = 'o'; return b })},
		"no recipients":          {security.ErrMalformed, header(func(b []byte) []byte { return append(b[:countAt], 0) })},
		"nine recipients": {security.ErrMalformed, header(func(b []byte) []byte {
			return append(append(b[:countAt], 9), bytes.Repeat([]byte{1, 'k', 1, 'k', 0, 1, 'w'}, 9)...)
		})},
		"more recipients than are": {security.ErrMalformed, header(func(b []byte) []byte { b[countAt]++; return b })},
		"trailing bytes":           {security.ErrMalformed, header(func(b []byte) []byte { return append(b, 0) })},
		"cut":                      {security.ErrMalformed, header(func(b []byte) []byte { return b[:len(b)-1] })},
		"padding":                  {security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Set("omnienc", m.Headers.Get("omnienc")+"=") }},
	} {
		t.Run(name, func(t *testing.T) {
			wire := sent.Clone()
			attack.edit(&wire)
			wantRefused(t, "a", wire, attack.why, enc)
		})
	}
	wantRefused(t, "b", sent, security.ErrUndecryptable, enc)
	t.Run("two keys", func(t *testing.T) { // each recipient would read another text: the second one finds that its key is not the one that was meant
		text, err := security.TwoKeys([]security.KMS{r.KMS("them"), r.KMS("us")}, "", "a")
		if err != nil {
			t.Fatal(err)
		}
		for at, want := range []error{nil, security.ErrUnwrap} {
			if err := security.OpensKey(r.KMS(""), text, "", "a", at); !errors.Is(err, want) {
				t.Errorf("recipient %d: %v, want %v", at, err, want)
			}
		}
	})
}

// Attack 11: somebody who may sign takes the ciphertext of another for his own.
func TestSignedAgainIsRefused(t *testing.T) {
	orders, ledger := key(t, security.Ed25519, "o", "orders"), key(t, security.Ed25519, "l", "ledger")
	wrap := key(t, security.AES256GCM, "k", "billing")
	r := ring(t, orders, ledger, wrap)
	sign := func(who string) pubsub.Middleware {
		return security.Sign(security.SignOptions{Keys: r, Producer: who})
	}
	enc := security.Encrypt(security.EncryptOptions{Producer: "orders", Recipients: []security.KMS{r.KMS("billing")}})
	stolen := mustSend(t, "a", order(), enc)
	if _, err := receive(t.Context(), "a", mustSend(t, "a", stolen, sign("orders")), sign(""), enc); err != nil {
		t.Fatalf("what is genuine: %v", err)
	}
	wantRefused(t, "a", mustSend(t, "a", stolen, sign("ledger")), security.ErrUndecryptable, sign(""), enc)
	wantRefused(t, "b", mustSend(t, "b", stolen, sign("orders")), security.ErrUndecryptable, sign(""), enc)
}

// Attack 13.
func TestNonceAndKeyAreNeverUsedTwice(t *testing.T) {
	r := ring(t, key(t, security.AES256GCM, "k", "us"))
	nonces, deks := map[string]bool{}, map[string]int{}
	const replicas, messages = 4, 1000
	for range replicas {
		enc := security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{r.KMS("us")}})
		for range messages {
			wire := mustSend(t, "a", order(), enc)
			b, err := base64.RawURLEncoding.DecodeString(wire.Headers.Get("omnienc"))
			if err != nil {
				t.Fatal(err)
			}
			deks[string(b[5:21])]++
			nonces[string(wire.Payload[:12])] = true
		}
	}
	if len(nonces) != replicas*messages || len(deks) != replicas {
		t.Errorf("%d messages of %d replicas have %d nonces and %d data keys", replicas*messages, replicas, len(nonces), len(deks))
	}
}

func dekOf(wire pubsub.Message) string { return wire.Headers.Get("omnienc") }

func TestDataKeyRotates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, next := key(t, security.AES256GCM, "k1", "us"), key(t, security.AES256GCM, "k2", "us").With(security.Passive)
		r := ring(t, old, next)
		kms := &fakeKMS{KMS: r.KMS("us"), name: "kms"}
		enc := security.EncryptWithin(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{kms}}, 10, 1000)
		send := func() string {
			w := dekOf(mustSend(t, "a", order(), enc))
			synctest.Wait() // what is made in the background is made
			return w
		}
		seen := map[string]bool{}
		want := func(what string, keys int, wraps int64) {
			t.Helper()
			if len(seen) != keys || kms.wraps.Load() != wraps {
				t.Errorf("%s: %d data keys were used and %d wrapped, want %d and %d", what, len(seen), kms.wraps.Load(), keys, wraps)
			}
		}
		for range 8 {
			seen[send()] = true
		}
		want("8 messages", 1, 1)
		seen[send()] = true
		want("at 80 % the next one is made", 1, 2)
		for range 8 {
			seen[send()] = true
		}
		want("which is used then", 2, 2)

		time.Sleep(47 * time.Minute)
		seen[send()] = true
		want("47 min", 2, 3) // 80 % of its messages
		time.Sleep(49 * time.Minute)
		seen[send()] = true
		want("49 min later", 3, 4) // 80 % of its time
		time.Sleep(2 * time.Hour)
		seen[send()] = true
		want("2 h later", 4, 5) // it waits for a new one: that is too old as well

		large := order()
		large.Payload = make([]byte, 900)
		seen[dekOf(mustSend(t, "a", large, enc))] = true
		synctest.Wait()
		seen[send()] = true
		synctest.Wait()
		seen[send()] = true
		want("bytes", 5, 6)

		if err := r.Replace(old.With(security.Passive), next.With(security.Active)); err != nil {
			t.Fatal(err)
		}
		seen[send()] = true
		want("another key wraps", 6, 7)
		seen[dekOf(mustSend(t, "b", order(), enc))] = true
		want("another topic", 7, 8)
	})
}

// Attack 16: nothing is sent in plain text, and nothing is given up.
// A rotatingKMS has its keys rotated while it is asked to wrap with the one before.
type rotatingKMS struct {
	security.KMS
	rotate func()
}

func (k *rotatingKMS) Wrap(ctx context.Context, kek string, dek, binding []byte) ([]byte, error) {
	k.rotate()
	return k.KMS.Wrap(ctx, kek, dek, binding)
}

// No publish fails because the key that wraps changes between two steps of it.
func TestRotationWhileADataKeyIsMade(t *testing.T) {
	one, two := key(t, security.AES256GCM, "one", "billing"), key(t, security.AES256GCM, "two", "billing")
	r := ring(t, one)
	enc := security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{&rotatingKMS{r.KMS("billing"), sync.OnceFunc(func() {
		if err := r.Replace(one.With(security.Passive), two); err != nil {
			t.Error(err)
		}
	})}}})
	got, err := receive(t.Context(), "t", mustSend(t, "t", order(), enc), enc)
	if err != nil || !reflect.DeepEqual(got.msg, order()) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := r.Replace(one.With(security.Passive)); err != nil {
		t.Fatal(err)
	}
	if _, err := send("t", order(), enc); !errors.Is(err, pubsub.ErrUnavailable) {
		t.Errorf("without a key that wraps: %v", err)
	}
}

func TestKMSIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := ring(t, key(t, security.AES256GCM, "k", "us"))
		kms := &fakeKMS{KMS: r.KMS("us"), name: "kms"}
		opts := security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{kms}, Pause: 3 * time.Second}
		out, in := security.Encrypt(opts), security.Encrypt(opts)
		first := mustSend(t, "a", order(), out)
		kms.set(errDown)
		for _, at := range []time.Duration{0, 30 * time.Minute, 29 * time.Minute} { // the data key is good for an hour, and its successor cannot be made
			time.Sleep(at)
			if w, err := send("a", order(), out); err != nil || dekOf(w) != dekOf(first) {
				t.Errorf("while the KMS is down and the data key is good: %v", err)
			}
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		w, err := send("a", order(), out)
		if !errors.Is(err, errDown) || !errors.Is(err, pubsub.ErrUnavailable) || w.Headers.Get("omnienc") != "" {
			t.Errorf("while the KMS is down and the data key is used up: %v, and %v is sent", err, w)
		}
		got, err := receive(t.Context(), "a", first, in)
		if outcome, after := pubsub.OutcomeOf(err); got != nil || outcome != pubsub.OutcomePause || after != 3*time.Second || !errors.Is(err, errDown) {
			t.Errorf("a consumer gets %v, %v: %v after %v, want a pause", got, err, outcome, after)
		}
		kms.set(nil)
		if _, err := send("a", order(), out); err != nil {
			t.Errorf("the KMS is there again: %v", err)
		}
		if got, err := receive(t.Context(), "a", first, in); err != nil || !reflect.DeepEqual(got.msg, order()) {
			t.Errorf("the KMS is there again, and a consumer gets %v, %v", got, err)
		}

		kms.mu.Lock()
		kms.panics = true
		kms.mu.Unlock()
		if _, err := send("b", order(), out); err == nil || !strings.Contains(err.Error(), "panics") {
			t.Errorf("the KMS panics: %v", err)
		}
		fresh := security.Encrypt(opts)
		if _, err := receive(t.Context(), "a", first, fresh); err == nil || !strings.Contains(err.Error(), "panics") {
			t.Errorf("the KMS panics: %v", err)
		}
		kms.mu.Lock()
		kms.panics, kms.hang = false, make(chan struct{})
		kms.mu.Unlock()
		begin := time.Now()
		if _, err := send("b", order(), out); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 10*time.Second {
			t.Errorf("the KMS hangs: %v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		_, err = receive(ctx, "a", first, fresh)
		if outcome, _ := pubsub.OutcomeOf(err); outcome != pubsub.OutcomePause || time.Since(begin) != time.Second {
			t.Errorf("the KMS hangs for longer than the handler may: %v after %v", err, time.Since(begin))
		}
		time.Sleep(10 * time.Second) // until it is given up
	})
}

func TestUnwrappedKeysAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := ring(t, key(t, security.AES256GCM, "k", "us"))
		kms := &fakeKMS{KMS: r.KMS("us"), name: "kms"}
		opts := security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{kms}}
		out, in := security.Encrypt(opts), security.Encrypt(opts)
		wire := mustSend(t, "a", order(), out)
		asked := func(what string, n int64) {
			t.Helper()
			if got := kms.unwraps.Swap(0); got != n {
				t.Errorf("%s: the KMS was asked %d times, want %d", what, got, n)
			}
		}
		var wg sync.WaitGroup
		kms.hang = make(chan struct{})
		for range 50 {
			wg.Go(func() {
				if got, err := receive(t.Context(), "a", wire, in); err != nil || !reflect.DeepEqual(got.msg, order()) {
					t.Errorf("got %v, %v", got, err)
				}
			})
		}
		synctest.Wait()
		close(kms.hang)
		wg.Wait()
		asked("50 at once", 1)
		time.Sleep(time.Hour - time.Second)
		_, _ = receive(t.Context(), "a", wire, in)
		asked("an hour later", 0)
		time.Sleep(time.Second)
		_, _ = receive(t.Context(), "a", wire, in)
		asked("after an hour", 1)

		bad := wire.Clone()
		b, err := base64.RawURLEncoding.DecodeString(dekOf(wire))
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-1]++
		bad.Headers.Set("omnienc", base64.RawURLEncoding.EncodeToString(b))
		for range 5 {
			wantRefused(t, "a", bad, security.ErrUndecryptable, in)
		}
		asked("what never opens", 1)
		time.Sleep(30 * time.Second)
		wantRefused(t, "a", bad, security.ErrUndecryptable, in)
		asked("after 30 s", 1)

		for i := range 1001 { // one more than are kept
			w := mustSend(t, fmt.Sprintf("t%d", i), order(), out)
			if _, err := receive(t.Context(), fmt.Sprintf("t%d", i), w, in); err != nil {
				t.Fatal(err)
			}
		}
		asked("1001 others", 1001)
		_, _ = receive(t.Context(), "a", wire, in)
		asked("what was used longest ago", 1)
	})
}

// Attack 18 for keys that wrap: one that is revoked opens nothing any more, not even what was opened before.
func TestRevokedWrapOpensNothing(t *testing.T) {
	k := key(t, security.AES256GCM, "k", "us")
	r := ring(t, k)
	enc := security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{r.KMS("us")}})
	wire := mustSend(t, "a", order(), enc)
	if _, err := receive(t.Context(), "a", wire, enc); err != nil {
		t.Fatal(err)
	}
	if err := r.Replace(k.With(security.Revoked)); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "a", wire, security.ErrUndecryptable, enc)
	if _, err := send("a", order(), enc); err == nil {
		t.Error("something is encrypted with a revoked key")
	}
}

func TestEncryptOptionsAreChecked(t *testing.T) {
	r := ring(t, key(t, security.AES256GCM, "k", "us"))
	kms := r.KMS("us")
	loose := &fakeKMS{KMS: kms, name: "loose", unbound: true}
	for name, c := range map[string]struct {
		opts security.EncryptOptions
		says string
	}{
		"nothing":   {security.EncryptOptions{}, "Recipients"},
		"nine":      {security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{kms, kms, kms, kms, kms, kms, kms, kms, kms}}, "at most 8"},
		"nil":       {security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{nil}}, "nil KMS"},
		"nobody":    {security.EncryptOptions{Recipients: []security.KMS{kms}}, "Producer"},
		"both":      {security.EncryptOptions{Unsigned: true, Producer: "us", Recipients: []security.KMS{kms}}, "Unsigned"},
		"negative":  {security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{kms}, KeyAge: -1}, "negative"},
		"unbound":   {security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{loose}}, "loose"},
		"no name":   {security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{&fakeKMS{KMS: kms}}}, "provider"},
		"long name": {security.EncryptOptions{Producer: strings.Repeat("x", 256), Recipients: []security.KMS{kms}}, "255"},
	} {
		if err := security.Encrypt(c.opts).Err; err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error that says %s", name, err, c.says)
		}
	}
	if err := security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{loose}, AllowUnbound: []string{"loose"}}).Err; err != nil {
		t.Error(err)
	}
	m := order()
	m.Headers.Add("OMNIENC", "x")
	if _, err := send("a", m, security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{kms}})); err == nil {
		t.Error("what has the header already is encrypted")
	}
	if _, err := send("a", order(), security.Encrypt(security.EncryptOptions{Unwrap: []security.KMS{kms}})); err == nil {
		t.Error("without recipients something is sent")
	}
}

func FuzzEnvelope(f *testing.F) {
	r := ring(f, key(f, security.AES256GCM, "k", "us"), key(f, security.HPKEP256, "k2", "them"))
	wire := mustSend(f, "a", order(), security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{r.KMS("us"), r.KMS("them")}}))
	f.Add(dekOf(wire))
	f.Add("T01OAQE")
	f.Fuzz(func(t *testing.T, text string) {
		if again, ok := security.Reencode(text); ok && again != text {
			t.Errorf("%q means the same as %q", text, again)
		}
	})
}
