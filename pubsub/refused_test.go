package pubsub_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A movingDriver is one whose server moves the topic: its first session never hears what became of messages, the next one is sent away.
type movingDriver struct {
	pubsub.Driver
	sessions atomic.Int32
}

func (d *movingDriver) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	p, err := d.Driver.OpenProducer(ctx, s, report)
	return &movingProducer{p, d.sessions.Add(1), report}, err
}

type movingProducer struct {
	pubsub.Producer
	session int32
	report  func([]pubsub.Result)
}

func (p *movingProducer) Send(ctx context.Context, run []pubsub.Out) (int, error) {
	if p.session > 2 {
		return p.Producer.Send(ctx, run)
	}
	var rs []pubsub.Result
	for _, o := range run {
		r := pubsub.Result{Seq: o.Seq, Fate: pubsub.FateUnknown, Err: movedError{}}
		if p.session == 2 {
			r.Fate = pubsub.FateRefused
		}
		rs = append(rs, r)
	}
	p.report(rs)
	return len(run), nil
}

type movedError struct{}

func (movedError) Error() string { return "it is somewhere else" }

func (d *movingDriver) Classify(err error) (pubsub.Code, bool) {
	if err == (movedError{}) { //nolint:errorlint // it comes as it is
		return pubsub.ErrUnavailable, false
	}
	return d.Driver.Classify(err)
}

// Messages of a key whose fate one session did not tell and that the next one refuses for a while are sent again: what may be stored of them is stored in
// their order.
func TestRefusedAfterUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := memory.NewServer(memory.Config{})
		if err := ensure(t, server); err != nil {
			t.Fatal(err)
		}
		b, err := pubsub.New(t.Context(), &movingDriver{Driver: server.Driver()}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if err := b.PublishBatch(t.Context(), "t", []pubsub.Message{{ID: "1", Key: "k"}, {ID: "2", Key: "k"}, {ID: "3", Key: "k"}}); err != nil {
			t.Error(err)
		}
	})
}
