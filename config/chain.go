package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync/atomic"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
)

// chain makes the layers of a list.
func (b *builder) chain(path string, layers []Layer) []pubsub.Middleware {
	b.needSign(path, layers)
	var all []pubsub.Middleware
	for i := range layers {
		at := fmt.Sprintf("%s[%d].%s", path, i, layers[i].Name)
		m, err := b.layer(at, &layers[i], layers)
		if err != nil {
			continue // it is noted
		}
		if m.Err != nil {
			b.wrongf(at, "mend its settings", "%v", m.Err)
			continue
		}
		all = append(all, m)
	}
	return all
}

var errNoted = errors.New("it is among the problems")

// layer makes one of a list.
func (b *builder) layer(at string, l *Layer, list []Layer) (pubsub.Middleware, error) {
	switch l.Name {
	case "access":
		return b.access(at, &l.Access)
	case "breaker":
		s := l.Breaker
		return middleware.Breaker(middleware.BreakerOptions{Window: s.Window, Min: s.Min, Ratio: s.Ratio, Open: s.Open, Probes: s.Probes, Burst: s.Burst}), nil
	case "compress":
		return middleware.CompressWith(middleware.CompressOptions{From: int(l.Compress.From), Max: int(l.Compress.Max)}), nil
	case "concurrency":
		return middleware.ConcurrencyLimit(l.Concurrency), nil
	case "correlate":
		return middleware.Correlate(), nil
	case "dedup":
		s := l.Dedup
		store, err := b.store(at, s.Store)
		return middleware.Dedup(middleware.DedupOptions{Store: store, Window: s.Window, Lease: s.Lease, Again: s.Again}), err
	case "encrypt":
		return b.encrypt(at, &l.Encrypt, b.producer(list))
	case "log":
		return b.logLayer(at)
	case "own":
		m, ok := b.opts.Layers[l.Own]
		if !ok && !b.opts.Unbound {
			b.wrongf(at, remedy(l.Own, slices.Collect(maps.Keys(b.opts.Layers))), "no layer %s is in Options.Layers", b.say(at, l.Own))
			return pubsub.Middleware{}, errNoted
		}
		b.own = true
		return m, nil
	case "poison":
		return middleware.Poison(middleware.PoisonOptions{Times: l.Poison.Times, Messages: l.Poison.Messages}), nil
	case "rate-limit":
		r := newRate(l.RateLimit)
		b.plan.rates[at] = r
		return r.layer(), nil
	case "replay":
		return b.replay(at, &l.Replay)
	case "retry":
		policy, rules := b.policy(at+".policy", &l.Retry.Policy), b.rules(at, l.Retry.Rules)
		return middleware.Retry(policy, rules...), nil
	case "sign":
		return b.sign(at, &l.Sign)
	}
	return middleware.Timeout(l.Timeout), nil
}

func (b *builder) logLayer(at string) (pubsub.Middleware, error) {
	l := b.plan.options.Logger
	if b.opts.Unbound && l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	if l == nil {
		b.wrongf(at, "add the key log at the top, or give the program a logger (Options.Logger)", "there is nothing to write to")
		return pubsub.Middleware{}, errNoted
	}
	return middleware.Log(l), nil
}

// A rate is a rate-limit layer whose rate can be changed while messages flow: messages that wait go on waiting at the old one.
type rate struct {
	now atomic.Pointer[pubsub.Middleware]
}

func newRate(s RateLimit) *rate {
	r := &rate{}
	r.set(s)
	return r
}

func (r *rate) set(s RateLimit) {
	m := middleware.RateLimit(s.PerSecond, max(s.Burst, 1))
	r.now.Store(&m)
}

// bound is a limiter around the handler that a subscription has.
type bound struct {
	to *pubsub.Middleware
	h  pubsub.Handler
}

func (r *rate) layer() pubsub.Middleware {
	m := *r.now.Load()
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		var last atomic.Pointer[bound]
		return func(ctx context.Context, d *pubsub.Delivery) error {
			now, b := r.now.Load(), last.Load()
			if b == nil || b.to != now {
				b = &bound{now, now.Incoming(next)}
				last.Store(b)
			}
			return b.h(ctx, d)
		}
	}
	return m
}

// rules makes those of one list; at is the subscription or the layer that has them.
func (b *builder) rules(at string, rules []Rule) []pubsub.Rule {
	var all []pubsub.Rule
	for i := range rules {
		r, path := &rules[i], fmt.Sprintf("%s.rules[%d]", at, i)
		all = append(all, pubsub.Rule{Category: r.Category, When: b.when(path+".when", r.When), Retry: b.policy(path+".retry", &r.Retry)})
	}
	return all
}

// when makes one function of several kinds.
func (b *builder) when(path string, kinds []string) func(error) bool {
	var all []func(error) bool
	for i, k := range kinds {
		f := b.opts.Failures[k]
		if own := failures()[k]; own != nil {
			f = own
		}
		if f == nil && !b.opts.Unbound {
			known := append(slices.Collect(maps.Keys(b.opts.Failures)), slices.Collect(maps.Keys(failures()))...)
			at := fmt.Sprintf("%s[%d]", path, i)
			b.wrongf(at, remedy(k, known), "no kind of failure %s is in Options.Failures", b.say(at, k))
		}
		if f != nil {
			all = append(all, f)
		}
	}
	return func(err error) bool {
		return slices.ContainsFunc(all, func(f func(error) bool) bool { return f(err) })
	}
}

// failures are the kinds that need no function of the program's.
func failures() map[string]func(error) bool {
	return map[string]func(error) bool{
		"timeout": func(err error) bool {
			n, ok := errors.AsType[net.Error](err)
			return ok && n.Timeout() || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, pubsub.ErrTimeout)
		},
		"network": func(err error) bool {
			_, ok := errors.AsType[net.Error](err)
			return ok || errors.Is(err, pubsub.ErrUnavailable)
		},
	}
}
