package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/internal/child"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Processes that kill themselves with SIGKILL, each at a point that its test has chosen.

const (
	mortal = "mortal"
	kills  = "kills" // the type of a message whose handler kills its process
	fails  = "fails" // that of one whose handler fails
)

// A Flush returns when the broker has all that was sent, where a producer's Send only buffers it.
type Flush func(d pubsub.Driver) error

// Main is for the beginning of TestMain. In a process that a test of this package has started to see it die it does not return. dial opens the adapter's driver
// by a URL; flush is nil where Send has sent when it returns.
func Main(dial func(ctx context.Context, address string) (pubsub.Driver, error), flush Flush) {
	child.Main(mortal, func(ctx context.Context, f fate) error {
		below, err := dial(ctx, f.URL)
		if err != nil {
			return err
		}
		return f.live(ctx, &mortalDriver{full: below.(full), fate: f, flush: flush})
	})
}

// A fate is what a process does, and when it dies.
type fate struct {
	URL, Topic, Group string
	MaxInFlight       int
	Concurrency       int
	MaxAttempts       int
	Held              int // the handler of a killer waits until it holds so many

	Journal string // replays what lies in the dead letters of the group, and goes on where this file ends; "" = it consumes
	Resume  bool

	At  int      // dies at so many copies, to the dead letters or to the group; 0 = never
	Way deathWay // where it is then
}

// A deathWay is a point between the copy and the ack of the original.
type deathWay uint8

const (
	whenSent      deathWay = iota // the broker has the copy, and whatever it answers is not heard
	whenConfirmed                 // the broker has stored it, which only the driver knows
	whenToldAll                   // the engine knows, and is about to ack the original
	deathWays
)

func (f fate) subscription() pubsub.Subscription {
	return pubsub.Subscription{
		Topic: f.Topic, Group: f.Group, Order: pubsub.OrderNone, Concurrency: f.Concurrency, MaxInFlight: f.MaxInFlight, AckWait: time.Second,
		Retry: pubsub.Policy{MaxAttempts: f.MaxAttempts, Delays: []time.Duration{20 * time.Millisecond}},
	}
}

// die ends this process as nothing else does.
func die() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
	select {}
}

func (f fate) live(ctx context.Context, d *mortalDriver) (err error) {
	b, err := pubsub.New(ctx, d, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if f.Journal != "" {
		return f.replay(context.WithoutCancel(ctx), b)
	}
	if _, err = b.Subscribe(context.WithoutCancel(ctx), f.subscription(), d.handle); err != nil {
		return err
	}
	<-ctx.Done() // until the test has seen enough
	return nil
}

func (f fate) replay(ctx context.Context, b *pubsub.Broker) error {
	q := dlq.Open(b, f.Topic, f.Group)
	file, err := os.OpenFile(f.Journal, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	o := dlq.Replay{Journal: file}
	var plan *dlq.Plan
	if f.Resume {
		plan, err = q.Resume(ctx, file, o)
	} else {
		plan, err = q.Plan(ctx, dlq.Filter{}, o)
	}
	if err != nil {
		return err
	}
	report, err := plan.Run(ctx)
	fmt.Println("replayed", report.Replayed, "failed", report.Failed)
	return err
}

// full is what the drivers can do that are asked here.
type full interface {
	pubsub.Driver
	pubsub.Browser
	pubsub.Lagger
	pubsub.Seeker
}

// A mortalDriver is the adapter's, and knows when to die.
type mortalDriver struct {
	full
	fate
	flush Flush

	copies atomic.Int64
	held   atomic.Int64           // received, and not settled
	deadly atomic.Pointer[string] // the message at whose copy it dies
}

// handle is the handler of all these processes. What it says first reaches the test, whatever it does then.
func (d *mortalDriver) handle(_ context.Context, m *pubsub.Delivery) error {
	fmt.Println("start", m.ID, m.Attempt)
	switch m.Type {
	case kills:
		if !poll.Holds(time.Minute, func() bool { return d.held.Load() >= int64(d.Held) }) {
			fmt.Fprintf(os.Stderr, "only %d of %d messages were prefetched within a minute\n", d.held.Load(), d.Held)
			os.Exit(1)
		}
		die()
	case fails:
		return pubsub.Permanent(errors.New("it never works"))
	}
	return nil
}

// counts says whether the message is a copy by which the fate counts.
func (d *mortalDriver) counts(o *pubsub.Out) bool {
	return d.At > 0 && (o.To.Kind == pubsub.PlaceDead || d.Journal != "" && o.To.Kind == pubsub.PlaceRetry)
}

func (d *mortalDriver) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	p := &mortalProducer{d: d}
	below, err := d.full.OpenProducer(ctx, s, func(rs []pubsub.Result) {
		for _, r := range rs {
			if at := p.deadly.Load(); at == 0 || r.Seq != at-1 {
				continue
			}
			switch {
			case d.Way == whenSent && d.flush != nil:
				select {} // Send is about to end all this
			case d.Way == whenSent:
				die() // the answer may come within Send
			case d.Way == whenConfirmed && r.Fate == pubsub.FateAccepted:
				die()
			}
		}
		report(rs)
	})
	p.Producer = below
	return p, err
}

type mortalProducer struct {
	pubsub.Producer
	d      *mortalDriver
	deadly atomic.Uint64 // the number of the message at which it dies, and 1
}

func (p *mortalProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	for i := range run {
		deadly := p.d.counts(&run[i]) && p.d.copies.Add(1) == int64(p.d.At)
		if deadly {
			p.deadly.Store(run[i].Seq + 1)
			p.d.deadly.Store(&run[i].Msg.ID)
		}
		if n, err := p.Producer.Send(ctx, run[i:i+1]); n == 0 || err != nil {
			return i + n, err
		}
		if deadly && p.d.Way == whenSent && p.d.flush != nil {
			if err := p.d.flush(p.d.full); err != nil {
				fmt.Fprintln(os.Stderr, "the copy has not left:", err)
				os.Exit(1)
			}
			die()
		}
	}
	return len(run), nil
}

func (d *mortalDriver) OpenSource(ctx context.Context, s pubsub.SourceSpec) (pubsub.Source, error) {
	below, err := d.full.OpenSource(ctx, s)
	return &mortalSource{Source: below, d: d, ids: map[pubsub.Token]string{}}, err
}

type mortalSource struct {
	pubsub.Source
	d *mortalDriver

	mu  sync.Mutex
	ids map[pubsub.Token]string // of what it has received, until it is settled
}

func (s *mortalSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := s.Source.Recv(ctx, buf, maxBytes)
	s.mu.Lock()
	for _, r := range buf[:n] {
		s.ids[r.Token] = r.Msg.ID
	}
	s.mu.Unlock()
	s.d.held.Add(int64(n))
	return n, events, err
}

func (s *mortalSource) Settle(ctx context.Context, list []pubsub.Settlement, errs []error) error {
	deadly := s.d.deadly.Load()
	s.mu.Lock()
	for _, x := range list {
		if s.d.Way == whenToldAll && deadly != nil && x.As == pubsub.SettleAck && s.ids[x.Token] == *deadly {
			die() // the original of a copy is acked by nobody who has not been told of it
		}
		delete(s.ids, x.Token)
	}
	s.mu.Unlock()
	s.d.held.Add(-int64(len(list)))
	return s.Source.Settle(ctx, list, errs)
}
