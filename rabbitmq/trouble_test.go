package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

const soon = 15 * time.Second

func publish(t *testing.T, b pubsub.Publisher, topic string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := b.Publish(t.Context(), topic, pubsub.Message{ID: id, Payload: []byte(id)}); err != nil {
			t.Fatal(err)
		}
	}
}

// source opens one below the engine, as that does: again where a connection has broken that nobody has used since. recv takes n messages from it.
func source(t *testing.T, d pubsub.Driver, spec pubsub.SourceSpec) pubsub.Source {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for {
		src, err := d.OpenSource(ctx, spec)
		if err == nil {
			return src
		}
		if _, final := d.Classify(err); final || ctx.Err() != nil {
			t.Fatal(err)
		}
	}
}

func recv(t *testing.T, src pubsub.Source, n int) (all []pubsub.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for len(all) < n {
		buf := make([]pubsub.Record, n-len(all))
		got, _, err := src.Recv(ctx, buf, 1<<30)
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(all), n, err)
		}
		all = append(all, buf[:got]...)
	}
	return all
}

func ids(rs []pubsub.Record) (all []string) {
	for _, r := range rs {
		all = append(all, r.Msg.ID)
	}
	return all
}

// A delivery of the time before the link broke has the tag of another one now. Acknowledging it settles neither.
func TestStaleTag(t *testing.T) {
	s := ownServer(t, "default")
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close(context.WithoutCancel(t.Context())) }()
	for _, order := range []pubsub.Order{pubsub.OrderNone, pubsub.OrderByKey} {
		topic := fmt.Sprintf("stale.%d", order)
		spec := pubsub.SourceSpec{From: pubsub.Place{Topic: topic, Group: "g"}, Order: order, AckWait: time.Minute, MaxInFlight: 1, MaxInFlightBytes: 1 << 20, Member: "m"}
		old := source(t, d, spec)
		publish(t, s.open(t, nil, nil), topic, "first", "second")
		held := recv(t, old, 1)[0]
		if err := s.Cut(); err != nil {
			t.Fatal(err)
		}
		if err := s.Mend(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		if _, _, err := old.Recv(ctx, make([]pubsub.Record, 1), 1<<20); err == nil || ctx.Err() != nil {
			t.Fatalf("a session whose connection was cut: %v", err)
		}
		_ = old.Close(t.Context()) // its connection is gone
		spec.Manage = pubsub.Verify
		next := source(t, d, spec)
		again := recv(t, next, 1)[0]
		if again.Msg.ID != "first" || again.Token.A != held.Token.A || again.Deliveries != 2 {
			t.Fatalf("after the break came %s with tag %d, delivery %d; before, %s with tag %d", again.Msg.ID, again.Token.A, again.Deliveries, held.Msg.ID, held.Token.A)
		}
		errs := make([]error, 1)
		if err := next.Settle(t.Context(), []pubsub.Settlement{{Token: held.Token, As: pubsub.SettleAck}}, errs); err != nil {
			t.Fatal(err)
		}
		if code, _ := d.Classify(errs[0]); code != pubsub.ErrLeaseLost {
			t.Errorf("settling the old delivery: %v, want %q", errs[0], pubsub.ErrLeaseLost.Error())
		}
		if err := next.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := next.Close(t.Context()); err != nil { // unsettled: it has to come once more
			t.Fatal(err)
		}
		last := source(t, d, spec)
		if got := recv(t, last, 1)[0]; got.Msg.ID != "first" {
			t.Errorf("the message that was not settled is gone: %s comes next", got.Msg.ID)
		}
		if err := last.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A message that is handed back more often than a quorum queue allows by itself is still there.
func TestManyHandBacks(t *testing.T) {
	const times = 25
	s := startServer(t, "default")
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close(context.WithoutCancel(t.Context())) }()
	src := source(t, d, pubsub.SourceSpec{From: pubsub.Place{Topic: "backs", Group: "g"}, Order: pubsub.OrderNone, AckWait: time.Minute, MaxInFlight: 3, MaxInFlightBytes: 1 << 20, Member: "m"})
	publish(t, s.open(t, nil, nil), "backs", "a", "b", "c")
	seen := map[string]int32{}
	for range times * 3 {
		r := recv(t, src, 1)[0]
		if seen[r.Msg.ID]++; r.Deliveries != seen[r.Msg.ID] {
			t.Errorf("delivery %d of %s says %d", seen[r.Msg.ID], r.Msg.ID, r.Deliveries)
		}
		if err := src.Settle(t.Context(), []pubsub.Settlement{{Token: r.Token, As: pubsub.SettleRelease}}, make([]error, 1)); err != nil {
			t.Fatal(err)
		}
	}
	left := ids(recv(t, src, 3))
	if slices.Sort(left); !slices.Equal(left, []string{"a", "b", "c"}) {
		t.Errorf("after %d hand-backs there are %q", times*3, left)
	}
	if err := src.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A count of deliveries that another client has made up is not believed, nor is it part of the message.
func TestForgedCount(t *testing.T) {
	s := startServer(t, "default")
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close(context.WithoutCancel(t.Context())) }()
	src := source(t, d, pubsub.SourceSpec{From: pubsub.Place{Topic: "forged", Group: "g"}, Order: pubsub.OrderNone, AckWait: time.Minute, MaxInFlight: 1, MaxInFlightBytes: 1 << 20, Member: "m"})
	s.must(t, func(ch *amqp.Channel) error {
		return ch.PublishWithContext(t.Context(), "omnibus", "forged", true, false, amqp.Publishing{
			Headers: amqp.Table{"x-delivery-count": int64(50), "x-death": "mine", "omnibus.failed": int32(7)}, Body: []byte("x"),
		})
	})
	for delivery := range int32(3) {
		r := recv(t, src, 1)[0]
		if r.Deliveries != delivery+1 || r.Failed != 0 {
			t.Errorf("delivery %d says %d, and %d failures", delivery+1, r.Deliveries, r.Failed)
		}
		want := pubsub.Headers{{Name: "omnibus.failed", Value: "7", Kind: pubsub.HeaderInt}, {Name: "x-death", Value: "mine"}}
		if !slices.Equal(r.Msg.Headers, want) {
			t.Errorf("delivery %d has the headers %+v, want %+v", delivery+1, r.Msg.Headers, want)
		}
		if err := src.Settle(t.Context(), []pubsub.Settlement{{Token: r.Token, As: pubsub.SettleRelease}}, make([]error, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := src.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// Among messages that are stored each that no queue takes is told as that, and no other, however slowly the answers are read. The broker's answers come
// in the order of the messages, but a return is no confirmation.
func TestUnroutableAmongOthers(t *testing.T) {
	const n = 3000
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	group := pubsub.Subscription{Topic: "taken", Group: "g"}
	topics := []pubsub.TopicSpec{{Name: "taken"}, {Name: "left"}} // nobody has a group of "left"
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: topics, Groups: []pubsub.Subscription{group}}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var slow atomic.Int64
	for i := range n {
		all.Add(1)
		topic := []string{"taken", "left", "left"}[i%3]
		b.PublishAsync(t.Context(), topic, pubsub.Message{ID: "the same", Payload: []byte("the same")}, func(_ pubsub.Receipt, err error) {
			defer all.Done()
			if slow.Add(1) == 10 {
				time.Sleep(6 * time.Second) // longer than the client waits with a return that nobody takes
			}
			if taken := topic == "taken"; taken != (err == nil) || !taken && !errors.Is(err, pubsub.ErrUnroutable) {
				t.Errorf("message %d to %s returned %v", i, topic, err)
			}
		})
	}
	all.Wait()
	lag, err := b.Lag(t.Context(), "taken", "g")
	if err != nil || lag.Messages != n/3 {
		t.Errorf("%d messages are in the queue (%v), want %d", lag.Messages, err, n/3)
	}
}

// A queue that is full refuses messages, and takes the next ones once there is room.
func TestFullQueue(t *testing.T) {
	s := ownServer(t, "default")
	b := s.open(t, nil, nil)
	sub := pubsub.Subscription{Topic: "full", Group: "g"}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	s.ctl(t, "set_policy", "--apply-to", "queues", "full", "^full__g$", `{"max-length":10}`)
	var refusal error
	stored := map[string]bool{}
	poll.Until(t, "a refusal", func() bool { // a quorum queue counts a little late
		id := fmt.Sprint(len(stored))
		if refusal = b.Publish(t.Context(), "full", pubsub.Message{ID: id}); refusal == nil {
			stored[id] = true
		}
		return refusal != nil
	})
	if !errors.Is(refusal, pubsub.ErrUnconfirmed) { // another group may have it
		t.Errorf("a full queue: %v, want %q", refusal, pubsub.ErrUnconfirmed.Error())
	}
	var got atomic.Int64
	_, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error {
		if d.ID != "next" && !stored[d.ID] {
			t.Errorf("message %s came, which was refused", d.ID)
		}
		got.Add(1)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "all that was stored", func() bool { return got.Load() == int64(len(stored)) })
	poll.Until(t, "room", func() bool { return b.Publish(t.Context(), "full", pubsub.Message{ID: "next"}) == nil })
}

// While the broker is short of memory publishers wait, Ping says why, and consumers go on: also those whose messages are to wait for a retry.
func TestMemoryAlarm(t *testing.T) {
	s := ownServer(t, "default")
	b := s.open(t, nil, nil)
	sub := pubsub.Subscription{Topic: "alarm", Group: "g", Order: pubsub.OrderNone, MaxInFlight: 10}
	var handled atomic.Int64
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	var before []string
	for i := range 50 {
		before = append(before, fmt.Sprint("before-", i))
	}
	publish(t, b, "alarm", before...)
	s.ctl(t, "set_vm_memory_high_watermark", "0")
	first, blocked := make(chan error, 1), make(chan error, 1)
	go func() { first <- b.Publish(t.Context(), "alarm", pubsub.Message{ID: "first"}) }() // the broker takes it, and then stops reading
	poll.Until(t, "Ping to say it", func() bool {
		err := b.Ping(t.Context())
		return errors.Is(err, pubsub.ErrExhausted) && strings.Contains(err.Error(), "memory")
	})
	go func() { blocked <- b.Publish(t.Context(), "alarm", pubsub.Message{ID: "blocked"}) }()
	var failed, retried, last atomic.Bool
	c, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error {
		switch {
		case d.ID == "before-0" && !failed.Swap(true):
			return errors.New("to be retried")
		case d.ID == "before-0":
			retried.Store(true)
		case d.ID == "impatient":
			t.Error("what was given up while the broker took nothing was sent all the same")
		case d.ID == "last":
			last.Store(true)
		case strings.HasPrefix(d.ID, "before-"):
			handled.Add(1)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the consumer to go on", func() bool { return handled.Load() == 49 })
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := b.Publish(ctx, "alarm", pubsub.Message{ID: "impatient"}); !errors.Is(err, pubsub.ErrCanceled) && !errors.Is(err, pubsub.ErrUnconfirmed) {
		t.Errorf("a publish whose context ends while the broker takes nothing: %v", err)
	}
	select {
	case err := <-blocked:
		t.Errorf("a publish while the broker takes nothing returned %v", err)
	default:
	}
	if st := c.State(); st.Phase != pubsub.Running || retried.Load() {
		t.Errorf("the consumer is %v because of %v; a copy went through: %v", st.Phase, st.Reason, retried.Load())
	}
	s.ctl(t, "set_vm_memory_high_watermark", "0.6")
	for _, fate := range []chan error{first, blocked} {
		if err := <-fate; err != nil {
			t.Errorf("a publish that waited: %v", err)
		}
	}
	publish(t, b, "alarm", "last")
	poll.Until(t, "the rest, and Ping to be content", func() bool { return retried.Load() && last.Load() && b.Ping(t.Context()) == nil })
}

// A queue that is deleted under its consumer ends it as not found, after the grace, and is not made again.
func TestDeletedQueue(t *testing.T) {
	s := startServer(t, "default")
	b := s.open(t, nil, nil)
	c, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "gone", Group: "g"}, func(context.Context, *pubsub.Delivery) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, "gone", "a")
	s.must(t, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete("gone__g", false, false, false)
		return err
	})
	poll.Until(t, "the consumer to notice", func() bool { return c.State().Phase == pubsub.Reconnecting })
	if err := b.Publish(t.Context(), "gone", pubsub.Message{}); !errors.Is(err, pubsub.ErrUnroutable) {
		t.Errorf("publishing where nobody has a queue any more: %v", err)
	}
	select {
	case <-c.Done():
		if !errors.Is(c.Err(), pubsub.ErrNotFound) {
			t.Errorf("the consumer ended with %v", c.Err())
		}
	case <-time.After(time.Minute):
		t.Errorf("a minute later the consumer is %v", c.State().Phase)
	}
}

// A message above what an operator has set ends the channel, with all that is behind it. It is found, and told from the others.
func TestServerTakesLess(t *testing.T) {
	s := ownServer(t, "default")
	b := s.open(t, nil, nil)
	sub := pubsub.Subscription{Topic: "large", Group: "g"}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	s.ctl(t, "eval", "application:set_env(rabbit, max_message_size, 10000), persistent_term:put(max_message_size, 10000).")
	var all sync.WaitGroup
	fates := make([]error, 41)
	for i := range fates {
		m := pubsub.Message{ID: fmt.Sprint(i), Payload: make([]byte, 100)}
		if i == 20 {
			m.Payload = make([]byte, 20_000)
		}
		all.Add(1)
		b.PublishAsync(t.Context(), "large", m, func(_ pubsub.Receipt, err error) { fates[i] = err; all.Done() })
	}
	all.Wait()
	for i, err := range fates {
		if i == 20 && !errors.Is(err, pubsub.ErrTooLarge) || i != 20 && err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
}
