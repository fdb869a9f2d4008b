package security_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/middleware/security"
)

func allSuites() []security.Suite {
	return append(suites(), wrapSuites()...)
}

func writeKeys(t *testing.T, path string, keys ...security.Key) {
	t.Helper()
	writeFile(t, path, encodeKeys(t, keys...), 0o600)
}

// writeFile puts a file into its place in one step.
func writeFile(t *testing.T, path string, b []byte, mode os.FileMode) {
	t.Helper()
	next := path + ".next"
	if err := os.WriteFile(next, b, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

func TestKeyFileKeepsKeys(t *testing.T) {
	var keys []security.Key
	for i, suite := range allSuites() {
		k := key(t, suite, fmt.Sprintf("k%d", i), "orders").With([]security.Status{security.Active, security.Passive, security.Revoked}[i%3])
		keys = append(keys, k)
	}
	again, err := security.DecodeKeys(encodeKeys(t, keys...))
	if err != nil || !bytes.Equal(encodeKeys(t, again...), encodeKeys(t, keys...)) {
		t.Errorf("keys are not what was written: %v", err)
	}
	for _, k := range keys {
		p, err := k.Public()
		if symmetric := k.Suite == security.HMACSHA256 || k.Suite == security.AES256GCM; symmetric != (err != nil) {
			t.Errorf("the public half of %v: %v", k, err)
		} else if !symmetric && (!k.HasPrivate() || p.HasPrivate() || strings.Contains(string(encodeKeys(t, p)), "private") || p.ID != k.ID || p.Status != k.Status) {
			t.Errorf("the public half of %v is %s", k, encodeKeys(t, p))
		}
	}
}

func TestKeysShowNoSecret(t *testing.T) {
	for _, suite := range allSuites() {
		k := key(t, suite, "k1", "orders")
		var file struct{ Keys []map[string]string }
		decodeJSON(t, encodeKeys(t, k), &file)
		private, err := base64.RawURLEncoding.DecodeString(file.Keys[0]["private"])
		if err != nil || len(private) != 32 {
			t.Fatalf("%v: %v, %d bytes", k, err, len(private))
		}
		r := ring(t, k)
		var log bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
			slog.New(h).Info("x", "key", k, "keys", []security.Key{k}, "pointer", &k, "ring", r.Keys())
		}
		marshaled, err := json.Marshal(map[string]any{"key": k, "keys": r.Keys()})
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("%v %+v %#v %s %q %x %v %s %s", k, k, k, k, k, k, []security.Key{k}, log.String(), string(marshaled))
		for _, form := range []string{string(private), file.Keys[0]["private"], fmt.Sprintf("%x", private), fmt.Sprintf("%d", private), base64.StdEncoding.EncodeToString(private)} {
			if strings.Contains(text, form) {
				t.Errorf("%s: the private half is in %s", suite, text)
			}
		}
		if !strings.Contains(text, `"k1"`) {
			t.Errorf("%s is not named in %s", suite, text)
		}
	}
}

func TestKeyFileIsStrict(t *testing.T) {
	good := string(encodeKeys(t, key(t, security.Ed25519, "k1", "orders")))
	other := string(encodeKeys(t, key(t, security.Ed25519, "k1", "orders")))
	half := func(file, name string) string {
		_, rest, _ := strings.Cut(file, `"`+name+`": "`)
		value, _, _ := strings.Cut(rest, `"`)
		return value
	}
	for name, c := range map[string]struct{ file, says string }{
		"no JSON":       {"keys", "invalid character"},
		"unknown field": {strings.Replace(good, `"kid"`, `"pin": "1", "kid"`, 1), "pin"},
		"more":          {good + "{}", "follows"},
		"no ID":         {strings.Replace(good, `"k1"`, `""`, 1), "ID"},
		"no owner":      {strings.Replace(good, `"orders"`, `""`, 1), "owner"},
		"no status":     {strings.Replace(good, `"active"`, `""`, 1), "status"},
		"suite":         {strings.Replace(good, `"ed25519"`, `"none"`, 1), `"none"`},
		"another half":  {strings.Replace(good, half(good, "public"), half(other, "public"), 1), "another private key"},
		"short":         {strings.Replace(good, half(good, "private"), "AAAA", 1), "32 bytes"},
		"base64":        {strings.Replace(good, half(good, "private"), half(good, "private")+"=", 1), "base64url"},
		"a number":      {strings.Replace(good, `"`+half(good, "private")+`"`, "4711", 1), "private"},
		"status twice":  {strings.Replace(good, `"status": "active"`, `"status": "revoked", "status": "active"`, 1), `"status" is there twice`},
		"keys twice":    {strings.Replace(good, `{`, `{"keys": [], `, 1), `"keys" is there twice`},
		"nothing":       {"null", "no list of keys"},
		"no list":       {"{}", "no list of keys"},
		"no halves":     {strings.Replace(strings.Replace(good, half(good, "private"), "", 1), half(good, "public"), "", 1), "public key"},
	} {
		_, err := security.DecodeKeys([]byte(c.file))
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), half(good, "private")) || strings.Contains(err.Error(), "4711") {
			t.Errorf("%s: %v, want an error that says %s and no key", name, err, c.says)
		}
	}
	for name, keys := range map[string][]security.Key{
		"zero":         {{}},
		"status":       {key(t, security.Ed25519, "k1", "orders").With("revoke")}, // it would be accepted
		"long ID":      {renamed(key(t, security.Ed25519, "k1", "orders"), strings.Repeat("k", 256))},
		"other suite":  {key(t, security.Ed25519, "k1", "orders"), resuited(key(t, security.Ed25519, "k2", "orders"), security.AES256GCM)},
		"twice":        {key(t, security.Ed25519, "k1", "orders"), key(t, security.P256, "k1", "ledger")},
		"two wrapping": {key(t, security.AES256GCM, "k1", "orders"), key(t, security.HPKEP256, "k2", "orders")},
		"five signing": {
			key(t, security.Ed25519, "k1", "orders"), key(t, security.Ed25519, "k2", "orders"), key(t, security.Ed25519, "k3", "orders"),
			key(t, security.Ed25519, "k4", "orders"), key(t, security.Ed25519, "k5", "orders"),
		},
	} {
		if _, err := security.NewKeyring(keys...); err == nil {
			t.Errorf("%s: a keyring is made", name)
		}
	}
	if _, err := security.GenerateKey("none", "k", "o"); err == nil {
		t.Error("there is a key of the suite none")
	}
}

func renamed(k security.Key, id string) security.Key {
	k.ID = id
	return k
}

func resuited(k security.Key, s security.Suite) security.Key {
	k.Suite = s
	return k
}

// Who can change a keyring decides whom a service believes, also where there is nothing secret in it.
func TestKeyFileThatOthersCanChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	writeFile(t, path, encodeKeys(t, public(t, key(t, security.Ed25519, "a", "orders"))), 0o600)
	for mode, refused := range map[os.FileMode]bool{0o600: false, 0o644: false, 0o444: false, 0o664: true, 0o646: true, 0o622: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := security.OpenKeyring(path, security.KeyringOptions{}); (err != nil) != refused || refused && !strings.Contains(err.Error(), "0644") {
			t.Errorf("%v: %v", mode, err)
		}
	}
}

// A clock that is set back does not keep a revoked key in use until it has caught up.
func TestKeyFileIsReadWhenTheClockIsSetBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	a := key(t, security.Ed25519, "a", "orders")
	writeKeys(t, path, a)
	r, err := security.OpenKeyring(path, security.KeyringOptions{Poll: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	writeKeys(t, path, a.With(security.Revoked))
	if security.LookAt(r, time.Now()); r.Keys()[0].Status != security.Active {
		t.Error("it is looked at before its time")
	}
	security.LookAt(r, time.Now().Add(-time.Hour))
	if keys := r.Keys(); keys[0].Status != security.Revoked {
		t.Errorf("an hour earlier the keys are %v", keys)
	}
}

// What is no file has no end, or one that never comes.
func TestKeyFileWithoutEnd(t *testing.T) {
	if _, err := os.Stat("/dev/zero"); err != nil {
		return // there is none here
	}
	if _, err := security.OpenKeyring("/dev/zero", security.KeyringOptions{}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v", err)
	}
}

func TestKeyFileIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	a, b := key(t, security.Ed25519, "a", "orders"), key(t, security.Ed25519, "b", "orders")
	writeKeys(t, path, a)
	var reloads []error
	r, err := security.OpenKeyring(path, security.KeyringOptions{Poll: time.Millisecond, OnReload: func(err error) { reloads = append(reloads, err) }})
	if err != nil {
		t.Fatal(err)
	}
	want := func(n int, failed bool, keys ...security.Key) {
		t.Helper()
		poll.Holds(poll.Patience, func() bool { r.Keys(); return len(reloads) >= n })
		if len(reloads) != n || (reloads[n-1] != nil) != failed {
			t.Fatalf("told of %v, want %d, the last a failure: %v", reloads, n, failed)
		}
		if !reflect.DeepEqual(fmt.Sprint(r.Keys()), fmt.Sprint(keys)) {
			t.Errorf("the keys are %v, want %v", r.Keys(), keys)
		}
	}
	writeKeys(t, path, a.With(security.Passive), b)
	want(1, false, a.With(security.Passive), b)
	writeFile(t, path, []byte("{"), 0o600)
	want(2, true, a.With(security.Passive), b)
	writeFile(t, path, encodeKeys(t, a), 0o644)
	want(3, true, a.With(security.Passive), b)
	writeFile(t, path, encodeKeys(t, public(t, a)), 0o644) // no secret: others may read it
	want(4, false, a)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want(5, true, a)
	writeKeys(t, path, b.With(security.Revoked))
	want(6, false, b.With(security.Revoked))

	// refused for its rights, and put right with nothing but these
	chmod := func(mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, path, encodeKeys(t, a.With(security.Revoked), b), 0o644)
	want(7, true, b.With(security.Revoked))
	poll.Holds(10*time.Millisecond, func() bool { r.Keys(); return len(reloads) > 7 })
	want(7, true, b.With(security.Revoked)) // which is told once, though it is looked at again
	chmod(0o640)
	want(8, true, b.With(security.Revoked))
	chmod(0o600)
	want(9, false, a.With(security.Revoked), b)
	chmod(0o604) // of keys that count
	want(10, true, a.With(security.Revoked), b)
	writeFile(t, path, []byte("{"), 0o600)
	want(11, true, a.With(security.Revoked), b)
	writeFile(t, path, []byte("{"), 0o600) // another file, the same error
	want(12, true, a.With(security.Revoked), b)
	writeKeys(t, path, b)
	want(13, false, b)

	writeFile(t, path, encodeKeys(t, b), 0o640)
	if _, err := security.OpenKeyring(path, security.KeyringOptions{}); err == nil || !strings.Contains(err.Error(), "0600") {
		t.Errorf("a file that others can read: %v", err)
	}
	for _, poll := range []time.Duration{-1, 1} {
		if _, err := security.OpenKeyring(path, security.KeyringOptions{Poll: poll}); err == nil || !strings.Contains(err.Error(), "Poll") {
			t.Errorf("Poll %v: %v", poll, err)
		}
	}
	if _, err := security.OpenKeyring(path+".missing", security.KeyringOptions{}); err == nil {
		t.Error("a file that is missing is opened")
	}
}
