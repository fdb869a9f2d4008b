package dlq_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/internal/deadevent"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A narrowDriver takes no entry about several dead letters.
type narrowDriver struct {
	pubsub.Driver
	pubsub.Browser
}

type narrowError struct{}

func (narrowError) Error() string { return "they are too large" }

func (d narrowDriver) Classify(err error) (pubsub.Code, bool) {
	if err == (narrowError{}) { //nolint:errorlint // it comes as it is
		return pubsub.ErrTooLarge, true
	}
	return d.Driver.Classify(err)
}

func (d narrowDriver) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	p, err := d.Driver.OpenProducer(ctx, s, report)
	return narrowProducer{p, report}, err
}

type narrowProducer struct {
	pubsub.Producer
	report func([]pubsub.Result)
}

func (p narrowProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	if e, ok := deadevent.Decode(run[0].Msg.Type, run[0].Msg.Payload); ok && len(e.IDs) > 1 {
		p.report([]pubsub.Result{{Seq: run[0].Seq, Fate: pubsub.FateRefused, Err: narrowError{}}})
		return 1, nil
	}
	return p.Producer.Send(ctx, run[:1])
}

// Dead letters whose IDs are not UTF-8 get their state, also where the broker takes no entry about several of them.
func TestStateOfAnyID(t *testing.T) {
	for _, narrow := range []bool{false, true} {
		t.Run(fmt.Sprint("narrow=", narrow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := memory.NewServer(memory.Config{}).Driver()
				if narrow {
					d = narrowDriver{d, d.(pubsub.Browser)}
				}
				b, err := pubsub.New(t.Context(), d, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{billing()}}); err != nil {
					t.Fatal(err)
				}
				const n = 20
				for i := range n {
					stored := make(chan error, 1)
					m := pubsub.Message{ID: fmt.Sprint("m-", i), Headers: pubsub.Headers{
						{Name: "omnibus-dlq-id", Value: fmt.Sprint("\xff\xfe", i)}, {Name: "omnibus-dlq-topic", Value: "orders"}, {Name: "omnibus-dlq-group", Value: "billing"},
					}}
					b.Resend(t.Context(), pubsub.Place{Topic: "orders", Group: "billing", Kind: pubsub.PlaceDead}, m, pubsub.Dedup{}, func(_ pubsub.Receipt, err error) { stored <- err })
					if err := <-stored; err != nil {
						t.Fatal(err)
					}
				}
				q := dlq.Open(b, "orders", "billing")
				are := func(want dlq.State) {
					t.Helper()
					all := list(t, q, dlq.Filter{})
					for _, r := range all {
						if r.State != want {
							t.Errorf("%q is %s, want %s", r.ID, r.State, want)
						}
					}
					if len(all) != n {
						t.Errorf("there are %d", len(all))
					}
				}
				if told, err := q.Discard(t.Context(), dlq.Filter{}, dlq.Note{}); err != nil || told != n {
					t.Fatal(told, err)
				}
				are(dlq.StateDiscarded)
				if _, err := q.Restore(t.Context(), dlq.Filter{}, dlq.Note{}); err != nil {
					t.Fatal(err)
				}
				are(dlq.StateOpen)
				if rep, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{}); err != nil || rep.Replayed != n {
					t.Fatal(rep, err)
				}
				are(dlq.StatePending)
			})
		})
	}
}
