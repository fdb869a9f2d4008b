package memory_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Whatever breaks, nothing that was confirmed is lost, and a key's handlers succeed in the order of its messages.
func TestChaos(t *testing.T) {
	seeded(t, 12, chaos)
}

// seeded runs f in n bubbles, from SEED on, else from a seed that no other run has.
func seeded(t *testing.T, n uint64, f func(t *testing.T, rng *rand.Rand)) {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("SEED"); s != "" {
		from, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = from
	}
	for i := range n {
		t.Run(fmt.Sprint("SEED=", seed+i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, rand.New(rand.NewPCG(seed+i, 1))) })
		})
	}
}

func chaos(t *testing.T, rng *rand.Rand) {
	t.Helper()
	s := memory.NewServer(memory.Config{})
	order := []pubsub.Order{pubsub.OrderByKey, pubsub.OrderStrict, pubsub.OrderByKeyLoose, pubsub.OrderNone}[rng.IntN(4)]
	sub := pubsub.Subscription{Topic: "t", Group: "g", Order: order, Concurrency: 1 + rng.IntN(8), AckWait: time.Second,
		MaxInFlight: 8 + rng.IntN(100), Retry: pubsub.Policy{MaxAttempts: pubsub.Unlimited, Initial: 10 * time.Millisecond, Max: 3 * time.Second}}
	open := func() *pubsub.Broker {
		b, err := s.Open(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	pub := open()
	err := pub.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "t", Partitions: 1 + rng.IntN(4)}}, Groups: []pubsub.Subscription{sub}})
	if err != nil {
		t.Fatal(err)
	}
	// the broker can be down for most of the default 30 s here: then giving up would be right, and nothing would be tested
	p, err := pub.Publisher(pubsub.PublisherOptions{Timeout: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	fail := rand.New(rand.NewPCG(rng.Uint64(), 2))
	succeeded, best := map[string]bool{}, map[string]int{}
	handler := func(ctx context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		roll, pause := fail.IntN(100), time.Duration(fail.IntN(5))*time.Millisecond
		mu.Unlock()
		time.Sleep(pause)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case roll < 5:
			return errors.New("no")
		case roll < 6:
			panic("no")
		case roll < 7:
			return pubsub.Snooze(20*time.Millisecond, nil)
		}
		n, err := strconv.Atoi(string(d.Payload))
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if !succeeded[d.ID] && n < best[d.Key] && (order == pubsub.OrderByKey || order == pubsub.OrderStrict) {
			t.Errorf("order %v, key %s: %d succeeded for the first time after %d", order, d.Key, n, best[d.Key])
		}
		best[d.Key] = max(best[d.Key], n)
		succeeded[d.ID] = true
		return nil
	}
	members := []*pubsub.Broker{}
	join := func() {
		b := open()
		members = append(members, b)
		if _, err := b.Subscribe(context.Background(), sub, handler); err != nil && !errors.Is(err, pubsub.ErrUnavailable) && !errors.Is(err, pubsub.ErrCanceled) {
			t.Error(err)
		}
	}
	join()
	join()
	confirmed := map[string]bool{}
	var wg sync.WaitGroup
	next := map[string]int{}
	for i := range 600 {
		key := fmt.Sprint("k", rng.IntN(10))
		next[key]++
		id := fmt.Sprint(i)
		wg.Add(1)
		p.PublishAsync(t.Context(), "t", pubsub.Message{ID: id, Key: key, Payload: fmt.Append(nil, next[key])}, func(_ pubsub.Receipt, err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				confirmed[id] = true
			case !errors.Is(err, pubsub.ErrUnavailable) && !errors.Is(err, pubsub.ErrUnconfirmed):
				t.Errorf("message %s: %v", id, err)
			}
		})
		switch rng.IntN(150) {
		case 0:
			s.LoseConfirmations(1 + rng.IntN(3))
		case 1:
			s.DropSessions()
		case 2:
			s.Crash()
			time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
			s.Restart()
		case 3:
			resume := s.Stall()
			time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
			resume()
		case 4:
			s.Refuse(1+rng.IntN(3), pubsub.ErrUnavailable)
		case 5:
			join()
		case 6:
			if len(members) > 1 {
				b := members[0]
				members = members[1:]
				if err := b.Close(); err != nil && !errors.Is(err, pubsub.ErrUnavailable) { // a fault of before may still be there
					t.Errorf("close: %v", err)
				}
			}
		default:
			time.Sleep(time.Duration(rng.IntN(4)) * time.Millisecond)
		}
	}
	wg.Wait()
	if len(confirmed) < 300 {
		t.Errorf("only %d of 600 messages were confirmed", len(confirmed))
	}
	deadline := time.Now().Add(10 * time.Minute)
	for {
		mu.Lock()
		missing := 0
		for id := range confirmed {
			if !succeeded[id] {
				missing++
			}
		}
		mu.Unlock()
		if missing == 0 {
			break
		}
		if time.Now().After(deadline) {
			lag, err := pub.Lag(t.Context(), "t", "g")
			t.Errorf("order %v: %d of %d confirmed messages were not handled; lag %+v %v", order, missing, len(confirmed), lag, err)
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, b := range append(members, pub) {
		if err := b.Close(); err != nil && !errors.Is(err, pubsub.ErrUnavailable) {
			t.Errorf("close: %v", err)
		}
	}
	if lag, err := func() (pubsub.Lag, error) { b := open(); defer b.Close(); return b.Lag(t.Context(), "t", "g") }(); err != nil || lag.Messages != 0 {
		t.Errorf("lag at the end: %+v %v", lag, err)
	}
}
