package security

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// keyJSON is a key in a keyring file. Halves are base64url without padding.
type keyJSON struct {
	ID      string `json:"kid"`
	Suite   Suite  `json:"suite"`
	Owner   string `json:"owner"`
	Status  Status `json:"status"`
	Private string `json:"private,omitempty"` // of a symmetric suite: the secret
	Public  string `json:"public,omitempty"`
}

type keysJSON struct {
	Keys []keyJSON `json:"keys"`
}

// EncodeKeys writes keys as a keyring file has them, with their private halves: what it returns is a secret.
func EncodeKeys(keys ...Key) ([]byte, error) {
	out := keysJSON{Keys: []keyJSON{}}
	for _, k := range keys {
		if k.signature == nil && k.wrap == nil {
			return nil, errors.New("a zero Key")
		}
		out.Keys = append(out.Keys, keyJSON{
			ID: k.ID, Suite: k.Suite, Owner: k.Owner, Status: k.Status,
			Private: encoding.EncodeToString(k.private()), Public: encoding.EncodeToString(k.public()),
		})
	}
	b, err := json.MarshalIndent(out, "", "  ")
	return append(b, '\n'), err
}

// DecodeKeys reads what EncodeKeys has written. Unknown fields are refused. No error has anything of a private half.
func DecodeKeys(b []byte) ([]Key, error) {
	var in keysJSON
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, fmt.Errorf("keyring: %w", withoutValue(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("keyring: something follows its JSON")
	}
	keys := make([]Key, len(in.Keys))
	for i, k := range in.Keys {
		private, err := decodeHalf(k.Private)
		if err != nil {
			return nil, fmt.Errorf("keyring: key %q: its private half is no base64url without padding", k.ID)
		}
		public, err := decodeHalf(k.Public)
		if err != nil {
			return nil, fmt.Errorf("keyring: key %q: its public half is no base64url without padding", k.ID)
		}
		if keys[i], err = newKey(k.Suite, k.ID, k.Owner, k.Status, private, public); err != nil {
			return nil, fmt.Errorf("keyring: %w", err)
		}
	}
	return keys, nil
}

// withoutValue takes off what package json quotes of what it could not read.
func withoutValue(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s is no %v", e.Field, e.Type)
	}
	return err
}

func decodeHalf(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	return decode(text)
}

// KeyringOptions tunes OpenKeyring. The zero value is safe.
type KeyringOptions struct {
	Poll     time.Duration   // how often the file is looked at, when a key is needed; 0 = 1s; at least 1ms
	OnReload func(err error) // told when the file has changed, or cannot be used for another reason: nil = its keys count from now on; else the old ones do; must not block, or use the Keyring; nil = nobody
}

const (
	defaultPoll = time.Second
	maxKeyFile  = 1 << 20
)

// OpenKeyring reads a keyring file. When the file has changed, its keys count from the next look at it on: no later than Poll after the change, and without
// a restart. A changed file that cannot be used changes nothing: it is read again at each look until it can be, and OnReload is told of each reason once. Whoever
// writes it puts a new file in its place in one step (write another, rename it), or a half-written one may be read. A file that has private halves and is
// readable by others than its owner is refused (on systems that have such rights).
//
// Nothing runs in the background: there is nothing to close.
func OpenKeyring(path string, opts KeyringOptions) (*Keyring, error) {
	if opts.Poll == 0 {
		opts.Poll = defaultPoll
	}
	if opts.Poll < time.Millisecond {
		return nil, fmt.Errorf("keyring: Poll is %v; it needs at least 1ms", opts.Poll)
	}
	f := &keyFile{path: path, opts: opts}
	keys, stamp, err := f.read()
	if err != nil {
		return nil, err
	}
	r, err := NewKeyring(keys...)
	if err != nil {
		return nil, err
	}
	f.stamp = stamp
	f.next.Store(time.Now().Add(opts.Poll).UnixNano())
	r.file = f
	return r, nil
}

// A keyFile is where a Keyring comes from.
type keyFile struct {
	path string
	opts KeyringOptions
	next atomic.Int64 // when it is to be looked at, in Unix nanoseconds

	mu     sync.Mutex // of who looks
	stamp  stamp      // of what was read last
	failed string     // why it could not be used; "" = its keys count
}

// A stamp tells one content of the file from another.
type stamp struct {
	size  int64
	mtime time.Time
	mode  os.FileMode // a file may be refused for it
	info  os.FileInfo // for os.SameFile: a file that was renamed into its place
	err   string      // why it could not be looked at
}

func (s stamp) same(o stamp) bool {
	return s.size == o.size && s.mtime.Equal(o.mtime) && s.mode == o.mode && s.err == o.err && (s.info == nil || o.info == nil || os.SameFile(s.info, o.info))
}

// look reads the file again if it is time and it has changed. Those who come meanwhile go on with what is there; but not when nobody has looked for so long
// that a key could be in use which was added since.
func (f *keyFile) look(r *Keyring, now time.Time) {
	late := now.UnixNano() - f.next.Load()
	switch {
	case late < 0:
		return
	case late < f.opts.Poll.Nanoseconds():
		if !f.mu.TryLock() {
			return
		}
	default:
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	if now.UnixNano() < f.next.Load() {
		return // somebody has, a moment ago
	}
	f.next.Store(now.Add(f.opts.Poll).UnixNano())
	if f.failed == "" && f.stat().same(f.stamp) { // what could not be used may be usable though nothing of its stamp has changed
		return
	}
	keys, stamp, err := f.read()
	if err == nil {
		err = r.Replace(keys...)
	}
	failed := ""
	if err != nil {
		failed = err.Error()
	}
	known := failed != "" && failed == f.failed && stamp.same(f.stamp)
	f.stamp, f.failed = stamp, failed
	if f.opts.OnReload != nil && !known {
		f.opts.OnReload(err)
	}
}

func (f *keyFile) stat() stamp {
	info, err := os.Stat(f.path)
	if err != nil {
		return stamp{err: err.Error()}
	}
	return stamp{size: info.Size(), mtime: info.ModTime(), mode: info.Mode(), info: info}
}

// read returns the keys of the file, and the stamp that it had before: what is written meanwhile is seen at the next look.
func (f *keyFile) read() ([]Key, stamp, error) {
	before := f.stat()
	if before.err != "" {
		return nil, before, fmt.Errorf("keyring: %s", before.err)
	}
	if before.size > maxKeyFile {
		return nil, before, fmt.Errorf("keyring: %s has %d bytes, at most %d are read", f.path, before.size, maxKeyFile)
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		return nil, before, fmt.Errorf("keyring: %w", err)
	}
	keys, err := DecodeKeys(b)
	if err != nil {
		return nil, before, fmt.Errorf("%s: %w", f.path, err)
	}
	if shared := before.info.Mode().Perm() & 0o077; shared != 0 && runtime.GOOS != "windows" {
		for _, k := range keys {
			if k.HasPrivate() {
				return nil, before, fmt.Errorf("keyring: %s has private keys and the rights %v: others can read or change it; make them 0600", f.path, before.info.Mode().Perm())
			}
		}
	}
	return keys, before, nil
}
