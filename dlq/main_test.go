package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDeclined = errors.New("card declined")

func open(t *testing.T, s *memory.Server, opts *pubsub.Options) *pubsub.Broker {
	t.Helper()
	b, err := s.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// kill lets a group give up n messages, spread over keys, and returns them by ID as they were published.
func kill(t *testing.T, b *pubsub.Broker, sub pubsub.Subscription, n, keys int) map[string]pubsub.Message {
	t.Helper()
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i] = pubsub.Message{
			ID: fmt.Sprintf("m-%05d", i), Type: "order", Payload: fmt.Appendf(nil, "payload %d \x00\xff", i), ContentType: "text/plain",
			Headers: pubsub.Headers{{Name: "a", Value: fmt.Sprint(i)}, {Name: "b", Value: "\x00\xfe"}, {Name: "a", Value: ""}, {Name: "n", Value: "7", Kind: pubsub.HeaderInt}},
			Time:    time.Unix(1_000_000_000, int64(i)).UTC(),
		}
		if keys > 0 {
			msgs[i].Key = fmt.Sprintf("k-%d", i%keys)
		}
	}
	return killThese(t, b, sub, msgs...)
}

func killThese(t *testing.T, b *pubsub.Broker, sub pubsub.Subscription, msgs ...pubsub.Message) map[string]pubsub.Message {
	t.Helper()
	c, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errDeclined) })
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]pubsub.Message{}
	for batch := range slices.Chunk(msgs, 1000) {
		if err := b.PublishBatch(t.Context(), sub.Topic, batch); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range msgs {
		byID[m.ID] = m
	}
	settle(t, b, sub)
	if err := c.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	return byID
}

// settle waits until a group has nothing left.
func settle(t *testing.T, b *pubsub.Broker, sub pubsub.Subscription) {
	t.Helper()
	for range 100_000 {
		lag, err := b.Lag(t.Context(), sub.Topic, sub.Group)
		if err != nil {
			t.Fatal(err)
		}
		if lag.Messages == 0 {
			return
		}
		pause(t, 10*time.Millisecond)
	}
	t.Fatal("messages are left")
}

// pause lets the bubble's time pass.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// An inbox is what a group has got.
type inbox struct {
	mu    sync.Mutex
	times []time.Time
	msgs  []pubsub.Message
}

func (in *inbox) handle(_ context.Context, d *pubsub.Delivery) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.msgs = append(in.msgs, d.Message.Clone())
	in.times = append(in.times, time.Now())
	return nil
}

func (in *inbox) all() []pubsub.Message {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.msgs)
}

func subscribe(t *testing.T, b *pubsub.Broker, sub pubsub.Subscription, h pubsub.Handler) {
	t.Helper()
	if _, err := b.Subscribe(t.Context(), sub, h); err != nil {
		t.Fatal(err)
	}
}

// same compares a replayed message with what was published, and takes off what a replay adds.
func same(t *testing.T, got, want pubsub.Message, replays string) {
	t.Helper()
	if got.Headers.Get("omnibus-replays") != replays || got.Headers.Get("omnibus-replay-of") == "" {
		t.Errorf("%s has the headers %v", got.ID, got.Headers)
	}
	got.Headers = slices.DeleteFunc(got.Headers, func(h pubsub.Header) bool { return strings.HasPrefix(h.Name, "omnibus-replay") })
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
}

func list(t *testing.T, q *dlq.Queue, f dlq.Filter) (all []dlq.Record) {
	t.Helper()
	for r, err := range q.List(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// full is a driver with all that memory's has.
type full interface {
	pubsub.Driver
	pubsub.Browser
	pubsub.Lagger
	pubsub.Seeker
	pubsub.Purger
	pubsub.Waiter
	pubsub.Rescheduler
	pubsub.Lister
}

// A process is a connection that can be killed, and that may change what passes.
type process struct {
	full
	mu    sync.Mutex
	out   func(o *pubsub.Out) error // an answer in the broker's place; nil = passes
	state func(o *pubsub.Out) error // the same, of what becomes of dead letters
	stray func(r *pubsub.Record)    // changes what a browse shows
	hides bool                      // a browse that does not begin at the beginning misses its second record
	after int                       // dies behind so many messages for a group alone; 0 = never
	sent  int
	dead  bool
	died  func()
}

var errKilled = errors.New("killed")

func newProcess(t *testing.T, s *memory.Server) (*process, *pubsub.Broker) {
	t.Helper()
	d, ok := s.Driver().(full)
	if !ok {
		t.Fatal("memory has lost an interface")
	}
	p := &process{full: d}
	b, err := pubsub.New(t.Context(), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p, b
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

func (p *process) Classify(err error) (pubsub.Code, bool) {
	if e, ok := errors.AsType[*pubsub.Error](err); ok {
		return e.Code, true
	}
	if errors.Is(err, errKilled) {
		return pubsub.ErrUnavailable, false
	}
	return p.full.Classify(err)
}

func (p *process) Browse(ctx context.Context, at pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return func(yield func(pubsub.Record, error) bool) {
		n := 0
		for r, err := range p.full.Browse(ctx, at, from) {
			if n++; n == 2 && p.hides && from != (pubsub.Position{}) {
				continue
			}
			if p.stray != nil {
				m := *r.Msg
				r.Msg = &m
				p.stray(&r)
			}
			if !yield(r, err) {
				return
			}
		}
	}
}

func (p *process) OpenProducer(ctx context.Context, spec pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	if p.isDead() {
		return nil, errKilled
	}
	below, err := p.full.OpenProducer(ctx, spec, func(rs []pubsub.Result) {
		if !p.isDead() {
			report(rs)
		}
	})
	return &producer{below, p, report}, err
}

type producer struct {
	pubsub.Producer
	p      *process
	report func([]pubsub.Result)
}

func (x *producer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	for i := range run {
		o, p := run[i], x.p
		p.mu.Lock()
		if p.dead {
			p.mu.Unlock()
			return i, errKilled
		}
		var refused error
		if o.To.Kind != pubsub.PlaceState && p.out != nil { // tests set out while outcomes are told
			refused = p.out(&o)
		}
		if o.To.Kind == pubsub.PlaceState && p.state != nil {
			refused = p.state(&o)
		}
		dies := false
		if o.To.Kind == pubsub.PlaceRetry {
			p.sent++
			dies = p.sent == p.after
		}
		p.dead = dies
		p.mu.Unlock()
		if refused != nil {
			x.report([]pubsub.Result{{Seq: o.Seq, Fate: pubsub.FateRefused, Err: refused}})
			continue
		}
		if n, err := x.Producer.Send(ctx, []pubsub.Out{o}); err != nil {
			return i + n, err
		}
		if dies { // stored, and nobody will say so
			p.died()
			return i + 1, errKilled
		}
	}
	return len(run), nil
}
