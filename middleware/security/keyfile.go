package security

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security/internal/watched"
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
		if err := k.check(); err != nil {
			return nil, err
		}
		out.Keys = append(out.Keys, keyJSON{
			ID: k.ID, Suite: k.Suite, Owner: k.Owner, Status: k.Status,
			Private: encoding.EncodeToString(k.private()), Public: encoding.EncodeToString(k.public()),
		})
	}
	b, err := json.MarshalIndent(out, "", "  ")
	return append(b, '\n'), err
}

// DecodeKeys reads what EncodeKeys has written. Unknown fields and fields that are there twice are refused. No error has anything of a private half.
func DecodeKeys(b []byte) ([]Key, error) {
	var in keysJSON
	if err := decodeStrict(b, &in); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if in.Keys == nil { // nobody means that: with no key at all every message is given up
		return nil, errors.New("keyring: it has no list of keys")
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

// OpenKeyring reads a keyring file. When the file has changed, its keys count from the next look at it on: no later than Poll after the change, and without
// a restart. A changed file that cannot be used changes nothing: it is read again at each look until it can be, and OnReload is told of each reason once. Whoever
// writes it puts a new file in its place in one step (write another, rename it), or a half-written one may be read. A file that others than its owner can change
// is refused, and so is one with private halves that others can read (on systems that have such rights).
//
// Nothing runs in the background: there is nothing to close.
func OpenKeyring(path string, opts KeyringOptions) (*Keyring, error) {
	if opts.Poll == 0 {
		opts.Poll = watched.DefaultPoll
	}
	if opts.Poll < time.Millisecond {
		return nil, fmt.Errorf("keyring: Poll is %v; it needs at least 1ms", opts.Poll)
	}
	f := &keyFile{path: path, opts: opts, timer: watched.Timer{Poll: opts.Poll}}
	keys, stamp, err := f.read()
	if err != nil {
		return nil, err
	}
	r, err := NewKeyring(keys...)
	if err != nil {
		return nil, err
	}
	f.stamp = stamp
	f.timer.Looked(time.Now())
	r.file = f
	return r, nil
}

// A keyFile is where a Keyring comes from.
type keyFile struct {
	path  string
	opts  KeyringOptions
	timer watched.Timer

	mu     sync.Mutex    // of who looks
	stamp  watched.Stamp // of what was read last
	failed string        // why it could not be used; "" = its keys count
}

// look reads the file again if it is time and it has changed. Those who come meanwhile go on with what is there; but not when nobody has looked for so long
// that a key could be in use which was added since.
func (f *keyFile) look(r *Keyring, now time.Time) {
	if !f.timer.Due(now) {
		return
	}
	if f.timer.Overdue(now) {
		f.mu.Lock()
	} else if !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	if !f.timer.Due(now) {
		return // somebody has, a moment ago
	}
	f.timer.Looked(now)
	if f.failed == "" && watched.StampOf(f.path).Same(f.stamp) { // what could not be used may be usable though nothing of its stamp has changed
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
	known := failed != "" && failed == f.failed && stamp.Same(f.stamp)
	f.stamp, f.failed = stamp, failed
	if f.opts.OnReload != nil && !known {
		f.opts.OnReload(err)
	}
}

// read returns the keys of the file, and the stamp that it had before.
func (f *keyFile) read() ([]Key, watched.Stamp, error) {
	b, before, err := watched.Read(f.path)
	if err != nil {
		return nil, before, fmt.Errorf("keyring: %w", err)
	}
	keys, err := DecodeKeys(b)
	if err != nil {
		return nil, before, fmt.Errorf("%s: %w", f.path, err)
	}
	if err := before.CheckRights(f.path, "private keys", slices.ContainsFunc(keys, Key.HasPrivate)); err != nil {
		return nil, before, fmt.Errorf("keyring: %w", err)
	}
	return keys, before, nil
}
