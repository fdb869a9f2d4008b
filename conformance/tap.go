package conformance

import (
	"context"
	"iter"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A mutation is one fault that an adapter might have, between the engine and a sound driver. Its functions are called one at a
// time; those that are nil change nothing.
type mutation struct {
	mu     sync.Mutex   // held while out, run, more, result, record, settle, renew, reschedule and spec are called; the others guard what they share with these
	handed atomic.Int64 // records that reached the engine
	stored atomic.Int64 // messages that it took right, before its first fault
	shown  atomic.Int64 // and those that it showed right
	struck atomic.Bool  // there was a fault
	wiped  atomic.Bool  // what the leader has stored is gone, see Harness.Replicas

	name         string
	capabilities func(c *pubsub.Capabilities)
	classify     func(code pubsub.Code, final bool) (pubsub.Code, bool)
	ping         func(err error) error
	parameters   func(q url.Values) // of an URL
	ensure       func(t *pubsub.Topology, m *pubsub.Manage)
	ensured      func(err error) error
	spec         func(s *pubsub.SourceSpec)
	opened       func(d pubsub.Driver, s pubsub.SourceSpec, err error) error // an error that OpenSource is about to return
	wrapSource   func(d pubsub.Driver, s pubsub.SourceSpec, src pubsub.Source) pubsub.Source
	out          func(o *pubsub.Out) outFate
	run          func(run []pubsub.Out)              // may change the order
	more         func(run []pubsub.Out) []pubsub.Out // sent as well, behind the run; nobody asks what became of them
	result       func(r *pubsub.Result)
	record       func(s *tapSource, r *pubsub.Record) recordFate
	recvBlocks   func(s *tapSource) bool                       // while true nothing is received
	recvOne      bool                                          // Recv gives one record at a time
	settle       func(s *tapSource, x *pubsub.Settlement) bool // false: says that it is done, and does nothing
	settled      func(x pubsub.Settlement, err error) error
	renew        func(r *pubsub.Renewal) bool
	beforeClose  func(ctx context.Context, s *tapSource)
	closeSource  func(ctx context.Context, s *tapSource) error // instead of the source's own
	quiesce      func(ctx context.Context, s *tapSource) error
	closeDriver  func(ctx context.Context, d pubsub.Driver) error
	browse       func(p pubsub.Place, all iter.Seq2[pubsub.Record, error]) iter.Seq2[pubsub.Record, error]
	lag          func(l *pubsub.Lag)
	admits       Intruder                                                                                        // who is let in
	refusal      func(err error) error                                                                           // what an intruder is told
	secrets      []string                                                                                        // of the harness
	purge        func(ctx context.Context, below optional, p pubsub.Place, upTo pubsub.Position) pubsub.Position // up to where, instead
	guard        func(l pubsub.Middleware) pubsub.Middleware                                                     // changes a layer of package security
	waiting      func(all iter.Seq2[pubsub.Waiting, error]) iter.Seq2[pubsub.Waiting, error]
	reschedule   func(next rescheduler, w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error)
	withdraw     func(next func() error) error
	topics       func(all []string) []string
	seek         func(ctx context.Context, below pubsub.Seeker, topic, group string, to pubsub.Start) error
}

// right notes whether something passed untouched; n, unless it is nil, counts that.
func (m *mutation) right(untouched bool, n *atomic.Int64) {
	switch {
	case !untouched:
		m.struck.Store(true)
	case n != nil && !m.struck.Load():
		n.Add(1)
	}
}

// early says whether there was a fault before as many messages had passed as every mutant gets right.
func (m *mutation) early() bool {
	return m.struck.Load() && max(m.stored.Load(), m.shown.Load()) < sound
}

// replicasOf is Harness.Replicas.
type replicasOf = func(ctx context.Context, topic string) (pauseFollowers, wipeLeader Fault, err error)

// watch lets the mutation know when the leader of a topic is wiped.
func (m *mutation) watch(replicas replicasOf) replicasOf {
	if replicas == nil {
		return nil
	}
	return func(ctx context.Context, topic string) (pauseFollowers, wipeLeader Fault, err error) {
		pauseFollowers, wipeLeader, err = replicas(ctx, topic)
		strike := wipeLeader.Strike
		wipeLeader.Strike = func(ctx context.Context) (func(context.Context) (bool, error), error) {
			m.wiped.Store(true)
			return strike(ctx)
		}
		return pauseFollowers, wipeLeader, err
	}
}

// What becomes of a message on its way in.
type outFate uint8

const (
	outStore  outFate = iota
	outLose           // confirmed, and forgotten
	outRefuse         // stored, and said to be refused
	outEarly          // confirmed before the broker says anything
)

// What becomes of a record on its way out.
type recordFate uint8

const (
	recordKeep  recordFate = iota
	recordLose             // acked, and never shown
	recordTwice            // shown twice
	recordHold             // shown after the next one of its key
	recordAck              // shown, and acked at once
)

// over puts the mutation on a driver; none leaves it as it is.
func (m *mutation) over(d pubsub.Driver) pubsub.Driver {
	if m == nil {
		return d
	}
	return shaped(&tap{below{d}, m}, d)
}

// A tap is the driver that a mutant is.
type tap struct {
	below
	m *mutation
}

func (t *tap) Name() string {
	if t.m.name != "" {
		return t.m.name
	}
	return t.Driver.Name()
}

func (t *tap) Capabilities() pubsub.Capabilities {
	c := t.Driver.Capabilities()
	if t.m.capabilities != nil {
		t.m.capabilities(&c)
	}
	return c
}

func (t *tap) Classify(err error) (pubsub.Code, bool) {
	code, final := t.Driver.Classify(err)
	if t.m.classify != nil {
		return t.m.classify(code, final)
	}
	return code, final
}

func (t *tap) Ensure(ctx context.Context, topo pubsub.Topology, how pubsub.Manage) error {
	if t.m.ensure != nil {
		t.m.ensure(&topo, &how)
	}
	err := t.Driver.Ensure(ctx, topo, how)
	if t.m.ensured != nil {
		return t.m.ensured(err)
	}
	return err
}

func (t *tap) Ping(ctx context.Context) error {
	err := t.Driver.Ping(ctx)
	if t.m.ping != nil {
		return t.m.ping(err)
	}
	return err
}

func (t *tap) Close(ctx context.Context) error {
	if t.m.closeDriver != nil {
		return t.m.closeDriver(ctx, t.Driver)
	}
	return t.Driver.Close(ctx)
}

func (t *tap) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	all := t.below.Browse(ctx, p, from)
	if t.m.browse != nil {
		return t.m.browse(p, all)
	}
	return all
}

func (t *tap) Lag(ctx context.Context, topic, group string) (pubsub.Lag, error) {
	l, err := t.below.Lag(ctx, topic, group)
	if err == nil && t.m.lag != nil {
		t.m.lag(&l)
	}
	return l, err
}

func (t *tap) Topics(ctx context.Context) ([]string, error) {
	all, err := t.below.Topics(ctx)
	if err == nil && t.m.topics != nil {
		return t.m.topics(all), nil
	}
	return all, err
}

func (t *tap) Seek(ctx context.Context, topic, group string, to pubsub.Start) error {
	if t.m.seek != nil {
		return t.m.seek(ctx, t.below, topic, group, to)
	}
	return t.below.Seek(ctx, topic, group, to)
}

func (t *tap) Purge(ctx context.Context, p pubsub.Place, upTo pubsub.Position) error {
	if t.m.purge != nil {
		upTo = t.m.purge(ctx, t.below, p, upTo)
	}
	return t.below.Purge(ctx, p, upTo)
}

func (t *tap) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	p := &tapProducer{m: t.m, report: report, hidden: map[uint64]bool{}}
	below, err := t.Driver.OpenProducer(ctx, s, p.answers)
	if err != nil {
		return nil, err
	}
	p.Producer = below
	return p, nil
}

// A tapProducer is a session of a mutant.
type tapProducer struct {
	pubsub.Producer
	m      *mutation
	report func([]pubsub.Result)
	extra  uint64 // messages that the mutant sent by itself

	mu     sync.Mutex
	hidden map[uint64]bool // messages whose answers the mutant gives itself
}

func (p *tapProducer) answers(rs []pubsub.Result) {
	out := make([]pubsub.Result, 0, len(rs))
	p.mu.Lock()
	for _, r := range rs {
		if !p.hidden[r.Seq] {
			out = append(out, r)
		}
	}
	p.mu.Unlock()
	if p.m.result != nil {
		p.m.mu.Lock()
		for i := range out {
			was := out[i].Fate
			p.m.result(&out[i])
			p.m.right(out[i].Fate == was, nil)
		}
		p.m.mu.Unlock()
	}
	if len(out) > 0 {
		p.report(out)
	}
}

func (p *tapProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	if p.m.out == nil && p.m.run == nil && p.m.more == nil {
		for range run {
			p.m.right(true, &p.m.stored)
		}
		return p.Producer.Send(ctx, run)
	}
	p.m.mu.Lock()
	var store []pubsub.Out
	var at []int // of each of store: its index in run
	var own []pubsub.Result
	for i := range run {
		o, fate := run[i], outStore
		if p.m.out != nil {
			fate = p.m.out(&o)
		}
		p.m.right(fate == outStore && o == run[i], &p.m.stored)
		switch fate {
		case outLose, outEarly:
			own = append(own, pubsub.Result{Seq: o.Seq, Fate: pubsub.FateAccepted})
		case outRefuse:
			own = append(own, pubsub.Result{Seq: o.Seq, Fate: pubsub.FateRefused, Err: brokerError{pubsub.ErrBroker, true}})
		}
		if fate != outLose {
			store, at = append(store, o), append(at, i)
		}
		if fate != outStore {
			p.mu.Lock()
			p.hidden[o.Seq] = true
			p.mu.Unlock()
		}
	}
	if p.m.run != nil {
		first := slices.Clone(store)
		p.m.run(store)
		p.m.right(slices.Equal(first, store), nil)
	}
	asked := len(store)
	if p.m.more != nil {
		more := p.m.more(run)
		p.m.right(len(more) == 0, nil)
		for _, o := range more {
			p.extra++
			o.Seq = 1<<62 + p.extra
			p.mu.Lock()
			p.hidden[o.Seq] = true
			p.mu.Unlock()
			store = append(store, o)
		}
	}
	p.m.mu.Unlock()
	n, err := len(store), error(nil)
	if n > 0 {
		n, err = p.Producer.Send(ctx, store)
		n, store = min(n, asked), store[:asked]
	}
	taken := len(run)
	if n < len(store) {
		taken = at[n]
	}
	for _, r := range own {
		if r.Seq < run[0].Seq+uint64(taken) || taken == len(run) {
			p.report([]pubsub.Result{r})
		}
	}
	return taken, err
}
