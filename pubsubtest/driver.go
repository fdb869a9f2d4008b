package pubsubtest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A connection is a driver of package memory.
type connection interface {
	pubsub.Driver
	pubsub.Browser
	pubsub.Lagger
	pubsub.Seeker
	pubsub.Purger
	pubsub.Waiter
	pubsub.Rescheduler
	pubsub.Lister
}

func connect(s *memory.Server) connection { return s.Driver().(connection) }

// A driver notes what happens on a connection, and lets publishing fail where the test has planned it. It changes nothing else.
type driver struct {
	connection

	track  *tracker
	faults *faults
}

// Classify implements pubsub.Driver.
func (d *driver) Classify(err error) (pubsub.Code, bool) {
	if p, ok := err.(plannedError); ok { //nolint:errorlint // the engine hands a driver's own error back as it was
		return p.code, p.code != pubsub.ErrUnavailable
	}
	return d.connection.Classify(err)
}

// OpenSource implements pubsub.Driver.
func (d *driver) OpenSource(ctx context.Context, spec pubsub.SourceSpec) (pubsub.Source, error) {
	src, err := d.connection.OpenSource(ctx, spec)
	if err != nil {
		return nil, err
	}
	d.track.opened(spec.From)
	return &source{Source: src, track: d.track, from: spec.From, held: map[pubsub.Token]name{}}, nil
}

// OpenProducer implements pubsub.Driver.
func (d *driver) OpenProducer(ctx context.Context, spec pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	p := &producer{driver: d, report: report, silent: map[uint64]bool{}}
	inner, err := d.connection.OpenProducer(ctx, spec, p.answered)
	if err != nil {
		return nil, err
	}
	p.Producer = inner
	return p, nil
}

// A source notes what is received and what is acked.
type source struct {
	pubsub.Source

	track *tracker
	from  pubsub.Place

	mu   sync.Mutex
	held map[pubsub.Token]name
}

// Recv implements pubsub.Source.
func (s *source) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := s.Source.Recv(ctx, buf, maxBytes)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range buf[:n] {
		s.held[r.Token] = name{s.from.Group, r.Msg.ID, r.Pos}
	}
	return n, events, err
}

// Settle implements pubsub.Source.
func (s *source) Settle(ctx context.Context, list []pubsub.Settlement, errs []error) error {
	err := s.Source.Settle(ctx, list, errs)
	if err != nil {
		return err
	}
	s.mu.Lock()
	var acked []name
	for i, st := range list {
		if st.As == pubsub.SettleAck && errs[i] == nil {
			acked = append(acked, s.held[st.Token])
		}
		delete(s.held, st.Token)
	}
	s.mu.Unlock()
	s.track.acked(acked)
	return nil
}

// Close implements pubsub.Source.
func (s *source) Close(ctx context.Context) error {
	s.track.left(s.from)
	return s.Source.Close(ctx)
}

// A producer lets planned messages fail.
type producer struct {
	pubsub.Producer

	driver *driver
	report func([]pubsub.Result)

	mu     sync.Mutex
	silent map[uint64]bool // stored, but no answer is passed on
}

// Send implements pubsub.Producer.
func (p *producer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	defer p.driver.track.signal()
	taken := 0
	for taken < len(run) {
		next, code := p.driver.faults.next(run[taken:])
		n, err := p.Producer.Send(ctx, run[taken:taken+next])
		taken += n
		if err != nil || n < next || code == 0 {
			return taken, err
		}
		if code == pubsub.ErrUnconfirmed {
			p.silence(run[taken].Seq)
			if n, err := p.Producer.Send(ctx, run[taken:taken+1]); err != nil || n == 0 {
				return taken + n, err
			}
		} else {
			p.report([]pubsub.Result{{Seq: run[taken].Seq, Fate: pubsub.FateRefused, Err: plannedError{code}}})
		}
		taken++
	}
	return taken, nil
}

func (p *producer) silence(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent[seq] = true
}

// answered passes answers on.
func (p *producer) answered(rs []pubsub.Result) {
	p.mu.Lock()
	told := slices.DeleteFunc(slices.Clone(rs), func(r pubsub.Result) bool { return p.silent[r.Seq] })
	p.mu.Unlock()
	if len(told) > 0 {
		p.report(told)
	}
}

// Close implements pubsub.Producer.
func (p *producer) Close(ctx context.Context) error {
	err := p.Producer.Close(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	var unknown []pubsub.Result
	for seq := range p.silent {
		unknown = append(unknown, pubsub.Result{Seq: seq, Fate: pubsub.FateUnknown, Err: plannedError{pubsub.ErrUnconfirmed}})
	}
	if len(unknown) > 0 {
		p.report(unknown)
	}
	return err
}

// faults are the failures that a test has planned. A message is known by its address, which stays the same when it is sent again.
type faults struct {
	mu      sync.Mutex
	plans   []plan
	seen    map[*pubsub.Message]struct{}
	unheard map[*pubsub.Message]struct{} // of which nobody ever says that they are stored
}

type plan struct {
	left int // messages until this one
	code pubsub.Code
}

func (f *faults) plan(n int, code pubsub.Code) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plans = append(f.plans, plan{n, code})
}

// next returns how many messages of run come before one that is to fail, and how that fails; 0 = none does. What it has
// looked at is counted, even if it has to be sent again.
func (f *faults) next(run []pubsub.Out) (int, pubsub.Code) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range run {
		m := run[i].Msg
		if _, ok := f.unheard[m]; ok {
			return i, pubsub.ErrUnconfirmed
		}
		if _, ok := f.seen[m]; ok || run[i].To.Kind != pubsub.PlaceMain || m.Headers.Get(headerReason) != "" {
			continue
		}
		f.seen[m] = struct{}{}
		for j := range f.plans {
			f.plans[j].left--
		}
		if j := slices.IndexFunc(f.plans, func(p plan) bool { return p.left == 0 }); j >= 0 {
			code := f.plans[j].code
			f.plans = slices.DeleteFunc(f.plans, func(p plan) bool { return p.left == 0 })
			if code == pubsub.ErrUnconfirmed {
				f.unheard[m] = struct{}{}
			}
			return i, code
		}
	}
	return len(run), 0
}

// A plannedError is what the broker says of a message that is to fail.
type plannedError struct{ code pubsub.Code }

func (p plannedError) Error() string { return fmt.Sprintf("%v, as planned by FailPublish", p.code) }
