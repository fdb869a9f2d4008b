package security

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Keyring has the keys of one environment: those that a service signs with and those that it accepts, those that wrap data keys and those that
// unwrap them. Layers look into it for each message, so what Replace and a changed file say counts at once. Safe for concurrent use.
type Keyring struct {
	keys atomic.Pointer[keySet]
	file *keyFile // nil = it comes from none

	mu sync.Mutex // of Replace
}

// A keySet is what a Keyring has at one time. It never changes.
type keySet struct {
	version uint64
	all     []Key
	byID    map[string]*Key
	active  map[string][]*Key // by owner; those that sign
	wraps   map[string]*Key   // by owner; the one that wraps
}

// NewKeyring makes a Keyring. An owner has at most four active keys that sign, with each of which a message is signed, and one that wraps.
func NewKeyring(keys ...Key) (*Keyring, error) {
	r := &Keyring{}
	if err := r.Replace(keys...); err != nil {
		return nil, err
	}
	return r, nil
}

// Replace gives the Keyring other keys, all at once. Where it returns an error nothing has changed. What it gives a Keyring that comes from a file counts until
// that changes.
func (r *Keyring) Replace(keys ...Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	set := &keySet{all: slices.Clone(keys), byID: map[string]*Key{}, active: map[string][]*Key{}, wraps: map[string]*Key{}}
	if before := r.keys.Load(); before != nil {
		set.version = before.version + 1
	}
	for i := range set.all {
		if err := set.add(&set.all[i]); err != nil {
			return fmt.Errorf("keyring: %w", err)
		}
	}
	r.keys.Store(set)
	return nil
}

func (s *keySet) add(k *Key) error {
	switch err := k.check(); {
	case err != nil:
		return err
	case s.byID[k.ID] != nil:
		return fmt.Errorf("key %q is there twice", k.ID)
	}
	s.byID[k.ID] = k
	if k.Status != Active {
		return nil
	}
	if k.wrap != nil {
		if s.wraps[k.Owner] != nil {
			return fmt.Errorf("%q has two active keys that wrap: make the old one passive", k.Owner)
		}
		s.wraps[k.Owner] = k
		return nil
	}
	if !k.HasPrivate() {
		return nil // it is another's: this service accepts what that one signs
	}
	if s.active[k.Owner] = append(s.active[k.Owner], k); len(s.active[k.Owner]) > maxEntries {
		return fmt.Errorf("%q has more than %d active keys that sign: make the old ones passive", k.Owner, maxEntries)
	}
	return nil
}

// Keys returns the keys that are in the Keyring now.
func (r *Keyring) Keys() []Key { return slices.Clone(r.now().all) }

// now is the set that counts.
func (r *Keyring) now() *keySet {
	if r.file != nil {
		r.file.look(r, time.Now())
	}
	return r.keys.Load()
}

// accepted returns a key that may be accepted, nil if there is none.
func (s *keySet) accepted(id []byte) *Key {
	k := s.byID[string(id)]
	if k == nil || k.Status == Revoked {
		return nil
	}
	return k
}
