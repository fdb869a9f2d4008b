package security

import (
	"container/list"
	"context"
	"crypto/sha256"
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

// A cacheKey names wrapped keys with all that they are bound to.
type cacheKey [sha256.Size]byte

// A keyCache has the data keys that were unwrapped, and remembers those that cannot be. Of several who need one at the same time one asks.
type keyCache struct {
	timeout time.Duration

	mu      sync.Mutex
	entries map[cacheKey]*list.Element // of *cached
	recent  *list.List                 // the one that was used last is first
	flights map[cacheKey]*opening
}

// A cached is what is known of a header omnienc, for a producer and a topic.
type cached struct {
	key   cacheKey
	until time.Time
	opened
}

// An opened is what was made of such a header.
type opened struct {
	cipher primitive.Cipher
	bound  []byte // the beginning of the associated data
	err    error  // a Refusal: it does not open; another: an outage
}

type opening struct {
	done chan struct{}
	opened
}

func newKeyCache(timeout time.Duration) *keyCache {
	return &keyCache{timeout: timeout, entries: map[cacheKey]*list.Element{}, recent: list.New(), flights: map[cacheKey]*opening{}}
}

// open returns what is known under a name, or has it made.
func (c *keyCache) open(ctx context.Context, name cacheKey, unwrap func(ctx context.Context) opened) opened {
	c.mu.Lock()
	if found := c.find(name, time.Now()); found != nil {
		c.mu.Unlock()
		return found.opened
	}
	f := c.flights[name]
	if f == nil {
		f = &opening{done: make(chan struct{})}
		c.flights[name] = f
		go c.ask(ctx, f, name, unwrap)
	}
	c.mu.Unlock()
	select {
	case <-f.done:
		return f.opened
	case <-ctx.Done():
		return opened{err: context.Cause(ctx)}
	}
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
func (c *keyCache) ask(ctx context.Context, f *opening, name cacheKey, unwrap func(ctx context.Context) opened) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
	defer cancel()
	f.opened = unwrap(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights, name)
	close(f.done)
	d := cachedFor
	if f.err != nil {
		d = cachedFailures
		if !isRefusal(f.err) {
			return // an outage: the next one asks again
		}
	}
	if len(c.entries) >= cachedKeys {
		oldest := c.recent.Back()
		c.recent.Remove(oldest)
		delete(c.entries, entryOf(oldest).key)
	}
	c.entries[name] = c.recent.PushFront(&cached{name, time.Now().Add(d), f.opened})
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
