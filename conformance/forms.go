package conformance

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// forms are the properties of Lifecycle about the ways to consume and to ask for things.
func forms() []Property {
	return []Property{
		{
			Name: "Lifecycle/BatchForm", Promises: []int{5, 6, 9}, Gate: redelivers(), run: batchForm,
			Doc: "SubscribeBatch settles each message of a batch by itself, keeps keys in order and bounds the batch.",
		},
		{
			Name: "Lifecycle/PullForm", Promises: []int{5, 9, 13}, Gate: redelivers(), run: pullForm,
			Doc: "A Receive loop redelivers what is settled with an error, and hands back what it leaves unsettled.",
		},
		{
			Name: "Lifecycle/Require", Promises: []int{16}, run: require,
			Doc: "Options.Require passes with what the broker has, and anything more is refused with ErrUnsupported, naming adapter and feature.",
		},
		{
			Name: "Lifecycle/WrongUses", Promises: []int{16, 18}, run: wrongUses,
			Doc: "Every wrong use has its code, and the error names the adapter.",
		},
	}
}

func batchForm(e *env) {
	const most = 16
	p, topic, l := e.open(), e.topic("a"), e.ledger().ordered("g")
	s := e.sub(topic, "g")
	s.Retry.Delays = []time.Duration{50 * time.Millisecond}
	_, err := p.SubscribeBatch(e.Context(), s, pubsub.Batch{Max: most}, func(ctx context.Context, batch []*pubsub.Delivery) error {
		if len(batch) == 0 || len(batch) > most {
			e.Errorf("a batch has %d messages, at most %d are asked for", len(batch), most)
		}
		errs := make([]error, len(batch))
		var wg sync.WaitGroup
		for i, d := range batch { // all at once, as the batch is one handler
			wg.Go(func() {
				errs[i] = l.handler(p, "g", func(_ context.Context, d *pubsub.Delivery) error {
					if d.Type == "fails" && d.Attempt == 1 {
						return errors.New("the first attempt fails")
					}
					return nil
				})(ctx, d)
			})
		}
		wg.Wait()
		return &pubsub.BatchError{Errs: errs}
	})
	e.must(err, "subscribe to batches")
	msgs := l.messages(enough, 0)
	for i := range msgs {
		if i%3 > 0 {
			msgs[i].Key = fmt.Sprintf("key-%d", i%11)
		}
		if i > 30 && i%10 == 0 {
			msgs[i].Type = "fails"
		}
	}
	l.mustPublish(p, topic, msgs...)
	l.await("g")
	l.failedTwice("was in %d batches", msgs)
	l.verify()
}

// failedTwice asserts that the messages of type "fails" came twice and the others once.
func (l *ledger) failedTwice(what string, msgs []pubsub.Message) {
	l.e.Helper()
	for _, m := range msgs {
		want := 1
		if m.Type == "fails" {
			want = 2
		}
		if n := len(l.calls("g", m.ID)); n != want {
			l.e.Errorf("message %s (%q) "+what+", want %d", m.ID, m.Type, n, want)
		}
	}
}

func pullForm(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.competing(topic, "g")
	s.Retry.Delays = []time.Duration{50 * time.Millisecond}
	e.ensure(p, s)
	msgs := l.messages(100, 0)
	for i := range msgs {
		if i > 20 && i%10 == 0 {
			msgs[i].Type = "fails"
		}
	}
	l.mustPublish(p, topic, msgs...)
	settle := func(q *process, lease pubsub.Lease) {
		outcome := error(nil)
		if lease.Type == "fails" && lease.Attempt == 1 {
			outcome = errors.New("the first attempt fails")
		}
		h := l.handler(q, "g", func(ctx context.Context, _ *pubsub.Delivery) error {
			if err := lease.Settle(ctx, outcome); err != nil {
				e.Errorf("settling returned %v", err)
			}
			return outcome
		})
		_ = h(e.Context(), lease.Delivery) // the outcome, which is on its way to the broker
	}
	n := 0
	first := e.pull(p, s, func(lease pubsub.Lease) bool {
		if n++; n > 60 {
			return n < 65 // these stay unsettled
		}
		settle(p, lease)
		return true
	})
	if !e.closed(patience, first) {
		e.Errorf("a Receive loop that was left has not ended: %s", l.progress("g"))
	}
	q := e.open()
	e.pull(q, s, func(lease pubsub.Lease) bool { settle(q, lease); return true })
	l.await("g")
	l.failedTwice("was settled %d times", msgs)
	l.verify()
}

func require(e *env) {
	p, topic, l := e.openWith(&pubsub.Options{Require: e.caps}), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await("g")
	has, asked := reflect.ValueOf(e.caps), 0
	for i := range has.NumField() {
		name := has.Type().Field(i).Name
		var more pubsub.Capabilities
		field := reflect.ValueOf(&more).Elem().Field(i)
		switch v := has.Field(i); {
		case name == "RetryLate": // less is more
			if v.Int() > 1 {
				field.SetInt(v.Int() - 1)
			}
		case v.Kind() == reflect.Bool:
			field.SetBool(!v.Bool())
		case v.CanInt() && v.Int() > 0 && v.Int() < int64(pubsub.Forever), v.CanInt() && v.Int() == 0 && name != "MaxMessage":
			field.SetInt(v.Int() + 1)
		case v.CanUint():
			field.SetUint(v.Uint() + 1)
		}
		if tooMuch := field.IsZero() || field.CanUint() && strings.Contains(fmt.Sprint(field.Interface()), "("); tooMuch {
			continue // nothing is more than what it has
		}
		asked++
		_, err := e.tryOpen(&pubsub.Options{Require: more})
		e.wantCode(err, pubsub.ErrUnsupported, "requiring %s %v of a broker that has %v", name, field.Interface(), has.Field(i).Interface())
	}
	if asked == 0 {
		e.Errorf("there is nothing that the broker does not claim to have")
	}
	l.verify()
}

func wrongUses(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	var running atomic.Bool
	e.subscribe(p, s, l.handler(p, "g", func(context.Context, *pubsub.Delivery) error { running.Store(true); return nil }))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	l.await("g")
	ctx := e.Context()
	nothing := func(context.Context, *pubsub.Delivery) error { return nil }
	for _, name := range []string{"", ".", "a..b", "a.", "a b", "a__b", "omnibus.a", "omnibus", "ä", "a/b", strings.Repeat("a", 181), "a.*"} {
		e.wantCode(p.Publish(ctx, name, pubsub.Message{}), pubsub.ErrInvalid, "publishing to the topic %q", name)
	}
	for what, m := range map[string]pubsub.Message{
		"a negative delay":  {Delay: -1},
		"a negative TTL":    {TTL: -1},
		"priority 10":       {Priority: 10},
		"a reserved header": {Headers: pubsub.Headers{{Name: "omnibus-attempts"}}},
	} {
		e.wantCode(p.Publish(ctx, topic, m), pubsub.ErrInvalid, "publishing with %s", what)
	}
	for what, change := range map[string]func(s *pubsub.Subscription){
		"no topic":                func(s *pubsub.Subscription) { s.Topic = "" },
		"a reserved topic":        func(s *pubsub.Subscription) { s.Topic = "omnibus.x" },
		"no group":                func(s *pubsub.Subscription) { s.Group = "" },
		"a dotted group":          func(s *pubsub.Subscription) { s.Group = "a.b" },
		"negative Concurrency":    func(s *pubsub.Subscription) { s.Concurrency = -1 },
		"a small MaxInFlight":     func(s *pubsub.Subscription) { s.Concurrency, s.MaxInFlight = 8, 4 },
		"a large MaxParked":       func(s *pubsub.Subscription) { s.MaxInFlight, s.MaxParked = 10, 11 },
		"a negative delay":        func(s *pubsub.Subscription) { s.Retry.Delays = []time.Duration{-1} },
		"Initial above Max":       func(s *pubsub.Subscription) { s.Retry.Initial, s.Retry.Max = time.Minute, time.Second },
		"a rule without When":     func(s *pubsub.Subscription) { s.Rules = []pubsub.Rule{{Category: "c"}} },
		"Drop and a target":       func(s *pubsub.Subscription) { s.DeadLetter = pubsub.DeadLetter{Drop: true, Topic: "t"} },
		"a tiny ack wait":         func(s *pubsub.Subscription) { s.AckWait = time.Nanosecond },
		"an order that is none":   func(s *pubsub.Subscription) { s.Order = 99 },
		"To without a topic":      func(s *pubsub.Subscription) { s.DeadLetter = pubsub.DeadLetter{To: p} },
		"a negative handler time": func(s *pubsub.Subscription) { s.HandlerTimeout = -1 },
	} {
		wrong := e.sub(topic, "wrong")
		change(&wrong)
		_, err := p.Subscribe(ctx, wrong, nothing)
		e.wantCode(err, pubsub.ErrInvalid, "subscribing with %s", what)
	}
	_, err := p.Subscribe(ctx, s, nil)
	e.wantCode(err, pubsub.ErrInvalid, "subscribing with a nil handler")
	_, err = p.SubscribeBatch(ctx, s, pubsub.Batch{Max: -1}, func(context.Context, []*pubsub.Delivery) error { return nil })
	e.wantCode(err, pubsub.ErrInvalid, "subscribing with a negative batch")
	_, err = p.Publisher(pubsub.PublisherOptions{MaxPending: -1})
	e.wantCode(err, pubsub.ErrInvalid, "a publisher with a negative window")
	_, err = p.Publisher(pubsub.PublisherOptions{Ack: 99})
	e.wantCode(err, pubsub.ErrInvalid, "a publisher with an Ack that is none")
	err = p.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic, Partitions: -1}}})
	e.wantCode(err, pubsub.ErrInvalid, "a topic with -1 partitions")
	err = p.Ensure(ctx, pubsub.Topology{Groups: []pubsub.Subscription{e.sub(topic, pubsub.Broadcast)}})
	e.wantCode(err, pubsub.ErrInvalid, "provisioning a Broadcast group")
	if keepsAnything().Open(e.caps) { // else there is nothing that could be missing
		verify := e.openWith(&pubsub.Options{Manage: pubsub.Verify})
		_, err = verify.Subscribe(ctx, e.sub(e.topic("missing"), "g"), nothing)
		e.wantCode(err, pubsub.ErrNotFound, "subscribing with Verify to a topic that is missing")
	}
	if e.caps.History {
		e.wantCode(p.Seek(ctx, topic, "g", pubsub.FromEarliest()), pubsub.ErrConflict, "seeking a group that has members")
	}
	if e.caps.Lag != pubsub.LagUnknown {
		_, err = p.Lag(ctx, topic, "missing")
		e.wantCode(err, pubsub.ErrNotFound, "the lag of a group that is missing")
	}
	_, err = e.tryOpen(&pubsub.Options{DrainTimeout: -1})
	e.wantCode(err, pubsub.ErrInvalid, "opening with a negative DrainTimeout")
	l.verify()
}
