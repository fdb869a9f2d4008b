package config_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

func onMemory() pubsub.Mux { return pubsub.Mux{memory.Opener()} }

var (
	errRefused  = errors.New("the bank refuses")
	errNoTenant = errors.New("no tenant")
	errAway     = errors.New("the partner is away")
)

type tenantKey struct{}

// tenant is a layer of the program's own, in both directions.
func tenant() pubsub.Middleware {
	return pubsub.Middleware{
		Name: "tenant",
		Outgoing: func(ctx context.Context, _ string, m *pubsub.Message) error {
			name, _ := ctx.Value(tenantKey{}).(string)
			if name == "" {
				return errNoTenant
			}
			m.Headers.Set("tenant", name)
			return nil
		},
		Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				return next(context.WithValue(ctx, tenantKey{}, d.Headers.Get("tenant")), d)
			}
		},
	}
}

func shop() *config.Options {
	return &config.Options{
		Layers:   map[string]pubsub.Middleware{"tenant": tenant()},
		Failures: map[string]func(error) bool{"refused": func(err error) bool { return errors.Is(err, errRefused) }},
		Env:      env(nil),
	}
}

// Two subscriptions of one file with a chain of layers, retries, rules, dead letters by category and deduplication.
func TestServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		var left sync.WaitGroup
		opts := shop()
		opts.Adjust = func(name string, s *pubsub.Subscription) {
			if name == "billing" {
				s.DeadLetter.OnDeadLetter = func(*pubsub.Delivery, error) { left.Done() }
			}
		}
		ctx := context.WithValue(t.Context(), tenantKey{}, "acme")
		svc, err := config.Open(ctx, "testdata/shop.yaml", onMemory(), opts)
		if err != nil {
			t.Fatal(err)
		}
		var tries, shipped [n]atomic.Int32
		bill := func(ctx context.Context, d *pubsub.Delivery) error {
			var i int
			if _, err := fmt.Sscanf(string(d.Payload), "order %d ", &i); err != nil {
				return pubsub.Permanent(err)
			}
			tries[i].Add(1)
			if ctx.Value(tenantKey{}) != "acme" {
				t.Errorf("order %d has the tenant %v", i, ctx.Value(tenantKey{}))
			}
			switch {
			case i%20 == 0:
				return errRefused // twice, then to orders.refused
			case i%20 == 1:
				return errAway // three times, then to the group's own dead letters
			case i%20 == 2 && d.Attempt == 1:
				return errAway // once
			}
			left.Done()
			return nil
		}
		ship := func(_ context.Context, d *pubsub.Delivery) error {
			var i int
			if _, err := fmt.Sscanf(string(d.Payload), "order %d ", &i); err != nil {
				return pubsub.Permanent(err)
			}
			if shipped[i].Add(1) <= 2 {
				left.Done()
			}
			return nil
		}
		left.Add(n + 2*n) // billing once for each, shipping has no dedup
		running, stop := context.WithCancel(ctx)
		served := make(chan error, 1)
		go func() { served <- svc.Serve(running, config.Handlers{"billing": bill, "shipping": ship}) }()
		for i := range n {
			msg := pubsub.Message{ID: fmt.Sprintf("o-%d", i), Key: fmt.Sprintf("c-%d", i%7), Payload: fmt.Appendf(nil, "order %d %s", i, strings.Repeat("x", 500))}
			for range 2 { // a duplicate: it is dropped if the first was handled, and tried as often if it was not
				if err := svc.Broker().Publish(ctx, "orders", msg); err != nil {
					t.Fatal(err)
				}
			}
			if i%20 < 2 {
				left.Add(1) // the duplicate of one that fails
			}
		}
		left.Wait()
		refused := count(t, svc.Broker(), pubsub.Place{Topic: "orders.refused"}, "refused")
		own := count(t, svc.Broker(), pubsub.Place{Topic: "orders", Group: "billing", Kind: pubsub.PlaceDead}, "")
		if refused != 2*n/20 || own != 2*n/20 {
			t.Errorf("%d in orders.refused, %d in the group's dead letters; want %d each", refused, own, 2*n/20)
		}
		for i := range n {
			want := map[int]int32{0: 4, 1: 6, 2: 2}[i%20]
			if want == 0 {
				want = 1
			}
			if got := tries[i].Load(); got != want {
				t.Errorf("order %d was tried %d times, want %d", i, got, want)
			}
		}
		if err := svc.Broker().Publish(t.Context(), "orders", pubsub.Message{}); !errors.Is(err, errNoTenant) {
			t.Errorf("a message without a tenant: %v", err)
		}
		stop()
		if err := <-served; err != nil {
			t.Errorf("Serve returns %v", err)
		}
		if err := svc.Broker().Publish(ctx, "orders", pubsub.Message{}); !errors.Is(err, pubsub.ErrClosed) {
			t.Errorf("after Serve: %v, want ErrClosed", err)
		}
		if err := svc.Close(); err != nil {
			t.Error(err)
		}
	})
}

// count reads a place, and looks whether each dead letter there is of that category.
func count(t *testing.T, b *pubsub.Broker, p pubsub.Place, category string) (n int) {
	t.Helper()
	for r, err := range b.Browse(t.Context(), p, pubsub.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if got := r.Msg.Headers.Get("omnibus-dlq-category"); got != category {
			t.Errorf("category %q, want %q", got, category)
		}
	}
	return n
}

// What runs when ctx ends is finished; what is held goes back and is there for the next Service.
func TestServeDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := write(t, "broker: mem://drains\ntopics:\n  jobs:\nsubscriptions:\n  work: {topic: jobs}\n")
		mux := onMemory()
		svc, err := config.Open(t.Context(), path, mux, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if err := svc.Broker().Publish(t.Context(), "jobs", pubsub.Message{ID: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		running, stop := context.WithCancel(t.Context())
		var ids []string
		err = svc.Serve(running, config.Handlers{"work": func(ctx context.Context, d *pubsub.Delivery) error {
			stop()
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
				t.Error("it was cancelled")
			}
			ids = append(ids, d.ID)
			return nil
		}})
		if err != nil || len(ids) != 1 {
			t.Fatalf("%v, handled %q", err, ids)
		}
		svc, err = config.Open(t.Context(), path, mux, nil)
		if err != nil {
			t.Fatal(err)
		}
		running, stop = context.WithCancel(t.Context())
		err = svc.Serve(running, config.Handlers{"work": func(_ context.Context, d *pubsub.Delivery) error {
			if ids = append(ids, d.ID); len(ids) == 3 {
				stop()
			}
			return nil
		}})
		if err != nil || strings.Join(ids, "") != "012" {
			t.Errorf("%v, handled %q", err, ids)
		}
	})
}

func TestHandlersAndSubscriptionsMatch(t *testing.T) {
	path := write(t, "broker: mem://\nsubscriptions:\n  billing: {topic: orders}\n  shipping: {topic: orders}\n")
	svc, err := config.Open(t.Context(), path, onMemory(), nil)
	if err != nil {
		t.Fatal(err)
	}
	never := func(context.Context, *pubsub.Delivery) error { t.Error("called"); return nil }
	err = svc.Serve(t.Context(), config.Handlers{"billing": never, "shippping": never})
	want := path + `:4: subscriptions.shipping: it has no handler; pass one as Handlers{"shipping": ...}, or remove the subscription
` + path + `:2: subscriptions: there is no subscription "shippping" that the program asks for; did you mean "shipping"?`
	if err == nil || err.Error() != want || !errors.Is(err, pubsub.ErrInvalid) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := svc.Broker().Ping(t.Context()); !errors.Is(err, pubsub.ErrClosed) {
		t.Errorf("%v, want ErrClosed: nothing is left open", err)
	}
}

// A SIGTERM while the subscriptions begin is a clean end, too.
func TestServeEndsBeforeItHasBegun(t *testing.T) {
	svc, err := config.Open(t.Context(), write(t, "broker: mem://\nsubscriptions:\n  b: {topic: a}\n"), onMemory(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := svc.Serve(ctx, config.Handlers{"b": func(context.Context, *pubsub.Delivery) error { return nil }}); err != nil {
		t.Error(err)
	}
}

func TestServeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc, err := config.Open(t.Context(), write(t, "broker: mem://\n"), onMemory(), nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- svc.Serve(ctx, nil) }()
		synctest.Wait()
		if err := svc.Serve(ctx, nil); err == nil || errors.Is(err, pubsub.ErrClosed) {
			t.Errorf("the second Serve returns %v", err)
		}
		if err := svc.Broker().Ping(ctx); err != nil {
			t.Errorf("the second Serve has closed the first's: %v", err)
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestPublishersAndSubscriptionsByName(t *testing.T) {
	path := write(t, "broker: mem://\npublishers:\n  exact: {dedup_by_id: true, ack: leader}\nsubscriptions:\n  billing: {topic: orders, group: b, start: earliest}\n")
	svc, err := config.Open(t.Context(), path, onMemory(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()
	p, err := svc.Publisher("exact")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Publish(t.Context(), "orders", pubsub.Message{ID: "1"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, svc.Broker(), pubsub.Place{Topic: "orders"}, ""); n != 1 {
		t.Errorf("%d messages, want 1: it deduplicates", n)
	}
	if _, err := svc.Publisher("exakt"); err == nil || !strings.HasSuffix(err.Error(), `did you mean "exact"?`) {
		t.Error(err)
	}
	sub, err := svc.Subscription("billing")
	if err != nil || sub.Topic != "orders" || sub.Group != "b" || sub.Start != pubsub.FromEarliest() {
		t.Errorf("%+v, %v", sub, err)
	}
	if _, err := svc.Subscription("shipping"); !errors.Is(err, pubsub.ErrInvalid) {
		t.Error(err)
	}
}

// What the broker refuses is told with the place in the file that asks for it, and its code.
func TestBrokerErrorsHaveALine(t *testing.T) {
	t.Setenv("OMNIBUS_TEST_PASSWORD", "s3cr3t")
	for text, want := range map[string]struct {
		says string
		code pubsub.Code
	}{
		"broker: kafka://app:${env:OMNIBUS_TEST_PASSWORD}@127.0.0.1:9092?sals=plain":              {`:1: broker: pubsub: open on kafka: invalid: unknown parameter "sals"`, pubsub.ErrInvalid},
		"service: x\nbroker: carrier-pigeon://${env:OMNIBUS_TEST_PASSWORD}":                       {`:2: broker: pubsub: open: invalid: unknown scheme "carrier-pigeon"`, pubsub.ErrInvalid},
		"broker: ${env:OMNIBUS_TEST_PASSWORD}":                                                    {`:1: broker: pubsub: open: invalid: the broker URL has no scheme`, pubsub.ErrInvalid},
		"broker: mem://\nsubscriptions:\n  b:\n    topic: a\n    group: '*'\n    start: earliest": {`:3: subscriptions.b: pubsub: subscribe "a" on memory: not supported`, pubsub.ErrUnsupported},
		"broker: mem://\nmanage: verify\nsubscriptions:\n  b: {topic: a}":                         {`:4: subscriptions.b: pubsub: ensure "a" on memory: not found`, pubsub.ErrNotFound},
		"broker: mem://\nmanage: verify\ntopics:\n  a: {partitions: 2}":                           {`:3: topics: pubsub: ensure "a" on memory: not found`, pubsub.ErrNotFound},
		"broker: mem://\nrequire:\n  durability: disk":                                            {`:1: broker: pubsub: open on memory: not supported: disk durability`, pubsub.ErrUnsupported},
	} {
		path := write(t, text)
		svc, err := config.Open(t.Context(), path, brokers.All(), nil)
		if err == nil {
			err = svc.Serve(t.Context(), config.Handlers{"b": func(context.Context, *pubsub.Delivery) error { return nil }})
		}
		if err == nil || !strings.HasPrefix(err.Error(), path+want.says) || !errors.Is(err, want.code) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s\n got %v\nwant %s%s", text, err, path, want.says)
		}
	}
}

// Check finds what an adapter says of its URL, and dials nobody.
func TestCheckDoesNotConnect(t *testing.T) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var dialed atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			dialed.Add(1)
			c.Close()
		}
	}()
	for _, scheme := range []string{"mem", "kafka", "amqp", "nats", "nats+core", "redis", "redis+cluster"} {
		address := scheme + "://" + l.Addr().String()
		if scheme == "mem" {
			address = "mem://x"
		}
		c, err := config.Load(write(t, "broker: "+address), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(brokers.All()); err != nil {
			t.Errorf("%s: %v", scheme, err)
		}
		if c, err = config.Load(write(t, "broker: "+address+"?colour=red"), nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Check(brokers.All()); !errors.Is(err, pubsub.ErrInvalid) || !strings.Contains(err.Error(), `:1: broker: pubsub: open on `) {
			t.Errorf("%s with an unknown parameter: %v", scheme, err)
		}
	}
	l.Close()
	<-done
	if n := dialed.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// A tool that does not have the program can still look at its file.
func TestUnbound(t *testing.T) {
	data, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.Parse("shop.yaml", data, nil); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("%v, want two problems: the layer and the failure of the program's own", err)
	}
	c, err := config.Parse("shop.yaml", data, &config.Options{Unbound: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context(), onMemory()); !errors.Is(err, pubsub.ErrInvalid) {
		t.Errorf("Open of it: %v", err)
	}
}
