package pubsubtest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

var (
	errDown    = errors.New("gateway is down")
	errInvalid = errors.New("negative amount")
	order      = pubsub.Message{Type: "order.placed", Key: "c-42", Payload: []byte(`{"id":"o-1","cents":1999}`)}
)

// failing returns a handler that fails n times.
func failing(n int, err error) pubsub.Handler {
	return func(_ context.Context, d *pubsub.Delivery) error {
		if n--; n >= 0 {
			return err
		}
		return nil
	}
}

func always(err error) pubsub.Handler {
	return func(context.Context, *pubsub.Delivery) error { return err }
}

func billing() pubsub.Subscription {
	return pubsub.Subscription{
		Topic: "orders", Group: "billing",
		Retry: pubsub.Policy{MaxAttempts: 4, Delays: []time.Duration{time.Second, time.Minute, time.Hour}},
		Rules: []pubsub.Rule{{Category: "bad-order", When: func(err error) bool { return errors.Is(err, errInvalid) },
			Retry: pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{10 * time.Second}}}},
	}
}

func TestFateOfAnAckedMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fate := pubsubtest.Deliver(t, billing(), failing(3, errDown), order)
		delays := []time.Duration{time.Second, time.Minute, time.Hour}
		fate.Want(t, pubsubtest.Fate{Acked: true, Attempts: 4, Delays: delays, Elapsed: time.Hour + time.Minute + time.Second})
		if fate.Err != nil || fate.Reason != "" || fate.Category != "" || fate.DeadLetter != nil {
			t.Errorf("%+v", fate)
		}
		for name, want := range map[string]pubsubtest.Fate{
			"fate-end":      {},
			"fate-attempts": {Acked: true, Attempts: 3},
			"fate-delays":   {Acked: true, Attempts: 4, Delays: []time.Duration{time.Second, time.Hour}},
			"fate-elapsed":  {Acked: true, Elapsed: time.Hour},
			"fate-given-up": {Err: errDown, Reason: "max-attempts", Category: "gateway", DeadLetter: &pubsub.Message{Key: "c-42"}},
		} {
			golden(t, name, failure(t, func(t *fakeT) { fate.Want(t, want) }))
		}
	})
}

func TestFateOfADeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fate := pubsubtest.Deliver(t, billing(), always(errInvalid), order)
		fate.Want(t, pubsubtest.Fate{
			Attempts: 2, Delays: []time.Duration{10 * time.Second}, Elapsed: 10 * time.Second,
			Err: errInvalid, Reason: "max-attempts", Category: "bad-order",
			DeadLetter: &pubsub.Message{Type: order.Type, Key: order.Key, Payload: order.Payload, Headers: pubsub.Headers{
				{Name: "omnibus-dlq-reason", Value: "max-attempts"}, {Name: "omnibus-dlq-attempts", Value: "2"}}},
		})
		for name, want := range map[string]pubsubtest.Fate{
			"fate-acked":    {Acked: true},
			"fate-error":    {Err: errDown},
			"fate-reason":   {Reason: "permanent", Category: "gateway"},
			"fate-no-delay": {Delays: []time.Duration{10*time.Second + time.Nanosecond}}, // a retry may be late, never early
			"fate-dead-letter": {DeadLetter: &pubsub.Message{Key: "c-42", Payload: []byte(`{"cents": 2000, "id": "o-1"}`),
				Headers: pubsub.Headers{{Name: "omnibus-dlq-category", Value: "gateway"}}}},
		} {
			golden(t, name, failure(t, func(t *fakeT) { fate.Want(t, want) }))
		}
	})
}

// Every way in which a message can end, and how attempts are counted.
func TestFates(t *testing.T) {
	typed := pubsub.Typed[struct{ Cents int }]{Type: "order.placed"}
	decode := typed.Handler(func(context.Context, struct{ Cents int }, *pubsub.Delivery) error { return nil })
	with := func(change func(*pubsub.Subscription)) pubsub.Subscription { s := billing(); change(&s); return s }
	once := func(err error) pubsub.Handler { return failing(1, err) }
	for name, c := range map[string]struct {
		sub  pubsub.Subscription
		h    pubsub.Handler
		msg  pubsub.Message
		want pubsubtest.Fate
	}{
		"acked":          {billing(), decode, order, pubsubtest.Fate{Acked: true, Attempts: 1}},
		"permanent":      {billing(), always(pubsub.Permanent(errDown)), order, pubsubtest.Fate{Reason: "permanent", Attempts: 1, Err: errDown}},
		"another type":   {billing(), decode, pubsub.Message{Type: "x"}, pubsubtest.Fate{Reason: "undecodable", Attempts: 1}},
		"no JSON":        {billing(), decode, pubsub.Message{Type: "order.placed", Payload: []byte("{")}, pubsubtest.Fate{Reason: "undecodable"}},
		"retry after":    {billing(), once(pubsub.RetryAfter(time.Hour, errDown)), order, pubsubtest.Fate{Acked: true, Attempts: 2, Delays: []time.Duration{time.Hour}}},
		"snoozed":        {billing(), once(pubsub.Snooze(time.Hour, errDown)), order, pubsubtest.Fate{Acked: true, Attempts: 1, Delays: []time.Duration{time.Hour}}},
		"snoozed, loose": {with(func(s *pubsub.Subscription) { s.Order = pubsub.OrderNone }), failing(30, pubsub.Snooze(time.Hour, errDown)), order, pubsubtest.Fate{Acked: true, Attempts: 1, Elapsed: 30 * time.Hour}},
		"paused":         {billing(), once(pubsub.Pause(time.Hour, errDown)), order, pubsubtest.Fate{Acked: true, Attempts: 1, Delays: []time.Duration{time.Hour}}},
		"max elapsed": {with(func(s *pubsub.Subscription) { s.Retry.MaxElapsed = time.Minute }), always(errDown), order,
			pubsubtest.Fate{Reason: "max-elapsed", Attempts: 2}},
		"panic": {billing(), func(context.Context, *pubsub.Delivery) error { panic(errInvalid) }, order,
			pubsubtest.Fate{Reason: "max-attempts", Category: "bad-order", Attempts: 2, Err: errInvalid}},
		"hang": {with(func(s *pubsub.Subscription) { s.HandlerTimeout = time.Minute }), func(ctx context.Context, _ *pubsub.Delivery) error {
			<-ctx.Done()
			return ctx.Err()
		}, order, pubsubtest.Fate{Reason: "hang", Attempts: 4, Err: pubsub.ErrTimeout}},
		"dropped":   {with(func(s *pubsub.Subscription) { s.DeadLetter.Drop = true }), always(errInvalid), order, pubsubtest.Fate{Reason: "dropped", Attempts: 2, Err: errInvalid}},
		"broadcast": {with(func(s *pubsub.Subscription) { s.Group = pubsub.Broadcast }), always(errInvalid), order, pubsubtest.Fate{Reason: "dropped", Attempts: 2}},
		"another topic": {with(func(s *pubsub.Subscription) { s.DeadLetter.Topic = "dead" }), always(errInvalid), order,
			pubsubtest.Fate{Reason: "max-attempts", DeadLetter: &order}},
		"redacted": {with(func(s *pubsub.Subscription) {
			s.DeadLetter.Redact = func(m *pubsub.Message) { m.Headers, m.Payload = nil, []byte("secret") }
		}), always(errInvalid), order, pubsubtest.Fate{Reason: "max-attempts", Category: "bad-order", DeadLetter: &pubsub.Message{Payload: []byte("secret")}}},
		"expired": {with(func(s *pubsub.Subscription) { s.Order = pubsub.OrderNone }), always(errDown),
			pubsub.Message{TTL: 10 * time.Second}, pubsubtest.Fate{Reason: "expired", Attempts: 2}},
		"expired where dead letters are dropped": {with(func(s *pubsub.Subscription) { s.Order = pubsub.OrderNone; s.DeadLetter.Drop = true }), always(errDown),
			pubsub.Message{TTL: 10 * time.Second}, pubsubtest.Fate{Reason: "expired", Attempts: 2}},
		"delayed":           {billing(), decode, pubsub.Message{Type: "order.placed", Payload: []byte("{}"), Delay: time.Hour}, pubsubtest.Fate{Acked: true, Elapsed: time.Hour}},
		"expired before it": {billing(), decode, pubsub.Message{Delay: time.Hour, TTL: time.Minute}, pubsubtest.Fate{Reason: "expired"}},
		"thousands of attempts": {with(func(s *pubsub.Subscription) {
			s.Order = pubsub.OrderNone
			s.Retry = pubsub.Policy{MaxAttempts: pubsub.Unlimited}
		}), failing(5000, errDown), order, pubsubtest.Fate{Acked: true, Attempts: 5001}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fate := pubsubtest.Deliver(t, c.sub, c.h, c.msg)
				fate.Want(t, c.want)
				if got := fate.DeadLetter != nil; got != (!fate.Acked && fate.Reason != "dropped" && fate.Reason != "expired") {
					t.Errorf("dead letter %v\n%v", got, fate)
				}
				if fate.Reason == "expired" && fate.Attempts != c.want.Attempts {
					t.Errorf("%d attempts", fate.Attempts)
				}
			})
		})
	}
}
