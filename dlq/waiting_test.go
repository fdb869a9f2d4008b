package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// loose is the group billing, whose retries wait at the broker.
func loose() pubsub.Subscription {
	s := billing()
	s.Order, s.Retry = pubsub.OrderNone, pubsub.Policy{MaxAttempts: 3, Delays: []time.Duration{time.Hour}}
	return s
}

func waits(t *testing.T, q *dlq.Queue, f dlq.WaitingFilter) (all []dlq.Waiting) {
	t.Helper()
	for w, err := range q.Waiting(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	return all
}

func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		var mu sync.Mutex
		calls := map[string]int{}
		subscribe(t, b, loose(), func(_ context.Context, d *pubsub.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			calls[d.ID]++
			return errDeclined
		})
		for i := range 250 {
			m := pubsub.Message{ID: fmt.Sprint("m-", i), Key: fmt.Sprint("k-", i%2), Type: "order"}
			if err := b.Publish(t.Context(), "orders", m); err != nil {
				t.Fatal(err)
			}
		}
		pause(t, time.Minute)
		q := dlq.Open(b, "orders", "billing")
		all := waits(t, q, dlq.WaitingFilter{})
		if len(all) != 250 || all[0].Attempt != 2 || all[0].Topic != "orders" || time.Until(all[0].Due).Round(time.Minute) != 59*time.Minute || all[0].Message.Type != "order" {
			t.Fatalf("%d wait, such as %+v", len(all), all[0])
		}
		one := dlq.WaitingFilter{IDs: []string{all[7].ID}}
		if some := waits(t, q, one); len(some) != 1 || some[0].Message.ID != all[7].Message.ID {
			t.Errorf("%+v", some)
		}
		if r, err := q.RetryNow(t.Context(), one, dlq.Note{By: "ann", Why: "it is mended"}); err != nil || r != (dlq.Released{Done: 1}) {
			t.Error(r, err)
		}
		pause(t, time.Second)
		mu.Lock()
		if again := waits(t, q, one); len(again) != 1 || again[0].Attempt != 3 || calls[all[7].Message.ID] != 2 {
			t.Errorf("retried once it waits as %+v", again)
		}
		mu.Unlock()
		if r, err := q.DeadLetterNow(t.Context(), dlq.WaitingFilter{Key: "k-1"}, dlq.Note{By: "ann", Why: "too old"}); err != nil || r != (dlq.Released{Done: 125}) {
			t.Error(r, err)
		}
		letters := list(t, q, dlq.Filter{Reason: "operator"})
		if len(letters) != 125 || len(waits(t, q, dlq.WaitingFilter{})) != 125 {
			t.Fatalf("%d dead letters, and %d wait", len(letters), len(waits(t, q, dlq.WaitingFilter{})))
		}
		if l := letters[0]; l.State != dlq.StateOpen || l.Attempts < 1 || !strings.HasSuffix(l.Error, "ann: too old") || l.Group != "billing" || l.Topic != "orders" || l.Fingerprint == "" {
			t.Errorf("%+v", l)
		}
		told := map[dlq.Operation]int{}
		for _, e := range audit(t, q) {
			if e.By != "ann" || e.Why == "" {
				t.Errorf("%+v", e)
			}
			told[e.Operation] += len(e.Messages)
		}
		if told[dlq.OpRetryNow] != 1 || told[dlq.OpGiveUp] != 125 {
			t.Errorf("the audit record has %v", told)
		}
		if r, err := q.RetryNow(t.Context(), dlq.WaitingFilter{IDs: []string{"none"}}, dlq.Note{}); err != nil || r != (dlq.Released{}) {
			t.Error(r, err)
		}
		if _, err := dlq.OpenTopic(b, "orders").DeadLetterNow(t.Context(), dlq.WaitingFilter{}, dlq.Note{}); !errors.Is(err, pubsub.ErrUnsupported) {
			t.Error(err)
		}
	})
}
