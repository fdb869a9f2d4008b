package conformance

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A mutation is one fault that an adapter might have, between the engine and a sound driver. Its functions are called one at a
// time; those that are nil change nothing.
type mutation struct {
	mu     sync.Mutex
	handed atomic.Int64 // records that reached the engine

	name         string
	capabilities func(c *pubsub.Capabilities)
	classify     func(code pubsub.Code, final bool) (pubsub.Code, bool)
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
	seek         func(ctx context.Context, below pubsub.Seeker, topic, group string, to pubsub.Start) error
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

func (t *tap) Seek(ctx context.Context, topic, group string, to pubsub.Start) error {
	if t.m.seek != nil {
		return t.m.seek(ctx, t.below, topic, group, to)
	}
	return t.below.Seek(ctx, topic, group, to)
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
			p.m.result(&out[i])
		}
		p.m.mu.Unlock()
	}
	if len(out) > 0 {
		p.report(out)
	}
}

func (p *tapProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	if p.m.out == nil && p.m.run == nil && p.m.more == nil {
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
		p.m.run(store)
	}
	asked := len(store)
	if p.m.more != nil {
		for _, o := range p.m.more(run) {
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

func (t *tap) OpenSource(ctx context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	if t.m.spec != nil {
		t.m.mu.Lock()
		t.m.spec(&s)
		t.m.mu.Unlock()
	}
	below, err := t.Driver.OpenSource(ctx, s)
	if err != nil && t.m.opened != nil {
		if err = t.m.opened(t.Driver, s, err); err == nil {
			below, err = t.Driver.OpenSource(ctx, s)
		}
	}
	if err != nil {
		return nil, err
	}
	if t.m.wrapSource != nil {
		below = t.m.wrapSource(t.Driver, s, below)
	}
	return &tapSource{Source: below, m: t.m, spec: s, open: map[pubsub.Token]pubsub.Record{}, acked: map[pubsub.Token]bool{}}, nil
}

// A tapSource is a session of a mutant.
type tapSource struct {
	pubsub.Source
	m    *mutation
	spec pubsub.SourceSpec

	mu    sync.Mutex
	open  map[pubsub.Token]pubsub.Record // not settled
	acked map[pubsub.Token]bool          // settled by the mutant, behind the engine's back
	extra []pubsub.Record                // to be shown at the next Recv
	held  []pubsub.Record                // to be shown after the next of their key
}

// twin marks the token of a record that is shown twice. No driver gives it out: it counts upwards from 0.
const twin = uint64(1) << 63

func (s *tapSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	for s.m.recvBlocks != nil && s.m.recvBlocks(s) {
		select {
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	if n := s.takeExtra(buf); n > 0 {
		return n, nil, nil
	}
	if s.m.recvOne {
		buf = buf[:min(1, len(buf))]
	}
	for {
		n, events, err := s.Source.Recv(ctx, buf, maxBytes)
		kept := s.filter(ctx, buf[:n])
		if kept > 0 || n == 0 || len(events) > 0 || err != nil {
			s.m.handed.Add(int64(kept))
			return kept, events, err
		}
		if n := s.takeExtra(buf); n > 0 {
			return n, nil, nil
		}
	}
}

// takeExtra shows what was put aside.
func (s *tapSource) takeExtra(buf []pubsub.Record) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(buf, s.extra)
	s.extra = s.extra[n:]
	for i := range buf[:n] {
		s.open[buf[i].Token] = buf[i]
	}
	return n
}

// filter lets the mutation decide about each record. It returns how many are left in rs.
func (s *tapSource) filter(ctx context.Context, rs []pubsub.Record) int {
	var ack []pubsub.Settlement
	kept := rs[:0]
	s.m.mu.Lock()
	s.mu.Lock()
	for _, r := range rs {
		fate := recordKeep
		if s.m.record != nil {
			fate = s.m.record(s, &r)
		}
		switch fate {
		case recordLose:
			ack = append(ack, pubsub.Settlement{Token: r.Token, As: pubsub.SettleAck})
			continue
		case recordAck:
			ack = append(ack, pubsub.Settlement{Token: r.Token, As: pubsub.SettleAck})
			s.acked[r.Token] = true
		case recordTwice:
			again := r
			again.Token.B |= twin
			s.extra = append(s.extra, again)
		case recordHold:
			s.held = append(s.held, r)
			continue
		}
		s.open[r.Token] = r
		kept = append(kept, r)
		if len(s.held) > 0 && s.held[0].Msg.Key == r.Msg.Key {
			s.extra, s.held = append(s.extra, s.held...), nil
		}
	}
	s.mu.Unlock()
	s.m.mu.Unlock()
	if len(ack) > 0 {
		_ = s.Source.Settle(context.WithoutCancel(ctx), ack, make([]error, len(ack)))
	}
	return len(kept)
}

func (s *tapSource) Settle(ctx context.Context, xs []pubsub.Settlement, errs []error) error {
	var pass []pubsub.Settlement
	var at []int
	s.m.mu.Lock()
	for i, x := range xs {
		s.mu.Lock()
		delete(s.open, x.Token)
		own := s.acked[x.Token] || x.Token.B&twin != 0
		delete(s.acked, x.Token)
		s.mu.Unlock()
		if own || s.m.settle != nil && !s.m.settle(s, &x) {
			continue
		}
		pass, at = append(pass, x), append(at, i)
	}
	s.m.mu.Unlock()
	if len(pass) == 0 {
		return nil
	}
	below := make([]error, len(pass))
	err := s.Source.Settle(ctx, pass, below)
	for i, j := range at {
		if s.m.settled != nil {
			below[i] = s.m.settled(pass[i], below[i])
		}
		errs[j] = below[i]
	}
	return err
}

func (s *tapSource) Renew(ctx context.Context, rs []pubsub.Renewal, errs []error) error {
	var pass []pubsub.Renewal
	var at []int
	for i, r := range rs {
		s.mu.Lock()
		own := s.acked[r.Token] || r.Token.B&twin != 0
		s.mu.Unlock()
		if own || s.m.renew != nil && !s.m.renew(&r) {
			continue
		}
		pass, at = append(pass, r), append(at, i)
	}
	if len(pass) == 0 {
		return nil
	}
	below := make([]error, len(pass))
	err := s.Source.Renew(ctx, pass, below)
	for i, j := range at {
		errs[j] = below[i]
	}
	return err
}

func (s *tapSource) Quiesce(ctx context.Context) error {
	if s.m.quiesce != nil {
		return s.m.quiesce(ctx, s)
	}
	return s.Source.Quiesce(ctx)
}

func (s *tapSource) Close(ctx context.Context) error {
	if s.m.beforeClose != nil {
		s.m.beforeClose(ctx, s)
	}
	if s.m.closeSource != nil {
		return s.m.closeSource(ctx, s)
	}
	return s.Source.Close(ctx)
}

// RecordAs forwards what a source may leave out.
func (s *tapSource) RecordAs(t pubsub.Token, target any) bool {
	a, ok := s.Source.(pubsub.RecordAser)
	return ok && a.RecordAs(t, target)
}
