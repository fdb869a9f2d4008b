package security

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security/internal/primitive"
)

// What one data key may do, at most. GCM under random nonces is good for 2^32 messages.
const (
	maxKeyMessages = 1 << 22
	maxKeyBytes    = 64 << 30
	defaultKeyAge  = time.Hour

	refreshAt = 0.8 // of any of these the next one is made

	maxTopics = 1000 // that have a data key at the same time
)

// A dataKey encrypts for one topic and its recipients.
type dataKey struct {
	envelope
	cipher primitive.Cipher
	header string
	bound  []byte   // the beginning of the associated data
	keks   []string // which keys it is wrapped with
	born   time.Time

	messages, bytes int64 // that it has encrypted; dataKeys.mu holds them
}

// used is the part of its life that is over.
func (k *dataKey) used(now time.Time, l *limits) float64 {
	return max(float64(now.Sub(k.born))/float64(l.age), float64(k.messages)/float64(l.messages), float64(k.bytes)/float64(l.bytes))
}

type limits struct {
	age             time.Duration
	messages, bytes int64
}

// dataKeys has the data keys that a process encrypts with: for each topic one.
type dataKeys struct {
	recipients []KMS
	producer   string
	timeout    time.Duration
	limits     limits

	mu     sync.Mutex
	topics map[string]*topicKeys
}

type topicKeys struct {
	key    *dataKey // nil = there is none yet
	flight *flight  // that makes the next; nil = nobody does
	again  time.Time
	last   time.Time // that it was asked for
}

// A flight is a call of a KMS that several may wait for. It goes on when they do not.
type flight struct {
	done chan struct{}
	keks []string // that it wraps with
	key  *dataKey
	err  error
}

// get returns the topic's key, for so many bytes more, and waits for a KMS only where there is none that may be used. Where the keys that wrap have changed while one
// was asked, with a key that it may not use any more, it is asked again: a rotation makes no message fail.
func (d *dataKeys) get(ctx context.Context, topic string, size int) (*dataKey, error) {
	for {
		keks, err := d.current()
		if err != nil {
			return nil, err
		}
		k, f := d.take(ctx, topic, keks, int64(size))
		if f == nil {
			return k, nil
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if f.err == nil {
			continue
		}
		if now, err := d.current(); err != nil || slices.Equal(now, f.keks) {
			return nil, f.err
		}
	}
}

// current names the keys that the KMSs wrap with now.
func (d *dataKeys) current() ([]string, error) {
	var room [1]string
	keks := room[:0]
	for _, r := range d.recipients {
		kek, err := r.Current()
		if err != nil {
			return nil, fmt.Errorf("the key of %q: %w", r.Provider(), err)
		}
		keks = append(keks, kek)
	}
	return keks, nil
}

// take returns a key that may be used, or the flight that makes it.
func (d *dataKeys) take(ctx context.Context, topic string, keks []string, size int64) (*dataKey, *flight) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.topics[topic]
	if t == nil {
		d.makeRoom()
		t = &topicKeys{}
		d.topics[topic] = t
	}
	t.last = now
	if k := t.key; k != nil && slices.Equal(k.keks, keks) {
		if part := k.used(now, &d.limits); part < 1 {
			k.messages++
			k.bytes += size
			if part >= refreshAt && t.flight == nil && now.After(t.again) {
				d.make(ctx, t, topic, keks)
			}
			return k, nil
		}
	}
	if t.flight == nil {
		d.make(ctx, t, topic, keks)
	}
	return nil, t.flight
}

// makeRoom forgets the topic that was published to longest ago. d.mu is held.
func (d *dataKeys) makeRoom() {
	if len(d.topics) < maxTopics {
		return
	}
	oldest := ""
	for name, t := range d.topics {
		if t.flight == nil && (oldest == "" || t.last.Before(d.topics[oldest].last)) {
			oldest = name
		}
	}
	delete(d.topics, oldest)
}

// make begins to make a key. Whoever waits for it may give up; it goes on, for timeout at most, since others wait too. d.mu is held.
func (d *dataKeys) make(ctx context.Context, t *topicKeys, topic string, keks []string) {
	f := &flight{done: make(chan struct{}), keks: slices.Clone(keks)}
	t.flight = f
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timeout)
		defer cancel()
		f.key, f.err = d.wrap(ctx, topic, f.keks)
		d.mu.Lock()
		defer d.mu.Unlock()
		t.flight = nil
		if f.err == nil {
			t.key = f.key
		} else {
			t.again = time.Now().Add(d.timeout)
		}
		close(f.done)
	}()
}

// wrap makes a key and has it wrapped for each recipient.
func (d *dataKeys) wrap(ctx context.Context, topic string, keks []string) (_ *dataKey, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a KMS panics: %v", r)
		}
	}()
	dek := primitive.Random(primitive.KeySize)
	k := &dataKey{envelope: envelope{id: primitive.Random(sizeID)}, keks: keks, born: time.Now()}
	if k.cipher, k.commit, err = derive(dek, k.id); err != nil {
		return nil, err
	}
	k.bound = k.envelope.bound(d.producer, topic)
	binding := k.binding(d.producer, topic)
	for i, r := range d.recipients {
		wrapped, err := r.Wrap(ctx, keks[i], dek, binding)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%q does not wrap a data key: %w", r.Provider(), err)
		case keks[i] == "" || len(keks[i]) > maxName || len(wrapped) == 0 || len(wrapped) > maxEncryption:
			return nil, fmt.Errorf("%q wraps a data key with a key that cannot be named, or into %d bytes", r.Provider(), len(wrapped))
		}
		k.recipients = append(k.recipients, recipient{r.Provider(), keks[i], wrapped})
	}
	if k.header = k.encode(); len(k.header) > maxEncryption {
		return nil, errors.New("the wrapped data keys are too large for a header")
	}
	return k, nil
}
