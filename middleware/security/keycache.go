package security

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security/internal/primitive"
)

const (
	cachedKeys     = 1000
	cachedFor      = time.Hour
	cachedFailures = 30 * time.Second
)

// A cacheKey names one wrapped key with all that it is bound to.
type cacheKey [sha256.Size]byte

// A keyCache has the data keys that were unwrapped, and remembers those that cannot be. Of several who need one at the same time one asks.
type keyCache struct {
	timeout time.Duration

	mu      sync.Mutex
	entries map[cacheKey]*list.Element // of *cached
	recent  *list.List                 // the one that was used last is first
	flights map[cacheKey]*opening
}

// A cached is what is known of a wrapped key.
type cached struct {
	key    cacheKey
	cipher primitive.Cipher
	err    error // ErrUnwrap: it does not open
	until  time.Time
}

type opening struct {
	done   chan struct{}
	cipher primitive.Cipher
	err    error
}

func newKeyCache(timeout time.Duration) *keyCache {
	return &keyCache{timeout: timeout, entries: map[cacheKey]*list.Element{}, recent: list.New(), flights: map[cacheKey]*opening{}}
}

// open unwraps for one recipient.
func (c *keyCache) open(ctx context.Context, kms KMS, e *envelope, r *recipient, binding []byte) (primitive.Cipher, error) {
	key := nameOf(kms, r, binding)
	c.mu.Lock()
	if found := c.find(key, time.Now()); found != nil {
		c.mu.Unlock()
		return found.cipher, found.err
	}
	f := c.flights[key]
	if f == nil {
		f = &opening{done: make(chan struct{})}
		c.flights[key] = f
		go c.ask(ctx, f, key, kms, e, r, binding)
	}
	c.mu.Unlock()
	select {
	case <-f.done:
		return f.cipher, f.err
	case <-ctx.Done():
		return primitive.Cipher{}, context.Cause(ctx)
	}
}

func nameOf(kms KMS, r *recipient, binding []byte) (k cacheKey) {
	f := make(frame, 0, 512)
	if v, ok := kms.(Versioned); ok {
		f = binary.BigEndian.AppendUint64(f, v.Version())
	}
	f.text8(r.provider)
	f.text8(r.kek)
	f.bytes16(r.wrapped)
	f.raw(binding)
	return sha256.Sum256(f)
}

// find returns what is known and still holds. c.mu is held.
func (c *keyCache) find(key cacheKey, now time.Time) *cached {
	el := c.entries[key]
	if el == nil {
		return nil
	}
	found := entryOf(el)
	if !now.Before(found.until) {
		c.recent.Remove(el)
		delete(c.entries, key)
		return nil
	}
	c.recent.MoveToFront(el)
	return found
}

func entryOf(el *list.Element) *cached {
	found, _ := el.Value.(*cached) // nothing else is in the list
	return found
}

// ask has the key unwrapped. Whoever waits for it may give up; it goes on, for timeout at most, since others wait too.
func (c *keyCache) ask(ctx context.Context, f *opening, key cacheKey, kms KMS, e *envelope, r *recipient, binding []byte) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	defer cancel()
	f.cipher, f.err = unwrap(ctx, kms, e, r, binding)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights, key)
	close(f.done)
	d := cachedFor
	if f.err != nil {
		d = cachedFailures
		if !errors.Is(f.err, ErrUnwrap) {
			return // an outage: the next one asks again
		}
	}
	if len(c.entries) >= cachedKeys {
		oldest := c.recent.Back()
		c.recent.Remove(oldest)
		delete(c.entries, entryOf(oldest).key)
	}
	c.entries[key] = c.recent.PushFront(&cached{key, f.cipher, f.err, time.Now().Add(d)})
}

// unwrap asks the KMS, and makes sure that no other key was meant.
func unwrap(ctx context.Context, kms KMS, e *envelope, r *recipient, binding []byte) (c primitive.Cipher, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the KMS panics: %v", p)
		}
	}()
	dek, err := kms.Unwrap(ctx, r.kek, r.wrapped, binding)
	if err != nil {
		return c, err
	}
	if len(dek) != primitive.KeySize {
		return c, ErrUnwrap
	}
	c, commit, err := derive(dek, e.id)
	if err != nil {
		return c, err
	}
	if !primitive.Equal(commit, e.commit) {
		return c, ErrUnwrap
	}
	return c, nil
}
