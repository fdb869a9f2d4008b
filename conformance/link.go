package conformance

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A link is the connection of one process to the broker, right above the adapter's driver. It breaks when a property asks for it, and
// counts what passes.
type link struct {
	below

	mu       sync.Mutex
	dead     bool
	sources  map[*linkSource]struct{}
	onOut    func(o pubsub.Out) action // what becomes of a message on its way to the broker; nil = passes
	onRecord func(r *pubsub.Record)    // may spoil what comes; nil = passes
	fetched  int                       // records handed upwards
	held     int                       // of those, not settled
	peak     int                       // most of them at once
	unmoved  int                       // records of topics, not of what groups have for themselves, without an answer to their settlement
	bytes    int64                     // payload bytes of held
	sessions int                       // sources opened
	outs     int                       // producers opened
	delayed  int                       // answers that came late, or that a stall held up
	noRenew  bool                      // renewals are never answered
	timed    bool                      // leases end by themselves, as the records say
	claims   func(c *pubsub.Capabilities)
	onOpen   func() error  // why no session can be opened
	stalled  chan struct{} // closed when the broker answers again; nil = it does
	blocked  chan struct{} // closed when the broker takes messages again; nil = it does
	latency  time.Duration // before each answer
}

// An action is what a link does with a message that is to be stored.
type action struct {
	kind actionKind
	err  error // of refuse
}

type actionKind uint8

const (
	pass      actionKind = iota
	refuse               // the broker says no, for certain
	cutBefore            // the connection breaks, the message is not stored, nobody knows
	cutAfter             // the message is stored, and the connection breaks before the answer
	swallow              // a black hole: not stored, never an answer
	noAnswer             // stored, never an answer
)

// errReset is what a broken connection says.
var errReset = errors.New("conformance: connection reset by the suite")

// errKilled is what everything says that belongs to a killed process.
var errKilled = errors.New("conformance: this process was killed by the suite")

// A brokerError is an answer that the suite puts into the broker's mouth.
type brokerError struct {
	code  pubsub.Code
	final bool
}

func (e brokerError) Error() string { return "conformance: the broker says: " + e.code.Error() }

func newLink(d pubsub.Driver) *link {
	return &link{below: below{d}, sources: map[*linkSource]struct{}{}}
}

func (l *link) isDead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

// kill ends the connection at once, like the death of its process: nothing more is sent or settled, and the broker sees it go.
func (l *link) kill(ctx context.Context) error {
	l.die()
	l.cut()
	return l.Driver.Close(ctx)
}

func (l *link) die() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
}

// cut breaks all sources that are open, and says how many.
func (l *link) cut() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.sources {
		s.broken.cancel()
	}
	return len(l.sources)
}

// Capabilities are the driver's, less what a property takes away.
func (l *link) Capabilities() pubsub.Capabilities {
	c := l.Driver.Capabilities()
	if l.claims != nil {
		l.claims(&c)
	}
	return c
}

// stall lets nothing answer until resume is called.
func (l *link) stall() (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := make(chan struct{})
	l.stalled = ch
	return sync.OnceFunc(func() {
		l.mu.Lock()
		l.stalled = nil
		l.mu.Unlock()
		close(ch)
	})
}

// block lets the broker take no messages until resume is called; everything else goes on.
func (l *link) block() (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := make(chan struct{})
	l.blocked = ch
	return sync.OnceFunc(func() {
		l.mu.Lock()
		l.blocked = nil
		l.mu.Unlock()
		close(ch)
	})
}

// slow lets each answer take that much longer, and returns by how much it was longer before.
func (l *link) slow(d time.Duration) (before time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before, l.latency = l.latency, d
	return before
}

// answers waits while the link is stalled, and as long as it is slow.
func (l *link) answers(ctx context.Context) error {
	l.mu.Lock()
	stalled, latency := l.stalled, l.latency
	if stalled != nil || latency > 0 {
		l.delayed++
	}
	l.mu.Unlock()
	if latency > 0 {
		select {
		case <-time.After(latency):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return waitFor(ctx, stalled)
}

// waitFor waits until ch is closed; nil is.
func waitFor(ctx context.Context, ch chan struct{}) error {
	if ch == nil {
		return nil
	}
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// opens says whether a session can be opened.
func (l *link) opens(ctx context.Context) error {
	if err := l.answers(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.dead:
		return errKilled
	case l.onOpen != nil:
		return l.onOpen()
	}
	return nil
}

// refuseSessions sets what opening a session says; nil = it works again.
func (l *link) refuseSessions(onOpen func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onOpen = onOpen
}

func (l *link) Classify(err error) (pubsub.Code, bool) {
	if e, ok := errors.AsType[brokerError](err); ok {
		return e.code, e.final
	}
	if errors.Is(err, errReset) || errors.Is(err, errKilled) {
		return pubsub.ErrUnavailable, false
	}
	return l.Driver.Classify(err)
}

func (l *link) Ensure(ctx context.Context, t pubsub.Topology, m pubsub.Manage) error {
	if l.isDead() {
		return errKilled
	}
	return l.Driver.Ensure(ctx, t, m)
}

func (l *link) Ping(ctx context.Context) error {
	if l.isDead() {
		return errKilled
	}
	if err := l.answers(ctx); err != nil {
		return err
	}
	return l.Driver.Ping(ctx)
}

func (l *link) Close(ctx context.Context) error {
	if l.isDead() {
		return nil
	}
	return l.Driver.Close(ctx)
}

func (l *link) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	if l.isDead() {
		return func(yield func(pubsub.Record, error) bool) { yield(pubsub.Record{}, errKilled) }
	}
	return l.below.Browse(ctx, p, from)
}

// faults sets what happens to messages on their way in; nil = nothing any more.
func (l *link) faults(onOut func(o pubsub.Out) action) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onOut = onOut
}

func (l *link) spoil(onRecord func(r *pubsub.Record)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onRecord = onRecord
}

func (l *link) swallowRenewals() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noRenew = true
}

// opened is how many sources there have been.
func (l *link) opened() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sessions
}

// openings is how many sessions there have been, of both kinds.
func (l *link) openings() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sessions + l.outs
}

// settled says whether all that has come from topics is settled, and the broker knows.
func (l *link) settled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unmoved == 0
}

// late is how many answers were held up.
func (l *link) late() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.delayed
}

// leasesEnd says whether leases end by themselves.
func (l *link) leasesEnd() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.timed
}

// load tells how many records and bytes are with the engine now, and were at most.
func (l *link) load() (fetched, held, peak int, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fetched, l.held, l.peak, l.bytes
}

func (l *link) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	if err := l.opens(ctx); err != nil {
		return nil, err
	}
	p := &linkProducer{l: l, report: report, mute: map[uint64]bool{}}
	below, err := l.Driver.OpenProducer(ctx, s, p.answers)
	if err != nil {
		return nil, err
	}
	p.Producer = below
	l.mu.Lock()
	l.outs++
	l.mu.Unlock()
	return p, nil
}

// A linkProducer is a session of a link.
type linkProducer struct {
	pubsub.Producer
	l      *link
	report func([]pubsub.Result)

	mu      sync.Mutex
	mute    map[uint64]bool // messages whose answers are lost
	unknown []uint64        // messages that have no answer; reported when the session closes
	broken  bool
}

// answers passes the broker's answers on, but for those that are lost.
func (p *linkProducer) answers(rs []pubsub.Result) {
	p.mu.Lock()
	out := make([]pubsub.Result, 0, len(rs))
	for _, r := range rs {
		if !p.mute[r.Seq] {
			out = append(out, r)
		}
	}
	p.mu.Unlock()
	if len(out) > 0 {
		p.report(out)
	}
}

func (p *linkProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	if err := p.l.answers(ctx); err != nil {
		return 0, err
	}
	p.l.mu.Lock()
	blocked := p.l.blocked
	p.l.mu.Unlock()
	if err := waitFor(ctx, blocked); err != nil {
		return 0, err
	}
	p.mu.Lock()
	broken := p.broken
	p.mu.Unlock()
	p.l.mu.Lock()
	fault, dead := p.l.onOut, p.l.dead
	p.l.mu.Unlock()
	switch {
	case dead:
		return 0, errKilled
	case broken:
		return 0, errReset
	case fault == nil:
		return p.Producer.Send(ctx, run)
	}
	for i := range run {
		n, err := p.send(ctx, run[i:i+1], fault(run[i]))
		if n == 0 || err != nil {
			return i + n, err
		}
	}
	return len(run), nil
}

// send sends one message as the fault wants it.
func (p *linkProducer) send(ctx context.Context, one []pubsub.Out, a action) (int, error) {
	seq := one[0].Seq
	if a.kind == pass {
		return p.Producer.Send(ctx, one)
	}
	if a.kind == refuse {
		p.report([]pubsub.Result{{Seq: seq, Fate: pubsub.FateRefused, Err: a.err}})
		return 1, nil
	}
	p.mu.Lock()
	p.mute[seq] = true
	p.mu.Unlock()
	n := 1
	var err error
	if a.kind == cutAfter || a.kind == noAnswer {
		n, err = p.Producer.Send(ctx, one)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n == 1 {
		p.unknown = append(p.unknown, seq)
	}
	if err == nil && (a.kind == cutBefore || a.kind == cutAfter) {
		p.broken = true
		err = errReset
	}
	return n, err
}

func (p *linkProducer) Close(ctx context.Context) error {
	if p.l.isDead() { // its driver is closed, and the process has no use for answers
		return nil
	}
	err := p.Producer.Close(ctx)
	p.mu.Lock()
	rs := make([]pubsub.Result, 0, len(p.unknown))
	for _, seq := range p.unknown {
		rs = append(rs, pubsub.Result{Seq: seq, Fate: pubsub.FateUnknown, Err: errReset})
	}
	p.unknown = nil
	p.mu.Unlock()
	if len(rs) > 0 {
		p.report(rs)
	}
	return err
}
