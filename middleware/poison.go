package middleware

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/omnibus-go/omnibus/pubsub"
)

// PoisonOptions tunes Poison. The zero value is safe.
type PoisonOptions struct {
	Times    int              // failures of one kind, one after another, that make a message poison, at least 2; 0 = 3
	Messages int              // failing messages that are remembered, of all subscriptions together; 0 = 10,000
	When     func(error) bool // failures that count; nil = all but timeouts. One that does not count begins anew. Called by many goroutines
}

const (
	defaultPoisonTimes    = 3
	defaultPoisonMessages = 10_000
)

// Poison gives a message up, with the reason "poison", when it has failed the same way Times times in a row: by pubsub.Fingerprint, that is
// by the types of its errors or the place of its panic, never by text. What its policy would still allow is not waited for. Failures that are classified
// already, handed-back messages and snoozes do not count.
//
// It remembers only messages that fail, at most Messages of them, about 100 bytes each; beyond that the one that failed longest ago
// begins anew. A restart begins anew, and so does another member: then the policy's MaxAttempts is the bound, as without Poison.
//
// Do not use it where failures come from outside and look the same for every message: while a partner is down each message would be
// poison after three tries. Use a Breaker with it, which stands below and pauses before that, or set When. Errors made by
// errors.New all have one fingerprint: give kinds of failures types.
//
// A success costs nothing but the call while no message fails, and two hashes while some do; a failure costs about 2.5 µs and eight allocations.
func Poison(opts PoisonOptions) pubsub.Middleware {
	m := pubsub.Middleware{
		Name: "poison", After: []string{"retry"},
		Why: "the innermost classification wins: Retry's would, and nothing would ever be poison",
	}
	switch {
	case opts.Times < 0 || opts.Times == 1:
		m.Err = fmt.Errorf("Times is %d; it is at least 2, or 0 for the default", opts.Times)
	case opts.Messages < 0:
		m.Err = fmt.Errorf("Messages is %d; it cannot be negative", opts.Messages)
	}
	if opts.Times == 0 {
		opts.Times = defaultPoisonTimes
	}
	if opts.Messages == 0 {
		opts.Messages = defaultPoisonMessages
	}
	if opts.When == nil {
		opts.When = func(err error) bool { return !isTimeout(err) }
	}
	p := &poison{opts: opts, digests: newDigester(), seen: newLRU[digest, failures](max(opts.Messages, 1))}
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			err := next(ctx, d)
			switch {
			case err == nil:
				p.forget(d)
			case !unclassified(err):
				if o, _ := pubsub.OutcomeOf(err); o == pubsub.OutcomePermanent {
					p.forget(d)
				}
			case !pubsub.HandedBack(ctx):
				return p.failed(d, withCause(ctx, err))
			}
			return err
		}
	}
	return m
}

type poison struct {
	opts    PoisonOptions
	digests digester
	some    atomic.Int64 // entries of seen

	mu   sync.Mutex
	seen *lru[digest, failures]
}

type failures struct {
	fingerprint string
	times       int
}

// counts asks When. One that panics does not count the failure, and does not hide it.
func (p *poison) counts(err error) (is bool) {
	defer func() {
		if recover() != nil {
			is = false
		}
	}()
	return p.opts.When(err)
}

func (p *poison) failed(d *pubsub.Delivery, err error) error {
	if !p.counts(err) {
		p.forget(d)
		return err
	}
	key, fingerprint := p.digests.message(d), pubsub.Fingerprint(err)
	p.mu.Lock()
	f := p.seen.get(key)
	if f == nil || f.fingerprint != fingerprint {
		f = p.seen.put(key)
		f.fingerprint = fingerprint
	}
	f.times++
	times := f.times
	if times >= p.opts.Times {
		p.seen.remove(key)
	}
	p.some.Store(int64(p.seen.len()))
	p.mu.Unlock()
	if times < p.opts.Times {
		return err
	}
	return pubsub.GiveUp(pubsub.ReasonPoison, err) // as it is: its dead letter has the fingerprint of those that ran out of attempts
}

func (p *poison) forget(d *pubsub.Delivery) {
	if p.some.Load() == 0 {
		return
	}
	key := p.digests.message(d)
	p.mu.Lock()
	p.seen.remove(key)
	p.some.Store(int64(p.seen.len()))
	p.mu.Unlock()
}
