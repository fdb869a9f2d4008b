package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// sign publishes a message that an owner of a keyring's keys has signed.
func (w *world) sign(keyring, owner, topic, id string) {
	w.t.Helper()
	keys, err := security.OpenKeyring(keyring, security.KeyringOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := w.app.mux.Open(w.ctx, "mem://test", &pubsub.Options{Use: []pubsub.Middleware{security.Sign(security.SignOptions{Keys: keys, Producer: owner})}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer b.Close()
	if err := b.Publish(w.ctx, topic, pubsub.Message{ID: id, Type: "order", Payload: []byte("3 apples")}); err != nil {
		w.t.Fatal(err)
	}
}

// keyrings are those of the examples: orders signs, billing verifies.
func keyrings(t *testing.T) {
	t.Helper()
	var own, others []security.Key
	for id, status := range map[string]security.Status{"orders-2025": security.Passive, "orders-2026": security.Active, "orders-2027": security.Passive} {
		k, err := security.GenerateKey(security.Ed25519, id, "orders")
		if err != nil {
			t.Fatal(err)
		}
		public, err := k.With(status).Public()
		if err != nil {
			t.Fatal(err)
		}
		own, others = append(own, k.With(status)), append(others, public)
	}
	for name, keys := range map[string][]security.Key{"orders.keys": own, "billing.keys": others} {
		text, err := security.EncodeKeys(keys...)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// secrets are the private halves in a keyring file.
func secrets(t *testing.T, file string) (all []string) {
	t.Helper()
	var in struct {
		Keys []struct{ Private string }
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &in); err != nil {
		t.Fatal(err)
	}
	for _, k := range in.Keys {
		if k.Private != "" {
			all = append(all, k.Private)
		}
	}
	return all
}

// No command shows a private half, and none comes into a keyring of others; files that have one are their owner's alone.
func TestPrivateKeysStayWhereTheyAre(t *testing.T) {
	for _, suite := range suites() {
		for _, form := range []string{"--json=false", "--json"} {
			t.Run(suite+form, func(t *testing.T) {
				w := newWorld(t)
				t.Chdir(t.TempDir())
				var said strings.Builder
				for _, line := range []string{
					"new a.keys orders --id one --also b.keys --suite " + suite, "list a.keys", "list b.keys", "rotate a.keys orders --id two --also b.keys",
					"rotate a.keys orders --activate two --also b.keys", "list a.keys", "retire a.keys one --revoke --also b.keys", "list a.keys",
				} {
					said.WriteString(w.must(append(append([]string{"keys"}, strings.Fields(line)...), form)...))
				}
				own, others := secrets(t, "a.keys"), secrets(t, "b.keys")
				if len(own) != 2 || len(others) != 0 != symmetric(security.Suite(suite)) {
					t.Errorf("%d private keys where they belong, %d elsewhere", len(own), len(others))
				}
				for _, secret := range own {
					if strings.Contains(said.String(), secret) {
						t.Errorf("they say %s", secret)
					}
				}
				for _, file := range []string{"a.keys", "b.keys"} {
					if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
						t.Errorf("%s has the rights %v, %v", file, info.Mode(), err)
					}
				}
			})
		}
	}
}

// A keyring that is refused, or cannot be changed, stays as it is, and so do the others of the same command.
func TestKeyringsChangeAllOrNone(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	keyrings(t)
	before := map[string][]byte{}
	for _, name := range []string{"orders.keys", "billing.keys"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		before[name] = text
	}
	if err := os.WriteFile("broken.keys", []byte(`{"keys":[{"kid":"x"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("locked.keys.lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"new orders.keys orders --id orders-2026 --also billing.keys", // is there
		"new orders.keys orders --also broken.keys",
		"new orders.keys orders --also locked.keys",
		"new orders.keys orders --also orders.keys",
		"rotate orders.keys orders --also nothing.keys",
		"rotate orders.keys orders --activate orders-2027 --also broken.keys",
		"rotate billing.keys orders --activate orders-2027", // has no private half
		"retire orders.keys orders-2026",                    // is active
		"retire orders.keys orders-2025 --also broken.keys",
	} {
		if _, errs, code := w.run(append([]string{"keys"}, strings.Fields(line)...)...); code != exitUsage || errs == "" {
			t.Errorf("%s exits with %d: %s", line, code, errs)
		}
	}
	for name, text := range before {
		if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, text) {
			t.Errorf("%s has changed: %v", name, err)
		}
	}
	if left, _ := filepath.Glob("*.lock"); len(left) != 1 {
		t.Errorf("they leave %q", left)
	}
	if _, err := os.Stat("nothing.keys"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("rotate makes a keyring")
	}
}

// Commands that change a keyring at once lose no key: each either has its turn or is refused.
func TestKeyringHasOneWriter(t *testing.T) {
	t.Chdir(t.TempDir())
	newWorld(t).must("keys", "new", "a.keys", "orders", "--id", "first", "--passive")
	const n = 16
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := map[string]bool{"first": true}
	for i := range n {
		w, id := newWorld(t), fmt.Sprintf("key-%d", i)
		wg.Go(func() {
			if w.app.run(w.ctx, []string{"keys", "new", "a.keys", "orders", "--passive", "--id", id}) == exitOK {
				mu.Lock()
				defer mu.Unlock()
				made[id] = true
			}
		})
	}
	wg.Wait()
	keys, err := readKeys("a.keys")
	if err != nil || len(keys) != len(made) || len(made) < 2 {
		t.Fatalf("%d keys, %d were made: %v", len(keys), len(made), err)
	}
	for _, k := range keys {
		if !made[k.ID] {
			t.Errorf("%v was refused, and is there", k)
		}
	}
}

// A link to a keyring stays one: where secrets are mounted the file lies elsewhere.
func TestKeyringBehindALink(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	keyrings(t)
	if err := os.Symlink("orders.keys", "link.keys"); err != nil {
		t.Fatal(err)
	}
	w.must("keys", "retire", "link.keys", "orders-2025")
	info, err := os.Lstat("link.keys")
	if err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", info, err)
	}
	if keys, err := readKeys("orders.keys"); err != nil || len(keys) != 2 {
		t.Errorf("%v, %v", keys, err)
	}
}

// An interrupt while the new key waits for others leaves it passive.
func TestInterruptedRotation(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	keyrings(t)
	rotate := w.start(nil, "keys", "rotate", "orders.keys", "orders", "--id", "next", "--after", "1h")
	poll.Until(w.t, "the new key", func() bool { keys, err := readKeys("orders.keys"); return err == nil && len(keys) == 4 })
	rotate.interrupt()
	rotate.ends(exitInterrupted)
	if errs := rotate.errs.String(); !strings.Contains(errs, "stays passive") || !strings.Contains(errs, "omnibus keys rotate orders.keys orders --activate next") {
		t.Errorf("it does not say how to go on: %s", errs)
	}
	keys, err := readKeys("orders.keys")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if (k.Status == security.Active) != (k.ID == "orders-2026") {
			t.Error(k)
		}
	}
}

// What a stored message says is verified as a service would do it, each byte and its time; and the signer of what is only too old is named.
func TestVerifyStoredMessages(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	keyrings(t)
	keys, err := readKeys("orders.keys")
	if err != nil {
		t.Fatal(err)
	}
	ring, err := security.NewKeyring(keys...)
	if err != nil {
		t.Fatal(err)
	}
	m := pubsub.Message{ID: "m", Type: "order", Key: "k", ContentType: "text/plain", Time: time.Now(), TTL: time.Hour, Payload: []byte("\xff\x00 bytes"), Headers: pubsub.Headers{{Name: "a", Value: "b"}}}
	if err := security.Sign(security.SignOptions{Keys: ring, Producer: "orders"}).Outgoing(w.ctx, "orders", &m); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		edit func(*message)
		at   time.Duration
		why  string
		from string
	}{
		"as it was":        {func(*message) {}, 0, "", "orders"},
		"its time is over": {func(*message) {}, 2 * time.Hour, security.ErrExpired.Error(), "orders"},
		"from the future":  {func(*message) {}, -time.Hour, security.ErrExpired.Error(), "orders"},
		"clocks differ":    {func(*message) {}, -skew / 2, "", "orders"},
		"another payload":  {func(m *message) { p := text("x"); m.Payload = &p }, 0, security.ErrForged.Error(), ""},
		"no payload":       {func(m *message) { m.Payload = nil }, 0, security.ErrForged.Error(), ""},
		"another key":      {func(m *message) { m.Key = "other" }, 0, security.ErrForged.Error(), ""},
		"another header":   {func(m *message) { m.Headers[0].Value = "c" }, 0, security.ErrForged.Error(), ""},
		"added on the way": {func(m *message) { m.Headers = append(m.Headers, header{Name: "x", Value: "y"}) }, 0, "", "orders"},
		"another topic":    {func(m *message) { m.Topic = "payments" }, 0, security.ErrWrongDestination.Error(), ""},
	} {
		v, err := newVerifier("billing.keys", "", func() time.Time { return time.Now().Add(c.at) })
		if err != nil {
			t.Fatal(err)
		}
		stored := messageOf("orders", &m)
		c.edit(&stored)
		line, err := marshal(stored)
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.line(w.ctx, line)
		if err != nil || got.Why != c.why || got.Verified != (c.why == "") || got.Producer != c.from {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// Whoever has a key to sign with, others have it already: at no moment is it the other way round.
func TestOthersHaveAKeyFirst(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	w.must("keys", "new", "a.keys", "orders", "--id", "first", "--also", "b.keys")
	done, watched := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			own, err := readKeys("a.keys")
			others, err2 := readKeys("b.keys")
			if err := errors.Join(err, err2); err != nil {
				watched <- err
				return
			}
			if len(own) > len(others) {
				watched <- fmt.Errorf("%v are there, others have %v", own, others)
				return
			}
			select {
			case <-done:
				watched <- nil
				return
			default:
			}
		}
	}()
	for i := range 100 {
		w.must("keys", "new", "a.keys", "orders", "--passive", "--id", fmt.Sprint(i), "--also", "b.keys")
	}
	close(done)
	if err := <-watched; err != nil {
		t.Error(err)
	}
}

// What is wrong with a keyring is said as it is, with a remedy that is one.
func TestKeyringErrorsNameTheRemedy(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	keyrings(t)
	if err := os.Symlink("orders.keys", "link.keys"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("open.keys", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("orders.keys")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("open.keys", text, 0o644); err != nil {
		t.Fatal(err)
	}
	for line, says := range map[string]string{
		"retire orders.keys orders-2025 --also ./orders.keys": "orders.keys and ./orders.keys are one keyring",
		"retire orders.keys orders-2025 --also link.keys":     "orders.keys and link.keys are one keyring",
		"list open.keys":    "make them 0600",
		"list nothing.keys": "`omnibus keys new` makes a keyring",
	} {
		_, errs, code := w.run(append([]string{"keys"}, strings.Fields(line)...)...)
		if code != exitUsage || !strings.Contains(errs, says) || strings.Contains(errs, ".lock") || strings.Contains(errs, "keys new") != strings.Contains(says, "keys new") {
			t.Errorf("%s exits with %d: %s", line, code, errs)
		}
	}
}

// Where one keyring cannot take its place the others are named that have changed.
func TestHalfChangedKeyringsAreNamed(t *testing.T) {
	t.Chdir(t.TempDir())
	keyrings(t)
	err := changeKeys([]string{"orders.keys", "billing.keys"}, false, func(f *keyFile, first bool) error {
		if !first { // somebody puts a folder there
			if err := os.Remove("orders.keys"); err != nil {
				t.Error(err)
			}
			if err := os.MkdirAll(filepath.Join("orders.keys", "x"), 0o755); err != nil {
				t.Error(err)
			}
		}
		f.remove("orders-2025")
		return nil
	})
	if err == nil || !strings.HasPrefix(err.Error(), "orders.keys: ") || !strings.Contains(err.Error(), "changed were: billing.keys") {
		t.Errorf("%v", err)
	}
	if left, _ := filepath.Glob("*.lock"); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}

// What is to be run next can be copied into a shell, whatever files are called.
func TestNextCommandsCanBeCopied(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	w.must("keys", "new", "it's mine.keys", "orders")
	out := w.must("keys", "rotate", "it's mine.keys", "orders", "--id", "next")
	if want := `omnibus keys rotate 'it'\''s mine.keys' orders --activate next`; !strings.Contains(out, want) {
		t.Errorf("it says %s, want %s", out, want)
	}
}
