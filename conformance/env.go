package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// patience is how long a property waits for what must come. Nothing waits that long unless something is wrong.
const patience = 30 * time.Second

// lease is the ack wait of subscriptions: what was on its way over a connection that broke comes when it is over, long before patience is.
const lease = patience / 3

// An env is what a property works with: connections to the broker under test, names of its own, and what it has recorded.
type env struct {
	T
	h       Harness
	m       *mutation // nil = the adapter as it is
	run     string    // unique; begins every topic
	rng     dice
	caps    pubsub.Capabilities
	adapter string
	ids     atomic.Int64

	mu      sync.Mutex
	ledgers []*ledger
	drivers int
	moot    string // why the property cannot be asked of this broker after all
}

// skip ends the property because this broker turns out not to have what it is about.
func (e *env) skip(why string) {
	e.moot = why
	runtime.Goexit()
}

// A process stands for one process of a service: a connection of its own, which can be killed.
type process struct {
	*pubsub.Broker
	e    *env
	name string
	link *link
}

// must ends the property, without a verdict, if err is not nil.
func (e *env) must(err error, what string, args ...any) {
	e.Helper()
	if err != nil {
		e.Fatalf(setupPrefix+"%s: %v", fmt.Sprintf(what, args...), err)
	}
}

// open starts a process with the default options.
func (e *env) open() *process { return e.openWith(nil) }

func (e *env) openWith(opts *pubsub.Options) *process {
	e.Helper()
	p, err := e.tryOpen(opts)
	e.must(err, "open")
	return p
}

// tryOpen starts a process; an error is that of pubsub.New.
func (e *env) tryOpen(opts *pubsub.Options) (*process, error) {
	e.Helper()
	return e.openClaiming(opts, nil)
}

// openClaiming starts a process whose server claims less than it does.
func (e *env) openClaiming(opts *pubsub.Options, claims func(c *pubsub.Capabilities)) (*process, error) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.Context(), patience)
	defer cancel()
	d, err := e.h.Driver(ctx)
	e.must(err, "connect")
	e.mu.Lock()
	e.drivers++
	p := &process{e: e, name: fmt.Sprintf("process %d", e.drivers), link: newLink(d)}
	p.link.claims = claims
	e.mu.Unlock()
	b, err := pubsub.New(ctx, e.m.over(shaped(p.link, d)), opts)
	if err != nil {
		return nil, err
	}
	p.Broker = b
	e.Cleanup(func() { _ = b.Close() }) // properties that care close themselves
	return p, nil
}

// kill ends the process as SIGKILL does: what its handlers still do reaches nobody.
func (p *process) kill() {
	p.e.Helper()
	p.link.die()
	p.e.mu.Lock()
	for _, l := range p.e.ledgers {
		l.forget(p)
	}
	p.e.mu.Unlock()
	ctx, cancel := context.WithTimeout(p.e.Context(), patience)
	defer cancel()
	if err := p.link.kill(ctx); err != nil {
		p.e.Logf("%s was killed: %v", p.name, err)
	}
}

// held is how many deliveries the process has that are not settled.
func (p *process) held() int {
	_, n, _, _ := p.link.load()
	return n
}

// topic makes a name that nobody else uses.
func (e *env) topic(name string) string { return e.run + "." + name }

// sub is a subscription of the group that works on every broker: what a user writes first.
func (e *env) sub(topic, group string) pubsub.Subscription {
	s := pubsub.Subscription{Topic: topic, Group: group, AckWait: lease}
	if !e.caps.Redelivery || !exclusive().Open(e.caps) {
		s.Order = pubsub.OrderPerMember
	}
	s.DeadLetter.Drop = !e.caps.Redelivery
	return s
}

// subscribe starts a consumer. Its end is the process's, or the property's.
func (e *env) subscribe(p *process, s pubsub.Subscription, h pubsub.Handler) *pubsub.Consumer {
	e.Helper()
	c, err := p.Subscribe(e.Context(), s, h)
	e.must(err, "subscribe to %s as %s", s.Topic, s.Group)
	return c
}

// ensure makes groups, and with them their topics, as one service with one declaration would.
func (e *env) ensure(p *process, groups ...pubsub.Subscription) {
	e.Helper()
	t := pubsub.Topology{Groups: groups}
	seen := map[string]bool{}
	for _, g := range groups {
		if !seen[g.Topic] {
			seen[g.Topic] = true
			t.Topics = append(t.Topics, pubsub.TopicSpec{Name: g.Topic})
		}
	}
	e.must(p.Ensure(e.Context(), t), "ensure")
}

// audience lets topics take messages: a group named "other" has them. Where a group keeps nothing for its members it must have one.
func (e *env) audience(p *process, topics ...string) {
	e.Helper()
	subs := make([]pubsub.Subscription, len(topics))
	for i, topic := range topics {
		subs[i] = e.sub(topic, "other")
		if !e.caps.Redelivery {
			e.subscribe(p, subs[i], func(context.Context, *pubsub.Delivery) error { return nil })
		}
	}
	if e.caps.Redelivery {
		e.ensure(p, subs...)
	}
}

// until waits for cond, at most d.
func (e *env) until(d time.Duration, cond func() bool) bool {
	end := time.Now().Add(d)
	for pause := time.Millisecond; !cond(); pause = min(2*pause, 20*time.Millisecond) {
		if !time.Now().Before(end) || e.Context().Err() != nil {
			return cond()
		}
		time.Sleep(pause)
	}
	return true
}

// virtual says whether the clock is that of a bubble of testing/synctest: they begin in 2000, and waiting costs nothing.
func virtual() bool { return time.Now().Year() == 2000 }

// closed waits for ch, at most d, and not when the run is ended.
func (e *env) closed(d time.Duration, ch <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ch:
		return true
	case <-timer.C:
		return false
	case <-e.Context().Done():
		return false
	}
}

// within runs f and says how long it took; it does not wait for it longer than d.
func (e *env) within(d time.Duration, f func()) (took time.Duration, ended bool) {
	begin, done := time.Now(), make(chan struct{})
	go func() { defer close(done); f() }()
	ended = e.closed(d, done)
	return time.Since(begin), ended
}

// wantCode asserts that err has the code, and names the adapter where it is an *Error.
func (e *env) wantCode(err error, code pubsub.Code, what string, args ...any) {
	e.Helper()
	what = fmt.Sprintf(what, args...)
	if !errors.Is(err, code) {
		e.Errorf("%s: got error %v, want %q", what, err, code.Error())
		return
	}
	if pe, ok := errors.AsType[*pubsub.Error](err); ok && (pe.Broker != e.adapter || strings.TrimSpace(pe.Broker) == "") {
		e.Errorf("%s: the error %q names the adapter %q, which is %q", what, err, pe.Broker, e.adapter)
	}
}

// wantUnsupported asserts that what a broker cannot do is refused, naming the adapter and the feature.
func (e *env) wantUnsupported(err error, feature string) {
	e.Helper()
	e.wantCode(err, pubsub.ErrUnsupported, "asking for %s, which this broker has not", feature)
}

// A gate opens the handlers that wait at it, all at once.
type gate struct {
	ch   chan struct{}
	once sync.Once
}

// gate makes a gate that opens at the property's end at the latest, so that no handler stays behind it.
func (e *env) gate() *gate {
	g := &gate{ch: make(chan struct{})}
	e.Cleanup(g.open)
	return g
}

func (g *gate) open() { g.once.Do(func() { close(g.ch) }) }
func (g *gate) wait() { <-g.ch }

// waitOr waits for the gate or the end of ctx, which it returns.
func (g *gate) waitOr(ctx context.Context) error {
	select {
	case <-g.ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// dice throws what the run's seed gives, for several goroutines.
type dice struct {
	mu  *sync.Mutex
	src *rand.Rand
}

func newDice(seed uint64, property string) dice {
	return dice{new(sync.Mutex), rand.New(rand.NewPCG(seed, hash(property)))}
}

// below returns a number from 0 to n-1.
func (d dice) below(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.src.IntN(n)
}
