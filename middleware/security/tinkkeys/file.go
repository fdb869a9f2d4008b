package tinkkeys

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/omnibus-go/omnibus/middleware/security/internal/watched"
)

// FileOptions tunes Open. The zero value is safe.
type FileOptions struct {
	Provider       string        // as that of Options; "" = "tink"
	AssociatedData []byte        // what the keyset was encrypted with, besides the master key
	Poll           time.Duration // how often the file is looked at, when a key is needed; 0 = 1s; at least 1ms
	OnReload       func(error)   // told when the file has changed, or cannot be used for another reason: nil = its keys count from now on; else the old ones do; by one goroutine at a time; must not block, or use the KMS; nil = nobody
}

// longestRest is how long publishers wait for a changed file to be read, at most: that takes as long as a master key at a cloud's KMS takes to answer.
const longestRest = time.Second

// Open makes a KMS of a keyset file in JSON, as tinkey and keyset.NewJSONWriter write it: of an encrypted keyset, which master opens, or of a public one, for which
// master may be nil. master may be a key at a cloud's KMS: it is called when the file has changed, and by nobody who publishes or handles. A file that others than
// its owner can change is refused, and so is an encrypted keyset that others can read (on systems that have such rights), and one in cleartext always.
//
// When the file has changed its keys count from the next look at it on, without a restart: what is unwrapped later waits for them. A changed file that cannot be
// used changes nothing: it is read again at each look until it can be, and OnReload is told of each reason once. Whoever writes it puts a new file in its place in
// one step (write another, rename it), or a half-written one may be read.
func Open(path string, master tink.AEAD, opts FileOptions) (*KMS, error) {
	if opts.Poll == 0 {
		opts.Poll = watched.DefaultPoll
	}
	if opts.Poll < time.Millisecond {
		return nil, fmt.Errorf("keyset: Poll is %v; it needs at least 1ms", opts.Poll)
	}
	opts.AssociatedData = bytes.Clone(opts.AssociatedData)
	f := &file{path: path, master: master, opts: opts, timer: watched.Timer{Poll: opts.Poll}}
	all, stamp, err := f.read()
	if err != nil {
		return nil, err
	}
	f.stamp = stamp
	f.timer.Looked(time.Now())
	k := newKMS(opts.Provider)
	k.install(all)
	k.file = f
	return k, nil
}

// A file is where the keyset of a KMS comes from.
type file struct {
	path   string
	master tink.AEAD
	opts   FileOptions
	timer  watched.Timer

	reading atomic.Pointer[reading] // nil = nobody reads it; changed under mu

	mu     sync.Mutex    // of who looks, and for a moment of who has read
	stamp  watched.Stamp // of what was seen last
	failed error         // why it could not be used; nil = its keys count
}

// A reading is the file being read, which may take as long as a master key in a cloud takes.
type reading struct {
	done  chan struct{}
	until time.Time // publishers wait for it; zero = they do not, since the file was seen to be unusable before
}

// look has the file read if it is time, or at once, and it has changed. It waits for nobody but, where nobody has looked for long, for another who looks. A change
// is a new version as soon as it is seen: nothing that was unwrapped earlier is used from then on, and what is unwrapped waits for the reading. So a key that was
// disabled opens nothing, although the file is read in the background.
func (f *file) look(k *KMS, now time.Time, atOnce bool) {
	if !atOnce && !f.timer.Due(now) {
		return
	}
	if atOnce || f.timer.Overdue(now) {
		f.mu.Lock()
	} else if !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	due := f.timer.Due(now)
	if !atOnce && !due || f.reading.Load() != nil {
		return
	}
	if due { // who looks at once does not put off when what cannot be used is read again
		f.timer.Looked(now)
	}
	stamp := watched.StampOf(f.path)
	changed := !stamp.Same(f.stamp)
	if !changed && (f.failed == nil || !due) { // what could not be used may be usable though nothing of its stamp has changed
		return
	}
	r := &reading{done: make(chan struct{})}
	if changed {
		r.until = now.Add(longestRest)
	}
	f.reading.Store(r)
	if changed { // who sees the version sees the reading: the other way round, what an old key opens would be kept under the new version
		k.version.Add(1)
	}
	go f.reload(k, r)
}

// reload reads the file and makes its keys count.
func (f *file) reload(k *KMS, r *reading) {
	defer close(r.done)
	all, stamp, err := f.read()
	f.mu.Lock()
	known := err != nil && f.failed != nil && err.Error() == f.failed.Error() && stamp.Same(f.stamp)
	f.stamp, f.failed = stamp, err
	if err == nil {
		k.install(all)
	}
	f.mu.Unlock()
	if f.opts.OnReload != nil && !known {
		f.opts.OnReload(err)
	}
	f.mu.Lock()
	f.reading.Store(nil)
	f.mu.Unlock()
}

// wait waits until the file has been read, if somebody reads it.
func (f *file) wait(ctx context.Context) error {
	r := f.reading.Load()
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("keyset: %s has changed, and its master key has not answered yet: %w", f.path, context.Cause(ctx))
	}
}

// rest waits for a changed file, but not for long: a service that has published nothing for an hour must not begin with a key that was disabled meanwhile.
func (f *file) rest() {
	r := f.reading.Load()
	if r == nil {
		return
	}
	left := time.NewTimer(time.Until(r.until))
	defer left.Stop()
	select {
	case <-r.done:
	case <-left.C:
	}
}

// reason says why the file cannot be used; nil = its keys count.
func (f *file) reason() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// read returns the keys of the file, and the stamp that it had before.
func (f *file) read() (_ *keys, before watched.Stamp, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("keyset: %s: the master key panics: %v", f.path, p)
		}
	}()
	b, before, err := watched.Read(f.path)
	if err != nil {
		return nil, before, fmt.Errorf("keyset: %w", err)
	}
	h, err := f.open(b, before)
	if err != nil {
		return nil, before, fmt.Errorf("keyset: %w", err)
	}
	all, err := keysOf(h)
	if err != nil {
		return nil, before, fmt.Errorf("keyset: %s: %w", f.path, err)
	}
	return all, before, nil
}

// A cleartextKey is a key of a keyset that is not encrypted.
type cleartextKey struct {
	KeyData struct{ KeyMaterialType string }
}

func (k cleartextKey) secret() bool { return k.KeyData.KeyMaterialType != "ASYMMETRIC_PUBLIC" }

// open tells an encrypted keyset from one in cleartext. Of what it cannot read it says nothing: Tink's own error would quote it.
func (f *file) open(b []byte, before watched.Stamp) (*keyset.Handle, error) {
	var has struct {
		EncryptedKeyset string
		Key             []cleartextKey
	}
	err := json.Unmarshal(b, &has)
	switch {
	case err != nil || has.EncryptedKeyset == "" && has.Key == nil:
		return nil, fmt.Errorf("%s has no keyset in JSON: tinkey convert-keyset writes one of a binary keyset", f.path)
	case has.EncryptedKeyset != "":
		if err := before.CheckRights(f.path, "secret keys, though encrypted ones,", true); err != nil {
			return nil, err
		}
		return f.decrypt(b)
	case slices.ContainsFunc(has.Key, cleartextKey.secret):
		return nil, fmt.Errorf("%s has a keyset in cleartext: whoever has read the file has its keys; make new ones that are encrypted from the beginning (tinkey "+
			"create-keyset --master-key-uri, or keyset.Handle.Write), or load it yourself with insecurecleartextkeyset and give it to New", f.path)
	}
	if err := before.CheckRights(f.path, "", false); err != nil {
		return nil, err
	}
	h, err := keyset.ReadWithNoSecrets(keyset.NewJSONReader(bytes.NewReader(b)))
	if err != nil {
		return nil, fmt.Errorf("%s has a public keyset that Tink does not read: it needs known keys, one of them enabled and primary", f.path)
	}
	return h, nil
}

func (f *file) decrypt(b []byte) (*keyset.Handle, error) {
	if f.master == nil {
		return nil, fmt.Errorf("%s has an encrypted keyset: give Open the master key that it is encrypted with", f.path)
	}
	opened := &heard{AEAD: f.master}
	h, err := keyset.ReadWithAssociatedData(keyset.NewJSONReader(bytes.NewReader(b)), opened, f.opts.AssociatedData)
	switch {
	case err == nil:
		return h, nil
	case opened.err != nil:
		return nil, fmt.Errorf("the master key does not open %s: it was encrypted with another one, or with other FileOptions.AssociatedData, or the KMS that has it "+
			"does not answer: %w", f.path, opened.err)
	case !opened.asked:
		return nil, fmt.Errorf("%s has no encrypted keyset that Tink reads", f.path)
	}
	return nil, fmt.Errorf("%s has a keyset that cannot be used: it needs one enabled key that is its primary (tinkey promote-key), and each key another ID: %w", f.path, err)
}

// heard hears what a master key says, which Tink makes a text of.
type heard struct {
	tink.AEAD
	asked bool
	err   error
}

func (h *heard) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	h.asked = true
	plain, err := h.AEAD.Decrypt(ciphertext, associatedData)
	h.err = err
	return plain, err
}
