package redisstreams_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// A handler that takes five times the ack wait gets its message once, whatever order the group keeps.
func TestSlowHandlerOnce(t *testing.T) {
	const ackWait = 500 * time.Millisecond
	s := startServer(t, "default")
	b, peer := s.open(t), s.open(t)
	for _, order := range []pubsub.Order{pubsub.OrderByKey, pubsub.OrderNone} {
		topic := fmt.Sprintf("orders-%d", order)
		var calls atomic.Int32
		done := make(chan struct{})
		slow := func(context.Context, *pubsub.Delivery) error {
			if calls.Add(1) == 1 {
				time.Sleep(5 * ackWait) // of work
				close(done)
			}
			return nil
		}
		sub := pubsub.Subscription{Topic: topic, Group: "g", Order: order, AckWait: ackWait}
		mustSubscribe(t, b, sub, slow)
		mustSubscribe(t, peer, sub, slow)
		if err := b.Publish(t.Context(), topic, pubsub.Message{Key: "k"}); err != nil {
			t.Fatal(err)
		}
		<-done
		poll.Until(t, "all is settled", func() bool { return adaptertest.Settled(t, b, topic, "g") })
		if n := calls.Load(); n != 1 {
			t.Errorf("order %v: handled %d times", order, n)
		}
	}
}

// Attempt k comes not before the k-th delay is over, and soon after, with several members that all look for what is due.
func TestDelaysAreKept(t *testing.T) {
	const messages = 40
	delays := []time.Duration{150 * time.Millisecond, 700 * time.Millisecond, 1100 * time.Millisecond}
	s := startServer(t, "default")
	b := s.open(t)
	var mu sync.Mutex
	last, late := map[string]time.Time{}, []time.Duration{}
	handled := 0
	handle := func(_ context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if d.Attempt > 1 {
			wait := now.Sub(last[d.ID]) - delays[d.Attempt-2]
			if late = append(late, wait); wait < 0 {
				t.Errorf("attempt %d of %s came %v early", d.Attempt, d.ID, -wait)
			}
		}
		last[d.ID] = now
		if d.Attempt <= len(delays) {
			return errors.New("again")
		}
		handled++
		return nil
	}
	for range 3 {
		mustSubscribe(t, s.open(t), pubsub.Subscription{
			Topic: "orders", Group: "g", Order: pubsub.OrderNone, Retry: pubsub.Policy{MaxAttempts: len(delays) + 1, Delays: delays},
		}, handle)
	}
	for i := range messages {
		if err := b.Publish(t.Context(), "orders", pubsub.Message{ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	poll.Until(t, "all are handled", func() bool { mu.Lock(); defer mu.Unlock(); return handled >= messages })
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(late)
	t.Logf("lateness: median %v, longest %v", late[len(late)/2], late[len(late)-1])
	if len(late) != messages*len(delays) || late[len(late)/2] > 250*time.Millisecond || late[len(late)-1] > time.Second {
		t.Errorf("%d retries, %v late in the median, %v at the most", len(late), late[len(late)/2], late[len(late)-1])
	}
}

// What waits is brought back once, whoever is at it: two members race for each message.
func TestMoversRace(t *testing.T) {
	const messages = 2000
	s := startServer(t, "default")
	b := s.open(t)
	var mu sync.Mutex
	calls := map[string]int{}
	handle := func(_ context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if calls[d.ID]++; d.Attempt == 1 {
			return pubsub.RetryAfter(time.Second, errors.New("all at once"))
		}
		return nil
	}
	for range 2 {
		mustSubscribe(t, s.open(t), pubsub.Subscription{Topic: "orders", Group: "g", Order: pubsub.OrderNone, Concurrency: 4}, handle)
	}
	msgs := make([]pubsub.Message, messages)
	for i := range msgs {
		msgs[i].ID = fmt.Sprint(i)
	}
	adaptertest.PublishAll(t, b, "orders", msgs)
	poll.Until(t, "all is settled", func() bool { return adaptertest.Settled(t, b, "orders", "g") })
	mu.Lock()
	defer mu.Unlock()
	for _, m := range msgs {
		if calls[m.ID] != 2 {
			t.Errorf("%s was handled %d times, want 2", m.ID, calls[m.ID])
		}
	}
}

// Rounds of messages with keys, published by one publisher without a pause, are never out of order: on one partition and on several.
func TestKeyedRoundsInOrder(t *testing.T) {
	const size, keys = 256, 64
	s := startServer(t, "default")
	b := s.open(t)
	for parts, rounds := range map[int]int{1: 1000, 4: 100} {
		topic := fmt.Sprintf("orders-%d", parts)
		sub := pubsub.Subscription{Topic: topic, Group: "g", Concurrency: 8, MaxInFlight: 1024}
		if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic, Partitions: parts}}, Groups: []pubsub.Subscription{sub}}); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		last, wrong, n := map[string]int{}, 0, 0
		mustSubscribe(t, b, sub, func(_ context.Context, d *pubsub.Delivery) error {
			var at int
			if _, err := fmt.Sscan(string(d.Payload), &at); err != nil {
				return pubsub.Permanent(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if at <= last[d.Key] {
				wrong++
			}
			last[d.Key] = at
			n++
			return nil
		})
		at := 0
		for range rounds {
			msgs := make([]pubsub.Message, size)
			for i := range msgs {
				at++
				msgs[i] = pubsub.Message{Key: fmt.Sprint(at * 7919 % keys), Payload: fmt.Append(nil, at)}
			}
			if err := b.PublishBatch(t.Context(), topic, msgs); err != nil {
				t.Fatal(err)
			}
		}
		poll.Until(t, "all are handled", func() bool { mu.Lock(); defer mu.Unlock(); return n >= rounds*size })
		mu.Lock()
		if wrong > 0 || n != rounds*size {
			t.Errorf("%d partitions: %d of %d messages came, %d of them out of order", parts, n, rounds*size, wrong)
		}
		mu.Unlock()
	}
}

// A member that has lost its partition without knowing may have a read waiting at the server, which assigns it what comes next: the member that has the
// partition now takes that, before what follows.
func TestGhostGetsNothingLost(t *testing.T) {
	s := startServer(t, "default")
	b, c := s.open(t), s.client(t)
	var got received
	mustSubscribe(t, b, pubsub.Subscription{Topic: "orders", Group: "g", AckWait: time.Second}, got.handle)
	ctx := t.Context()
	for round := range 50 {
		n := 1 + rand.IntN(5)
		for i := range 3 * n {
			if err := c.XAdd(ctx, &redis.XAddArgs{Stream: "orders", Values: []string{"payload", fmt.Sprintf("%d", round*100+i), ":key", "k"}}).Err(); err != nil {
				t.Fatal(err)
			}
			if i%n == 0 { // it may get one, or come too late
				_, err := c.XReadGroup(ctx, &redis.XReadGroupArgs{Group: "g", Consumer: "ghost", Streams: []string{"orders", ">"}, Count: int64(n), Block: -1}).Result()
				if err != nil && !errors.Is(err, redis.Nil) {
					t.Fatal(err)
				}
			}
		}
	}
	if err := c.XAdd(ctx, &redis.XAddArgs{Stream: "orders", Values: []string{"payload", "99999", ":key", "k"}}).Err(); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "all is settled", func() bool { return adaptertest.Settled(t, b, "orders", "g") })
	last := -1
	for _, m := range got.await(t, 1) {
		var at int
		if _, err := fmt.Sscan(string(m.Payload), &at); err != nil || at <= last {
			t.Errorf("%s after %d", m.Payload, last)
		}
		last = at
	}
	total := c.XLen(ctx, "orders").Val()
	if n := len(got.await(t, 1)); int64(n) != total {
		t.Errorf("%d messages of %d came", n, total)
	}
}

// Entries that the server has assigned on a connection that broke, and that nobody saw, come all the same.
func TestUnseenEntriesCome(t *testing.T) {
	s := ownServer(t, "default")
	b := s.open(t)
	for _, order := range []pubsub.Order{pubsub.OrderByKey, pubsub.OrderNone} {
		topic := fmt.Sprintf("orders-%d", order)
		var got received
		mustSubscribe(t, b, pubsub.Subscription{Topic: topic, Group: "g", Order: order, AckWait: time.Minute}, got.handle)
		direct := redis.NewClient(&redis.Options{Addr: s.Nodes()[0].Addr(), MaxRetries: -1, ContextTimeoutEnabled: true})
		defer direct.Close()
		if err := direct.Ping(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.HalfOpen(); err != nil { // what the server says vanishes
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_ = direct.XAdd(short, &redis.XAddArgs{Stream: topic, Values: []string{"payload", "assigned"}}).Err() // it arrives
		cancel()
		if err := s.Mend(); err != nil {
			t.Fatal(err)
		}
		if m := got.await(t, 1); string(m[0].Payload) != "assigned" {
			t.Errorf("got %q", m[0].Payload)
		}
	}
}

// What one member gives back another one gets at once, uncounted, and a consumer that is gone leaves none behind.
func TestGivenBackUncounted(t *testing.T) {
	s := startServer(t, "default")
	b, c := s.open(t), s.client(t)
	for _, order := range []pubsub.Order{pubsub.OrderByKey, pubsub.OrderNone} {
		topic := fmt.Sprintf("orders-%d", order)
		sub := pubsub.Subscription{Topic: topic, Group: "g", Order: order, AckWait: time.Minute, MaxInFlight: 100}
		first, err := redisstreams.Open(t.Context(), s.address(nil), &pubsub.Options{DrainTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		running := make(chan struct{}, 1) // it may run before anybody waits
		mustSubscribe(t, first, sub, func(ctx context.Context, _ *pubsub.Delivery) error {
			select {
			case running <- struct{}{}:
			default:
			}
			<-ctx.Done()
			return ctx.Err()
		})
		adaptertest.PublishAll(t, b, topic, make([]pubsub.Message, 50))
		<-running
		ended := make(chan error)
		go func() { ended <- first.Close() }()
		var mu sync.Mutex
		n, most := 0, 0
		second := mustSubscribe(t, b, sub, func(_ context.Context, d *pubsub.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			n, most = n+1, max(most, d.Deliveries)
			return nil
		})
		<-ended // its handler was cancelled
		poll.Until(t, "50 are handled", func() bool { mu.Lock(); defer mu.Unlock(); return n >= 50 })
		if most > 1 {
			t.Errorf("order %v: a delivery counts as number %d", order, most)
		}
		if err := second.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		for _, x := range c.XInfoConsumers(t.Context(), topic, "g").Val() {
			if x.Pending > 0 || x.Name != "omnibus.waiting" && x.Name != "omnibus.left" {
				t.Errorf("order %v leaves consumer %+v", order, x)
			}
		}
	}
}

// Trimming takes what is old and acked by every group, and nothing else.
func TestTrimSparesWhatIsNotAcked(t *testing.T) {
	s := startServer(t, "default")
	cfg, err := redisstreams.ParseURL(s.address(nil))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Retention = 10 * time.Millisecond
	b, err := cfg.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	c := s.client(t)
	groups := []pubsub.Subscription{{Topic: "orders", Group: "slow"}, {Topic: "orders", Group: "quick"}}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: groups}); err != nil {
		t.Fatal(err)
	}
	adaptertest.PublishAll(t, b, "orders", make([]pubsub.Message, 100))
	var quick, slow received
	mustSubscribe(t, b, groups[1], quick.handle)
	quick.await(t, 100)
	if err := redisstreams.Trim(t.Context(), b, "orders", cfg.Retention); err != nil {
		t.Fatal(err)
	}
	if n := c.XLen(t.Context(), "orders").Val(); n != 100 {
		t.Errorf("%d of 100 messages are left, which a group has not read", n)
	}
	mustSubscribe(t, b, groups[0], slow.handle)
	slow.await(t, 100)
	poll.Until(t, "all is settled", func() bool { return adaptertest.Settled(t, b, "orders", "slow") })
	poll.Until(t, "what everybody has read is trimmed", func() bool {
		if err := redisstreams.Trim(t.Context(), b, "orders", cfg.Retention); err != nil {
			t.Fatal(err)
		}
		return c.XLen(t.Context(), "orders").Val() <= 1 // the last one that was read marks where the groups are
	})
	err = b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "orders", Retention: time.Hour}}})
	if pubsub.CodeOf(err) != pubsub.ErrConflict {
		t.Errorf("another retention: %v", err)
	}
}
