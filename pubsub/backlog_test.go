package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/internal/deadevent"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A reticentDriver keeps the answers about what the engine moves until a test gives them, on one goroutine, as a client that reads them from its connection does.
type reticentDriver struct {
	pubsub.Driver

	mu     sync.Mutex
	kept   map[uint64]pubsub.Result
	states []uint64 // of what was sent to a PlaceState
	report func([]pubsub.Result)
}

func (d *reticentDriver) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	p := &reticentProducer{d: d, report: report}
	var err error
	p.Producer, err = d.Driver.OpenProducer(ctx, s, p.hear)
	return p, err
}

type reticentProducer struct {
	pubsub.Producer
	d      *reticentDriver
	moves  bool
	report func([]pubsub.Result)
}

func (p *reticentProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	p.d.mu.Lock()
	for _, o := range run {
		if o.To.Kind != pubsub.PlaceMain {
			p.moves, p.d.report = true, p.report
		}
		if o.To.Kind == pubsub.PlaceState {
			p.d.states = append(p.d.states, o.Seq)
		}
	}
	p.d.mu.Unlock()
	return p.Producer.Send(ctx, run)
}

func (p *reticentProducer) hear(rs []pubsub.Result) {
	p.d.mu.Lock()
	keep := p.moves && p.d.kept != nil
	if keep {
		for _, r := range rs {
			p.d.kept[r.Seq] = r
		}
	}
	p.d.mu.Unlock()
	if !keep {
		p.report(rs)
	}
}

// tell gives the answers: first those about outcomes, then, when the engine has taken them, the others, and keeps none from then on.
func (d *reticentDriver) tell() {
	d.mu.Lock()
	var first, rest []pubsub.Result
	for _, seq := range d.states {
		first = append(first, d.kept[seq])
		delete(d.kept, seq)
	}
	for _, r := range d.kept {
		rest = append(rest, r)
	}
	d.kept = nil
	d.mu.Unlock()
	d.report(first)
	d.report(rest)
}

// The outcomes that have come together while one was on its way are told although there is no room for them until more is confirmed: who reports that does not
// wait for room.
func TestOutcomesDoNotHoldUpConfirmations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 4096 // messages on their way
		server := memory.NewServer(memory.Config{})
		d := &reticentDriver{Driver: server.Driver(), kept: map[uint64]pubsub.Result{}}
		b, err := pubsub.New(t.Context(), d, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		handled := make(chan struct{}, 8)
		c, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Concurrency: 1}, func(context.Context, *pubsub.Delivery) error {
			handled <- struct{}{}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		failed := 0
		var mu sync.Mutex
		fill := func(n int) {
			for range n {
				b.Resend(t.Context(), pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceDead}, pubsub.Message{}, pubsub.Dedup{}, func(_ pubsub.Receipt, err error) {
					if err != nil {
						mu.Lock()
						failed++
						mu.Unlock()
					}
				})
			}
		}
		replay := func(i int) {
			m := pubsub.Message{Headers: pubsub.Headers{{Name: "omnibus-replay-of", Value: fmt.Sprint("dead-", i)}}}
			if err := b.Publish(t.Context(), "t", m); err != nil {
				t.Fatal(err)
			}
			<-handled
			synctest.Wait()
		}
		fill(1) // before the outcome, so that its confirmation makes no room
		synctest.Wait()
		for i := range 3 {
			replay(i)
		}
		fill(window - 2)
		synctest.Wait()
		began := time.Now()
		d.tell()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Drain(ctx); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second || failed > 0 {
			t.Errorf("it took %v, and %d messages got no confirmation", took, failed)
		}
		other := open(t, server)
		defer other.Close()
		if got := told(t, other); len(got) != 3 {
			t.Errorf("told are %v", got)
		}
	})
}

// An outcome that the broker refuses without saying that this will pass is told again, but not for ever: then its message is acked all the same.
func TestDoubtfulOutcomesAreToldAgain(t *testing.T) {
	for _, code := range []pubsub.Code{pubsub.ErrBroker, pubsub.ErrNotFound, pubsub.ErrUnroutable, pubsub.ErrDenied} {
		for _, refusals := range []int{1, 1000} {
			t.Run(fmt.Sprint(code, "/", refusals), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := memory.NewServer(memory.Config{})
					b := open(t, s)
					defer b.Close()
					runs := 0
					_, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"}, func(context.Context, *pubsub.Delivery) error {
						runs++
						s.Refuse(refusals, code)
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
					if err := b.Publish(t.Context(), "t", pubsub.Message{Headers: pubsub.Headers{{Name: "omnibus-replay-of", Value: "dead"}}}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Minute) // of the bubble
					want := 0
					if refusals == 1 && code != pubsub.ErrDenied {
						want = 1
					}
					if got := told(t, b); len(got) != want {
						t.Errorf("told are %v, want %d", got, want)
					}
					if lag, err := b.Lag(t.Context(), "t", "g"); err != nil || lag.Messages != 0 || runs != 1 {
						t.Errorf("%+v, %v, after %d runs: the replay is not acked", lag, err, runs)
					}
				})
			})
		}
	}
}

// A narrowDriver takes its time for an outcome, and refuses several together.
type narrowDriver struct {
	pubsub.Driver
	refused, largest atomic.Int64
}

type narrowError struct{}

func (narrowError) Error() string { return "they are too large" }

func (d *narrowDriver) Classify(err error) (pubsub.Code, bool) {
	if err == (narrowError{}) { //nolint:errorlint // it comes as it is
		return pubsub.ErrTooLarge, true
	}
	return d.Driver.Classify(err)
}

func (d *narrowDriver) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	p, err := d.Driver.OpenProducer(ctx, s, report)
	return &narrowProducer{p, d, report}, err
}

type narrowProducer struct {
	pubsub.Producer
	d      *narrowDriver
	report func([]pubsub.Result)
}

func (p *narrowProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	if run[0].To.Kind != pubsub.PlaceState {
		return p.Producer.Send(ctx, run)
	}
	time.Sleep(time.Second) // of the bubble: what comes meanwhile goes together
	p.d.largest.Store(max(p.d.largest.Load(), int64(len(run[0].Msg.Payload))))
	if e, _ := deadevent.Decode(run[0].Msg.Type, run[0].Msg.Payload); len(e.IDs) > 1 {
		p.d.refused.Add(1)
		p.report([]pubsub.Result{{Seq: run[0].Seq, Fate: pubsub.FateRefused, Err: narrowError{}}})
		return 1, nil
	}
	return p.Producer.Send(ctx, run[:1])
}

// Outcomes of IDs of any bytes are told as they are, no more together than fit as they are stored; where those are too large all the same, each is told alone.
func TestOutcomesOfAnyIDs(t *testing.T) {
	long := strings.Repeat("\x00", 1000) // six times as long in JSON
	for name, ids := range map[string][]string{"bytes": {"\xff\xfe", "\xff\xfd", "<&>\u2028", "plain"}, "long": {long + "1", long + "2", long + "3", long + "4"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const most = 8000
				s := memory.NewServer(memory.Config{MaxMessage: most})
				other := open(t, s)
				defer other.Close()
				d := &narrowDriver{Driver: s.Driver()}
				b, err := pubsub.New(t.Context(), d, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				sub := pubsub.Subscription{Topic: "t", Group: "g", Concurrency: 8, Order: pubsub.OrderNone}
				if _, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error { return nil }); err != nil {
					t.Fatal(err)
				}
				for i, id := range ids {
					m := pubsub.Message{ID: fmt.Sprint("\xff", i), Headers: pubsub.Headers{{Name: "omnibus-replay-of", Value: id}}}
					if err := b.Publish(t.Context(), "t", m); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Minute) // of the bubble
				if got, want := told(t, other), slices.Sorted(slices.Values(ids)); !slices.Equal(got, want) {
					t.Errorf("told are %q, want %q", got, want)
				}
				if name == "bytes" && d.refused.Load() != 1 || d.largest.Load() > most {
					t.Errorf("%d were refused, the largest had %d bytes", d.refused.Load(), d.largest.Load())
				}
				if lag, err := other.Lag(t.Context(), "t", "g"); err != nil || lag.Messages != 0 {
					t.Errorf("%+v, %v", lag, err)
				}
			})
		})
	}
}

// Who may make nothing is told how what is missing comes to be there.
func TestHintOfWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		for _, m := range []pubsub.Manage{pubsub.Verify, pubsub.Off} {
			b, err := s.Open(t.Context(), &pubsub.Options{Manage: m})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			_, err = b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"}, func(context.Context, *pubsub.Delivery) error { return nil })
			e, ok := errors.AsType[*pubsub.Error](err)
			if !ok || e.Code != pubsub.ErrNotFound || !strings.Contains(e.Hint, m.String()) || !strings.Contains(e.Hint, "Ensure") {
				t.Errorf("%v: %v", m, err)
			}
		}
	})
}
