package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A ward lets tests come between what is shown of retries that wait and what is done about them.
type ward struct {
	full
	live     bool                    // what waits is read page by page, so that what waits again meanwhile is shown again
	removed  func(w *pubsub.Waiting) // before w is withdrawn
	confirms func(report func([]pubsub.Result)) func([]pubsub.Result)
}

func (d *ward) Waiting(ctx context.Context, topic, group string) iter.Seq2[pubsub.Waiting, error] {
	if !d.live {
		return d.full.Waiting(ctx, topic, group)
	}
	return func(yield func(pubsub.Waiting, error) bool) {
		for at := (time.Time{}); ; {
			var page []pubsub.Waiting
			for w, err := range d.full.Waiting(ctx, topic, group) {
				if err == nil && w.Due.After(at) {
					page = append(page, w)
				}
			}
			if len(page) == 0 {
				return
			}
			slices.SortFunc(page, func(a, b pubsub.Waiting) int { return a.Due.Compare(b.Due) })
			if at = page[0].Due; !yield(page[0], nil) {
				return
			}
		}
	}
}

func (d *ward) Reschedule(ctx context.Context, topic, group string, w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error) {
	defer time.Sleep(time.Millisecond) // its handler fails again meanwhile
	return d.full.Reschedule(ctx, topic, group, w, in)
}

func (d *ward) Withdraw(ctx context.Context, topic, group string, w pubsub.Waiting) error {
	if d.removed != nil {
		d.removed(&w)
	}
	return d.full.Withdraw(ctx, topic, group, w)
}

func (d *ward) OpenProducer(ctx context.Context, s pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	if d.confirms != nil {
		report = d.confirms(report)
	}
	return d.full.OpenProducer(ctx, s, report)
}

// openWard opens a broker on which n messages wait for their retry.
func openWard(t *testing.T, d *ward, n int, failed func()) (*pubsub.Broker, *dlq.Queue) {
	t.Helper()
	d.full = memory.NewServer(memory.Config{}).Driver().(full)
	b, err := pubsub.New(t.Context(), d, nil)
	if err != nil {
		t.Fatal(err)
	}
	subscribe(t, b, loose(), func(context.Context, *pubsub.Delivery) error {
		failed()
		return errDeclined
	})
	for i := range n {
		if err := b.Publish(t.Context(), "orders", pubsub.Message{ID: fmt.Sprint("m-", i)}); err != nil {
			t.Fatal(err)
		}
		pause(t, time.Millisecond)
	}
	pause(t, time.Minute)
	return b, dlq.Open(b, "orders", "billing")
}

// What is retried now and fails again waits again, and is shown again by brokers that show page by page. It is not to be retried twice by one call: its attempts
// would be over in a moment.
func TestRetryNowOnce(t *testing.T) {
	const n = 150 // more than are named in one entry of the audit record
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		b, q := openWard(t, &ward{live: true}, n, func() { calls.Add(1) })
		defer b.Close()
		r, err := q.RetryNow(t.Context(), dlq.WaitingFilter{}, dlq.Note{By: "ann"})
		pause(t, time.Second)
		if err != nil || r.Done != n || calls.Load() != 2*n {
			t.Errorf("%+v, %v, and the handler was called %d times for %d messages, each to be retried once", r, err, calls.Load(), n)
		}
	})
}

// A dead letter that is stored although its retry came is not said to be left alone.
func TestGivenUpAndRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &ward{}
		b, q := openWard(t, d, 2, func() {})
		defer b.Close()
		taken := false
		d.removed = func(w *pubsub.Waiting) {
			if !taken {
				taken, w.Due = true, w.Due.Add(time.Second) // as one that somebody else has changed
			}
		}
		r, err := q.DeadLetterNow(t.Context(), dlq.WaitingFilter{}, dlq.Note{By: "ann"})
		if !errors.Is(err, pubsub.ErrConflict) || errors.Is(err, pubsub.ErrNotFound) || r != (dlq.Released{Done: 2}) || len(list(t, q, dlq.Filter{})) != 2 {
			t.Errorf("%+v, %v with %d dead letters; want 2 of them, and that one is retried as well", r, err, len(list(t, q, dlq.Filter{})))
		}
	})
}

// Who does not wait for the broker's answer any more gets it all the same: else he would not know whether the dead letter is stored.
func TestGivenUpByWhoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := false
		d := &ward{confirms: func(report func([]pubsub.Result)) func([]pubsub.Result) {
			return func(rs []pubsub.Result) {
				if !late {
					report(rs)
					return
				}
				rs = slices.Clone(rs)
				go func() { time.Sleep(2 * time.Second); report(rs) }()
			}
		}}
		b, q := openWard(t, d, 1, func() {})
		defer b.Close()
		for w, err := range b.Waiting(t.Context(), "orders", "billing") {
			if err != nil {
				t.Fatal(err)
			}
			late = true
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err = b.DeadLetterNow(ctx, "orders", "billing", w, "")
			cancel()
			if err != nil || len(list(t, q, dlq.Filter{})) != 1 {
				t.Errorf("%v with %d dead letters", err, len(list(t, q, dlq.Filter{})))
			}
		}
		if left := waits(t, q, dlq.WaitingFilter{}); len(left) > 0 {
			t.Errorf("it waits: %v", left)
		}
	})
}

// What waits is of the topic of its group, whatever its headers say.
func TestWaitingOfAnotherTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &ward{}
		b, q := openWard(t, d, 0, func() {})
		defer b.Close()
		p, err := d.full.OpenProducer(t.Context(), pubsub.ProducerSpec{MaxPending: 1}, func([]pubsub.Result) {})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close(t.Context())
		m := pubsub.Message{ID: "forged", Headers: pubsub.Headers{{Name: "omnibus-topic", Value: "payments"}}}
		if _, err := p.Send(t.Context(), []pubsub.Out{{To: pubsub.Place{Topic: "orders"}, Msg: &m}}); err != nil {
			t.Fatal(err)
		}
		pause(t, time.Minute)
		if all := waits(t, q, dlq.WaitingFilter{}); len(all) != 1 || all[0].Topic != "orders" {
			t.Errorf("%v", all)
		}
	})
}
