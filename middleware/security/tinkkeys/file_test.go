package tinkkeys_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/hybrid"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
	"github.com/tink-crypto/tink-go/v2/signature"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/middleware/security/tinkkeys"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestFilesThatAreRefused(t *testing.T) {
	master, h := newMaster(t), newKeyset(t, aead.AES256GCMKeyTemplate())
	sealed := encrypted(t, h, master, "")
	hybrids := newKeyset(t, hybrid.DHKEM_P256_HKDF_SHA256_HKDF_SHA256_AES_256_GCM_Key_Template())
	var publicJSON bytes.Buffer
	if err := public(t, hybrids).WriteWithNoSecrets(keyset.NewJSONWriter(&publicJSON)); err != nil {
		t.Fatal(err)
	}
	var binary bytes.Buffer
	if err := h.Write(keyset.NewBinaryWriter(&binary), master); err != nil {
		t.Fatal(err)
	}
	// Tink makes no such keyset, but others may.
	primaryOff := must(master.Encrypt(withoutPrimary(t, h), nil))(t)
	for name, c := range map[string]struct {
		content []byte
		mode    os.FileMode
		master  tink.AEAD
		ad      string
		says    []string // nothing = it is accepted
	}{
		"encrypted":               {sealed, 0o600, master, "", nil},
		"with associated data":    {encrypted(t, h, master, "billing"), 0o600, master, "billing", nil},
		"public":                  {publicJSON.Bytes(), 0o644, nil, "", nil},
		"others can read it":      {sealed, 0o644, master, "", []string{"0600", "rw-r--r--"}},
		"a group can read it":     {sealed, 0o640, master, "", []string{"0600"}},
		"public, but changeable":  {publicJSON.Bytes(), 0o666, nil, "", []string{"0644"}},
		"cleartext":               {cleartext(t, h), 0o600, master, "", []string{"in cleartext", "--master-key-uri", "insecurecleartextkeyset"}},
		"private, in cleartext":   {cleartext(t, hybrids), 0o600, master, "", []string{"in cleartext"}},
		"no material type":        {bytes.ReplaceAll(cleartext(t, h), []byte("keyMaterialType"), []byte("keyMaterialTypf")), 0o600, master, "", []string{"in cleartext"}},
		"no master key":           {sealed, 0o600, nil, "", []string{"give Open the master key"}},
		"another master key":      {sealed, 0o600, newMaster(t), "", []string{"master key does not open", "another one", "AssociatedData"}},
		"other associated data":   {sealed, 0o600, master, "billing", []string{"AssociatedData"}},
		"binary":                  {binary.Bytes(), 0o600, master, "", []string{"convert-keyset"}},
		"empty":                   {nil, 0o600, master, "", []string{"no keyset"}},
		"no keyset":               {[]byte("{}"), 0o600, master, "", []string{"no keyset"}},
		"half of one":             {sealed[:len(sealed)/2], 0o600, master, "", []string{"no keyset"}},
		"not base64":              {[]byte(`{"encryptedKeyset": "4711!"}`), 0o600, master, "", []string{"no encrypted keyset"}},
		"too large":               {make([]byte, 2<<20), 0o600, master, "", []string{"more than"}},
		"signatures":              {encrypted(t, newKeyset(t, signature.ED25519KeyTemplate()), master, ""), 0o600, master, "", []string{"Ed25519", "AES256_GCM"}},
		"a MAC":                   {encrypted(t, newKeyset(t, mac.HMACSHA256Tag256KeyTemplate()), master, ""), 0o600, master, "", []string{"HmacKey", "AES256_GCM"}},
		"its primary is disabled": {encryptedJSON(primaryOff), 0o600, master, "", []string{"primary", "promote-key"}},
		"a public key of no type": {bytes.ReplaceAll(publicJSON.Bytes(), []byte("HpkePublicKey"), []byte("NoPublicKey")), 0o644, nil, "", []string{"cannot wrap data keys"}},
		"damaged public keys":     {bytes.ReplaceAll(publicJSON.Bytes(), []byte(`"value":"`), []byte(`"value":"4711!`)), 0o644, nil, "", []string{"public keyset that Tink does not read"}},
		"the master key panics":   {sealed, 0o600, &slowMaster{AEAD: master, panics: true}, "", []string{"panics"}},
	} {
		path := filepath.Join(t.TempDir(), "keys.tink")
		writeFile(t, path, c.content, c.mode)
		k, err := tinkkeys.Open(path, c.master, tinkkeys.FileOptions{AssociatedData: []byte(c.ad), Provider: "vault"})
		if len(c.says) == 0 {
			if err != nil || k.Provider() != "vault" {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		wantError(t, name, err, append(c.says, path, "keyset: ")...)
		if strings.Contains(fmt.Sprint(err), "4711") {
			t.Errorf("%s: the error quotes the file: %v", name, err)
		}
	}
	for _, every := range []time.Duration{-1, 1} {
		_, err := tinkkeys.Open("keys.tink", master, tinkkeys.FileOptions{Poll: every})
		wantError(t, every.String(), err, "Poll", "1ms")
	}
	_, err := tinkkeys.Open(filepath.Join(t.TempDir(), "none"), master, tinkkeys.FileOptions{})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is missing: %v", err)
	}
}

// A slowMaster is a master key at a cloud's KMS, as it were.
type slowMaster struct {
	tink.AEAD

	mu     sync.Mutex
	hang   chan struct{} // answers when it is closed; nil = at once
	down   error
	panics bool
	asked  int
}

func (m *slowMaster) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	m.mu.Lock()
	m.asked++
	hang, down, panics := m.hang, m.down, m.panics
	m.mu.Unlock()
	if panics {
		panic("at the KMS")
	}
	if hang != nil {
		<-hang
	}
	if down != nil {
		return nil, down
	}
	return m.AEAD.Decrypt(ciphertext, associatedData)
}

func (m *slowMaster) set(hang chan struct{}, down error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hang, m.down = hang, down
}

func (m *slowMaster) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

// reports are what OnReload is told.
type reports struct {
	mu   sync.Mutex
	errs []error
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

func (r *reports) all() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.errs)
}

// A changed file counts without a restart, and one that cannot be used changes nothing until it can.
func TestFileIsReadAgain(t *testing.T) {
	path, master, told := filepath.Join(t.TempDir(), "keys.tink"), &slowMaster{AEAD: newMaster(t)}, &reports{}
	h := newKeyset(t, aead.AES256GCMKeyTemplate())
	writeFile(t, path, encrypted(t, h, master, "billing"), 0o600)
	k := must(tinkkeys.Open(path, master, tinkkeys.FileOptions{AssociatedData: []byte("billing"), Poll: time.Millisecond, OnReload: told.add}))(t)
	dek := random()
	old, wrapped := wrap(t, k, dek, "context")
	n := 0
	want := func(current uint32, says string) {
		t.Helper()
		n++
		poll.Holds(poll.Patience, func() bool { k.Version(); return len(told.all()) >= n })
		errs := told.all()
		if len(errs) != n || (errs[n-1] == nil) != (says == "") || says != "" && !strings.Contains(errs[n-1].Error(), says) {
			t.Fatalf("told of %v, want %d, the last one %q", errs, n, says)
		}
		if kek, err := k.Current(); err != nil || kek != fmt.Sprint(current) {
			t.Errorf("%s wraps, %v; want %d", kek, err, current)
		}
	}
	first := primary(t, h)
	h, second := added(t, h, aead.AES256GCMKeyTemplate())
	writeFile(t, path, encrypted(t, h, master, "billing"), 0o600)
	want(first, "")
	h = promoted(t, h, second)
	writeFile(t, path, encrypted(t, h, master, "billing"), 0o600)
	want(second, "")
	wantOpens(t, k, old, wrapped, "context", dek)

	writeFile(t, path, cleartext(t, h), 0o600)
	want(second, "in cleartext")
	writeFile(t, path, encrypted(t, h, newMaster(t), "billing"), 0o600)
	want(second, "another one")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want(second, "no such file")
	asked := master.count()
	poll.Holds(20*time.Millisecond, func() bool { k.Version(); return len(told.all()) > n })
	if errs := told.all(); len(errs) != n {
		t.Errorf("told of %v, again and again", errs)
	}
	version := k.Version()
	poll.Holds(20*time.Millisecond, func() bool { return k.Version() != version })
	if k.Version() != version {
		t.Error("a file that stays away is a new version, and what was unwrapped is thrown away for it")
	}
	wantOpens(t, k, old, wrapped, "context", dek)
	if master.count() != asked {
		t.Error("the master key is asked for a file that is not there")
	}
	// nobody knows whether this key would be there
	if _, err := k.Unwrap(t.Context(), "4711", wrapped, nil); err == nil || errors.Is(err, security.ErrUnwrap) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key that may be in a file that cannot be read: %v, want an outage", err)
	}
	writeFile(t, path, encrypted(t, h, master, "billing"), 0o644)
	want(second, "0600")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	want(second, "")
	wantClosed(t, "an unknown key", k, "4711", wrapped, "context")

	writeFile(t, path, encrypted(t, disabled(t, h, first), master, "billing"), 0o600)
	want(second, "")
	wantClosed(t, "with a disabled key it", k, old, wrapped, "context")
}

// The master key may be far away: it is asked in the background, what was opened before is not used again once a change is seen, and what is opened waits for it.
func TestMasterKeyIsFarAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, master := filepath.Join(t.TempDir(), "keys.tink"), &slowMaster{AEAD: newMaster(t)}
		h, second := added(t, newKeyset(t, aead.AES256GCMKeyTemplate()), aead.AES256GCMKeyTemplate())
		first := primary(t, h)
		writeFile(t, path, encrypted(t, h, master, ""), 0o600)
		k := must(tinkkeys.Open(path, master, tinkkeys.FileOptions{}))(t)
		dek := random()
		old, wrapped := wrap(t, k, dek, "context")
		wait := func(d time.Duration) { <-time.After(d) }
		current := func(want uint32, within time.Duration) {
			t.Helper()
			begin := time.Now()
			kek, err := k.Current()
			if took := time.Since(begin); err != nil || kek != fmt.Sprint(want) || took > within {
				t.Errorf("%s wraps, %v, after %v; want %d within %v", kek, err, took, want, within)
			}
		}

		// it takes a moment: who publishes waits
		hang := make(chan struct{})
		master.set(hang, nil)
		earlier := k.Version()
		h = disabled(t, promoted(t, h, second), first)
		writeFile(t, path, encrypted(t, h, master, ""), 0o600)
		wait(2 * time.Second)
		version := k.Version()
		if version == earlier {
			t.Error("a change that is seen is no new version until the master key has answered")
		}
		if k.Version() != version {
			t.Error("each look is a new version")
		}
		go func() { wait(300 * time.Millisecond); close(hang) }()
		current(second, 300*time.Millisecond)
		wantClosed(t, "with a disabled key it", k, old, wrapped, "context")

		// it takes for ever: who publishes goes on, and who unwraps waits as long as its context does
		hang = make(chan struct{})
		master.set(hang, nil)
		old, wrapped = wrap(t, k, dek, "context")
		h, third := added(t, h, aead.AES256GCMKeyTemplate())
		writeFile(t, path, encrypted(t, promoted(t, h, third), master, ""), 0o600)
		wait(2 * time.Second)
		before := k.Version()
		current(second, time.Second)
		current(second, 0)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := k.Unwrap(ctx, old, wrapped, []byte("context")); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, security.ErrUnwrap) {
			t.Errorf("while the master key does not answer: %v", err)
		}
		close(hang)
		wantOpens(t, k, old, wrapped, "context", dek)
		current(third, 0)
		if k.Version() == before {
			t.Error("another keyset has the same version")
		}

		// it is down: the keys before count, and it is asked once a second
		errDown := errors.New("the KMS is down")
		master.set(nil, errDown)
		h, fourth := added(t, promoted(t, h, third), aead.AES256GCMKeyTemplate())
		writeFile(t, path, encrypted(t, promoted(t, h, fourth), master, ""), 0o600)
		wait(2 * time.Second)
		asked := master.count()
		for range 1000 {
			current(third, 0)
			wantOpens(t, k, old, wrapped, "context", dek)
			if _, err := k.Unwrap(t.Context(), fmt.Sprint(fourth), wrapped, nil); !errors.Is(err, errDown) || errors.Is(err, security.ErrUnwrap) {
				t.Fatalf("a key that it would know: %v", err)
			}
			wait(10 * time.Millisecond)
		}
		if n := master.count() - asked; n < 9 || n > 11 {
			t.Errorf("it is asked %d times in 10 s", n)
		}
		master.set(nil, nil)
		wait(2 * time.Second)
		k.Version()
		synctest.Wait()
		current(fourth, 0)
	})
}

// A key that was added a moment ago is found before its time: what is encrypted with it is not given up.
func TestUnknownKeyIsLookedFor(t *testing.T) {
	path, master := filepath.Join(t.TempDir(), "keys.tink"), newMaster(t)
	h := newKeyset(t, aead.AES256GCMKeyTemplate())
	writeFile(t, path, encrypted(t, h, master, ""), 0o600)
	k := must(tinkkeys.Open(path, master, tinkkeys.FileOptions{Poll: time.Hour}))(t)
	h, id := added(t, h, aead.AES256GCMKeyTemplate())
	writeFile(t, path, encrypted(t, h, master, ""), 0o600)
	dek := random()
	kek, wrapped := wrap(t, newKMS(t, promoted(t, h, id)), dek, "context")
	wantOpens(t, k, kek, wrapped, "context", dek)
}

// A key that is disabled in the file opens nothing more, also no message whose data key was unwrapped before; and nothing is encrypted with it after an hour's rest.
func TestDisabledInTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, master := filepath.Join(t.TempDir(), "keys.tink"), newMaster(t)
		h, second := added(t, newKeyset(t, aead.AES256GCMKeyTemplate()), aead.AES256GCMKeyTemplate())
		first := primary(t, h)
		writeFile(t, path, encrypted(t, h, master, ""), 0o600)
		layer := security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{must(tinkkeys.Open(path, master, tinkkeys.FileOptions{}))(t)}})
		send := func() pubsub.Message {
			m := message()
			if err := layer.Outgoing(t.Context(), "orders", &m); err != nil {
				t.Fatal(err)
			}
			return m
		}
		before := send()
		wantHandled(t, before, layer)
		writeFile(t, path, encrypted(t, disabled(t, promoted(t, h, second), first), master, ""), 0o600)
		<-time.After(30 * time.Minute)
		after := send()
		wantHandled(t, after, layer)
		if err := handle(t, before, layer); !errors.Is(err, security.ErrUndecryptable) {
			t.Errorf("what was encrypted with a disabled key: %v", err)
		}
	})
}
