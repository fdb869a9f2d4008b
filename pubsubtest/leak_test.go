package pubsubtest_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// waitFor is what a forgotten goroutine is found in.
func waitFor(c <-chan struct{}) { <-c }

// leaks are tests that forget a goroutine, which ends when the channel is closed.
func leaks(end <-chan struct{}) map[string]func(t *fakeT) {
	forget := func(context.Context, *pubsub.Delivery) error {
		go waitFor(end)
		return nil
	}
	return map[string]func(t *fakeT){
		"of the test": func(t *fakeT) {
			pubsubtest.Open(t, nil)
			go waitFor(end)
		},
		"of a goroutine of the test": func(t *fakeT) {
			pubsubtest.Open(t, nil)
			started := make(chan struct{})
			go func() {
				go waitFor(end)
				close(started)
			}()
			<-started
		},
		"of a handler": func(t *fakeT) {
			pubsubtest.Deliver(t, billing(), forget, order)
		},
		"of a handler that a timer started": func(t *fakeT) {
			sub := billing()
			sub.Concurrency, sub.Retry.Delays = 2, []time.Duration{20 * time.Millisecond}
			pubsubtest.Open(t, nil).Deliver(sub, func(ctx context.Context, d *pubsub.Delivery) error {
				switch {
				case d.Key == "keeps the only worker busy":
					<-time.After(40 * time.Millisecond)
				case d.Attempt == 1:
					return errDown
				default:
					return forget(ctx, d)
				}
				return nil
			}, pubsub.Message{Key: "is retried"}, pubsub.Message{Key: "keeps the only worker busy", Delay: 10 * time.Millisecond})
		},
		"of a handler of batches": func(t *fakeT) {
			pubsubtest.Open(t, nil).DeliverBatch(billing(), pubsub.Batch{Wait: time.Millisecond}, func(context.Context, []*pubsub.Delivery) error {
				go waitFor(end)
				return nil
			}, pubsub.Message{Delay: 10 * time.Millisecond})
		},
	}
}

func TestLeaksAreFound(t *testing.T) {
	for name := range leaks(nil) {
		t.Run(name, func(t *testing.T) {
			end := make(chan struct{})
			defer close(end)
			refuses(t, leaks(end)[name], "error: goroutines outlive the test's broker:\n  1 of:\n", "pubsubtest_test.waitFor at pubsubtest/leak_test.go:")
		})
		t.Run(name+", in a bubble", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := make(chan struct{})
				defer close(end)
				refuses(t, leaks(end)[name], "error: goroutines outlive the test's broker:\n  1 of:\n", "pubsubtest_test.waitFor at pubsubtest/leak_test.go:")
			})
		})
	}
}

// A goroutine that is about to end, one of before, one of another test, an idle connection, another Broker: none of them is a leak.
func TestWhatIsNoLeak(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	go waitFor(end)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer server.Close()
	client := server.Client()
	other := make(chan struct{})
	go func() {
		<-other
		go waitFor(end)
		other <- struct{}{}
	}()
	shared := pubsubtest.Open(t, nil, "shared") // its sender is started by the test below
	got := failure(t, func(t *fakeT) {
		b := pubsubtest.Open(t, nil)
		other <- struct{}{}
		<-other
		b.Deliver(billing(), func(ctx context.Context, _ *pubsub.Delivery) error {
			go func() { <-time.After(20 * time.Millisecond) }()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.ReadAll(resp.Body)
			return err
		}, order)[0].Want(t, pubsubtest.Fate{Acked: true, Attempts: 1})
		if err := shared.Publish(context.Background(), "shared", order); err != nil {
			t.Error(err)
		}
	})
	if got != "" {
		t.Error(got)
	}
}

// Closing says when a handler ignores that it is to end.
func TestAHandlerThatIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		defer close(end)
		got := failure(t, func(t *fakeT) {
			b := pubsubtest.Open(t, nil)
			started := make(chan struct{})
			ignores := func(context.Context, *pubsub.Delivery) error {
				close(started)
				waitFor(end)
				return nil
			}
			if _, err := b.Subscribe(t.Context(), billing(), ignores); err != nil {
				t.Error(err)
			}
			if err := b.Publish(t.Context(), "orders", order); err != nil {
				t.Error(err)
			}
			<-started
		})
		if !strings.HasPrefix(got, "error: closing the broker: ") || !strings.Contains(got, pubsub.ErrTimeout.Error()) {
			t.Errorf("got %q", got)
		}
	})
}
