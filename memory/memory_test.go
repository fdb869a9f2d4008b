package memory_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		b := memory.New(nil)
		var got string
		_, err := b.Subscribe(ctx, pubsub.Subscription{Topic: "greetings", Group: "hello"}, func(_ context.Context, d *pubsub.Delivery) error {
			defer stop()
			got = string(d.Payload)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(ctx, "greetings", pubsub.Message{Payload: []byte("hello, world")}); err != nil {
			t.Fatal(err)
		}
		if err := b.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if got != "hello, world" {
			t.Fatalf("got %q", got)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestKeyedWorkersKeepOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		var mu sync.Mutex
		last := map[string]int{}
		var n atomic.Int64
		done := make(chan struct{})
		_, err := b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Concurrency: 8}, func(_ context.Context, d *pubsub.Delivery) error {
			var i int
			fmt.Sscan(string(d.Payload), &i)
			mu.Lock()
			if i <= last[d.Key] {
				t.Errorf("key %s: %d after %d", d.Key, i, last[d.Key])
			}
			last[d.Key] = i
			mu.Unlock()
			if n.Add(1) == 2000 {
				close(done)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var batch []pubsub.Message
		for i := range 1000 {
			batch = append(batch, pubsub.Message{Key: fmt.Sprint("k", i%17), Payload: fmt.Append(nil, i+1)})
		}
		if err := b.PublishBatch(t.Context(), "t", batch); err != nil {
			t.Fatal(err)
		}
		for i := range 1000 {
			b.PublishAsync(t.Context(), "t", pubsub.Message{Key: fmt.Sprint("k", i%17), Payload: fmt.Append(nil, 1001+i)}, nil)
		}
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-done
		lag, err := b.Lag(t.Context(), "t", "g")
		for err == nil && lag.Messages > 0 {
			time.Sleep(time.Millisecond)
			lag, err = b.Lag(t.Context(), "t", "g")
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestRetriesThenDeadLetter(t *testing.T) {
	for _, key := range []string{"", "k"} {
		synctest.Test(t, func(t *testing.T) {
			b := memory.New(nil)
			defer b.Close()
			var attempts []int
			dead := make(chan struct{})
			sub := pubsub.Subscription{Topic: "t", Group: "g", Retry: pubsub.Policy{MaxAttempts: 4, Immediate: 1},
				DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(*pubsub.Delivery, error) { close(dead) }}}
			_, err := b.Subscribe(t.Context(), sub, func(_ context.Context, d *pubsub.Delivery) error {
				attempts = append(attempts, d.Attempt)
				return errors.New("no")
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Publish(t.Context(), "t", pubsub.Message{Key: key, Payload: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			<-dead
			if fmt.Sprint(attempts) != "[1 2 3 4]" {
				t.Fatalf("attempts %v", attempts)
			}
			n := 0
			for r, err := range b.Browse(t.Context(), pubsub.Place{Topic: "t", Group: "g", Kind: pubsub.PlaceDead}, pubsub.Position{}) {
				if err != nil || r.Msg.Headers.Get("omnibus-dlq-reason") != "max-attempts" || string(r.Msg.Payload) != "x" {
					t.Fatalf("%+v %v", r, err)
				}
				n++
			}
			if n != 1 {
				t.Fatalf("%d dead letters", n)
			}
		})
	}
}

func TestSurvivesFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.NewServer(memory.Config{})
		b, err := s.Open(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		var mu sync.Mutex
		got := map[string]int{}
		_, err = b.Subscribe(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Concurrency: 4}, func(_ context.Context, d *pubsub.Delivery) error {
			time.Sleep(time.Millisecond)
			mu.Lock()
			got[d.ID]++
			mu.Unlock()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			switch i {
			case 50:
				s.LoseConfirmations(2)
			case 100:
				s.DropSessions()
			case 150:
				s.Crash()
				time.AfterFunc(3*time.Second, s.Restart)
			case 200:
				resume := s.Stall()
				time.AfterFunc(3*time.Second, resume)
			case 250:
				s.Refuse(2, pubsub.ErrUnavailable)
			}
			if err := b.Publish(t.Context(), "t", pubsub.Message{ID: fmt.Sprint(i), Key: fmt.Sprint(i % 7)}); err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
		}
		for {
			mu.Lock()
			n := len(got)
			mu.Unlock()
			if n == 300 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func TestReceiveAndBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		orders, err := b.Receive(t.Context(), pubsub.Subscription{Topic: "t", Group: "pull"})
		if err != nil {
			t.Fatal(err)
		}
		seen := make(chan int, 100)
		_, err = b.SubscribeBatch(t.Context(), pubsub.Subscription{Topic: "t", Group: "batch"}, pubsub.Batch{Max: 10}, func(_ context.Context, ds []*pubsub.Delivery) error {
			seen <- len(ds)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 25 {
			if err := b.Publish(t.Context(), "t", pubsub.Message{Payload: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		n := 0
		for l, err := range orders {
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Settle(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if n++; n == 20 {
				break
			}
		}
		if lag, err := b.Lag(t.Context(), "t", "pull"); err != nil || lag.Messages != 5 {
			t.Fatalf("lag %+v %v, want 5", lag, err)
		}
		for sum := 0; sum < 25; {
			sum += <-seen
		}
	})
}
