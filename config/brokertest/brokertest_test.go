// Package brokertest_test runs a service of one configuration file on real brokers: changing the broker line is all that it takes.
package brokertest_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/pubsub"
)

const orders = 10_000

// file is a configuration without its first line, the broker's.
func file(topic string) string {
	return `service: checkout
topics:
  ` + topic + `: {partitions: 4}
policies:
  short: {max_attempts: 4, delays: [10ms]}
middleware:
  - compress: {from: 128}
  - correlate
  - own: seal
subscriptions:
  billing:
    topic: ` + topic + `
    concurrency: 8
    retry: short
    rules:
      - category: refused
        when: [refused]
        retry: {max_attempts: 2, delays: [5ms]}
    middleware:
      - dedup: {window: 10m}
      - timeout: 1m
  audit:
    topic: ` + topic + `
    order: none
    concurrency: 4
    retry: short
`
}

// TestBrokers is run for one kind at a time by the Makefile, which knows what a machine has: -run TestBrokers/nats.
func TestBrokers(t *testing.T) {
	for _, kind := range []string{"nats", "kafka", "rabbitmq", "redis"} {
		t.Run(kind, func(t *testing.T) {
			b := containers.ForTest(t, kind, "default")
			topic := fmt.Sprintf("orders-%d", time.Now().UnixNano())
			want := run(t, "mem://", topic)
			got := run(t, b.URL(), topic)
			t.Logf("in the process %x, on %s %x: %d lines", sha256.Sum256([]byte(strings.Join(want, "\n"))), kind, sha256.Sum256([]byte(strings.Join(got, "\n"))), len(got))
			// of 10,000 orders each subscription has an outcome, and billing a dead letter of those that are refused
			if len(want) != 2*orders+orders/40 {
				t.Errorf("%d lines in the process", len(want))
			}
			if !slices.Equal(got, want) {
				for i := range min(len(got), len(want)) {
					if got[i] != want[i] {
						t.Fatalf("line %d is %q, in the process %q", i, got[i], want[i])
					}
				}
				t.Fatalf("%d lines, in the process %d", len(got), len(want))
			}
		})
	}
}

var (
	errRefused = errors.New("the bank refuses")
	errAway    = errors.New("the partner is away")
)

// seal is a layer of the program's own: what it adds must be there at the other end.
func seal() pubsub.Middleware {
	return pubsub.Middleware{
		Name: "seal",
		Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			m.Headers.Set("seal", m.ID)
			return nil
		},
		Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				if d.Headers.Get("seal") != d.ID {
					return pubsub.Permanent(fmt.Errorf("the seal of %s is %q", d.ID, d.Headers.Get("seal")))
				}
				return next(ctx, d)
			}
		},
	}
}

// A summary has what became of each order in each subscription.
type summary struct {
	mu   sync.Mutex
	want int
	of   map[string]string
	done chan struct{}
}

func (s *summary) note(subscription string, d *pubsub.Delivery, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.of)
	s.of[subscription+" "+d.ID] = fmt.Sprintf("%s in attempt %d, key %s, %x", what, d.Attempt, d.Key, sha256.Sum256(d.Payload))
	if len(s.of) == s.want && before < s.want {
		close(s.done)
	}
}

// run serves the file with broker as its first line until every order has its fate, and returns the sorted lines of what happened.
func run(t *testing.T, broker, topic string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "omnibus.yaml")
	if err := os.WriteFile(path, []byte("broker: "+broker+"\n"+file(topic)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &summary{want: 2 * orders, of: map[string]string{}, done: make(chan struct{})}
	svc, err := config.Open(t.Context(), path, brokers.All(), &config.Options{
		Layers:   map[string]pubsub.Middleware{"seal": seal()},
		Failures: map[string]func(error) bool{"refused": func(err error) bool { return errors.Is(err, errRefused) }},
		Adjust: func(name string, sub *pubsub.Subscription) {
			sub.DeadLetter.OnDeadLetter = func(d *pubsub.Delivery, err error) {
				s.note(name, d, fmt.Sprintf("dead, %s, %v,", pubsub.CategoryOf(err), err))
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served := make(chan error, 1)
	go func() { served <- svc.Serve(ctx, config.Handlers{"billing": s.bill, "audit": s.audit}) }()

	msgs := make([]pubsub.Message, 0, 500)
	for i := range orders {
		msgs = append(msgs, pubsub.Message{
			ID: fmt.Sprintf("o-%05d", i), Key: fmt.Sprintf("c-%d", i%97), Type: "order.placed", Payload: fmt.Appendf(nil, `{"order":%d,"items":%q}`, i, strings.Repeat("item ", i%60)),
		})
		if len(msgs) == cap(msgs) {
			if err := svc.Broker().PublishBatch(ctx, topic, msgs); err != nil {
				t.Fatal(err)
			}
			msgs = msgs[:0]
		}
	}
	select {
	case <-s.done:
	case err := <-served:
		t.Fatalf("Serve has returned %v, with %d of %d", err, len(s.of), s.want)
	case <-time.After(3 * time.Minute):
		s.mu.Lock()
		defer s.mu.Unlock()
		t.Fatalf("%d of %d after 3 min", len(s.of), s.want)
	}
	lines := s.lines()
	for r, err := range svc.Broker().Browse(ctx, pubsub.Place{Topic: topic, Group: "billing", Kind: pubsub.PlaceDead}, pubsub.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("dead letter %s, %s, key %s", r.Msg.ID, r.Msg.Headers.Get("omnibus-dlq-category"), r.Msg.Key))
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve returns %v", err)
	}
	slices.Sort(lines)
	return lines
}

func (s *summary) lines() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for of, what := range s.of {
		all = append(all, of+" "+what)
	}
	return all
}

// number is the order's; of 40 the first is refused, and the 21st fails once: that is 5 %.
func number(d *pubsub.Delivery) (i int) {
	_, _ = fmt.Sscanf(d.ID, "o-%d", &i) // 0 is refused, and shows
	return i
}

func (s *summary) bill(_ context.Context, d *pubsub.Delivery) error {
	switch i := number(d); {
	case i%40 == 0:
		return errRefused
	case i%40 == 20 && d.Attempt == 1:
		return errAway
	}
	s.note("billing", d, "handled")
	return nil
}

func (s *summary) audit(_ context.Context, d *pubsub.Delivery) error {
	if number(d)%200 == 20 && d.Attempt == 1 {
		return errAway
	}
	s.note("audit", d, "handled")
	return nil
}
