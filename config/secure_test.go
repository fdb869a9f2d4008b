package config_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A pair is two services of one folder, each with a configuration and a keyring, and what became of the messages that one sends and the other handles.
type pair struct {
	t    *testing.T
	dir  string
	mux  pubsub.Mux
	sign security.Key // of orders
	wrap security.Key // for billing

	mu       sync.Mutex
	handled  []string
	refused  map[string]error // by ID
	from     security.Verified
	log      bytes.Buffer
	orders   *config.Service
	billing  *config.Service
	finished func()
}

const (
	ordersFile = `
broker: mem://pair
service: orders
middleware:
  - sign: {keyring: orders.keys, producer: orders, cover: [tenant]}
  - access: {policy: policy.json}
  - encrypt: {keyring: orders.keys, recipients: [billing]}
topics: {orders: {}, others: {}}
`
	billingFile = `
broker: mem://pair
service: billing
log: {level: info}
middleware:
  - sign: {keyring: "${env:RING}.keys", require: [tenant]}
  - access: {policy: policy.json}
  - replay
  - encrypt: {keyring: "${env:RING}.keys"}
subscriptions:
  bill: {topic: orders}
`
	policyFile = `{"publish": {"orders": [{"topics": ["orders", "others"], "types": ["order"]}], "rogue": [{"topics": ["others"], "types": [">"]}]}, "consume": {"billing": ["orders"]}}`
)

func (p *pair) keys(name string, keys ...security.Key) {
	p.t.Helper()
	text, err := security.EncodeKeys(keys...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.file(name, string(text))
}

// file puts a file into its place in one step.
func (p *pair) file(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path+".next", []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		p.t.Fatal(err)
	}
}

func keyPair(t *testing.T, suite security.Suite, id, owner string) (k, public security.Key) {
	t.Helper()
	k, err := security.GenerateKey(suite, id, owner)
	if err != nil {
		t.Fatal(err)
	}
	if public, err = k.Public(); err != nil {
		t.Fatal(err)
	}
	return k, public
}

// newPair opens and serves both. It is for a bubble: its log may be read when all is quiet.
func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, dir: t.TempDir(), mux: onMemory(), refused: map[string]error{}}
	sign, verify := keyPair(t, security.Ed25519, "orders-1", "orders")
	wrap, wrapFor := keyPair(t, security.HPKEX25519, "billing-1", "billing")
	p.sign, p.wrap = sign, wrap
	p.keys("orders.keys", sign, wrapFor)
	p.keys("billing.keys", verify, wrap)
	p.file("policy.json", policyFile)
	p.file("orders.yaml", ordersFile)
	p.file("billing.yaml", billingFile)
	p.orders = p.open("orders.yaml", nil)
	p.billing = p.open("billing.yaml", &config.Options{
		Logger: slog.New(slog.NewTextHandler(&p.log, nil)), Env: env(map[string]string{"RING": "billing"}),
		Adjust: func(_ string, s *pubsub.Subscription) {
			s.DeadLetter.OnDeadLetter = func(d *pubsub.Delivery, err error) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.refused[d.ID] = err
			}
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- p.billing.Serve(ctx, config.Handlers{"bill": func(ctx context.Context, d *pubsub.Delivery) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.from, _ = security.From(ctx)
			p.handled = append(p.handled, d.ID+": "+string(d.Payload))
			return nil
		}})
	}()
	synctest.Wait()
	p.finished = func() {
		stop()
		if err := errors.Join(<-served, p.orders.Close()); err != nil {
			t.Error(err)
		}
	}
	return p
}

func (p *pair) open(file string, opts *config.Options) *config.Service {
	p.t.Helper()
	s, err := config.Open(p.t.Context(), filepath.Join(p.dir, file), p.mux, opts)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *pair) publish(topic, id string) {
	p.t.Helper()
	if err := p.orders.Broker().Publish(p.t.Context(), topic, pubsub.Message{ID: id, Type: "order", Payload: []byte("3 apples")}); err != nil {
		p.t.Fatal(err)
	}
}

// settle waits until nothing happens any more, and returns what was handled since the last time.
func (p *pair) settle() string {
	p.t.Helper()
	rest(3 * time.Second) // more than a look at a keyring
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.handled = nil }()
	return strings.Join(p.handled, ", ")
}

// Layers of the file sign and encrypt what one service publishes, and give up in the other what somebody has changed, recorded or made up on the way.
func TestSignedAndEncrypted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.finished()
		// who has the broker and no keys sees what lies there, and puts it back as he likes
		thief, err := p.mux.Open(t.Context(), "mem://pair", &pubsub.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer thief.Close()
		p.publish("orders", "good")
		if got := p.settle(); got != "good: 3 apples" {
			t.Fatalf("handled %q, refused %v", got, p.refused)
		}
		if v := p.from; v.Producer != "orders" || v.Key != "orders-1" || v.Topic != "orders" {
			t.Errorf("signed: %+v", v)
		}
		wire := map[string]pubsub.Message{}
		look := func(topic string) {
			for r, err := range thief.Browse(t.Context(), pubsub.Place{Topic: topic}, pubsub.Position{}) {
				if err != nil {
					t.Fatal(err)
				}
				wire[r.Msg.ID] = *r.Msg
			}
		}
		p.publish("others", "elsewhere")
		look("orders")
		look("others")
		stolen := wire["good"]
		if bytes.Contains(stolen.Payload, []byte("apples")) || stolen.Headers.Get("omnisig") == "" || stolen.Headers.Get("omnienc") == "" {
			t.Errorf("on the wire it is %+v", stolen)
		}
		for name, c := range map[string]struct {
			change func(m *pubsub.Message)
			why    security.Refusal // 0 = it is not given up, and not handled either
		}{
			"again":          {func(*pubsub.Message) {}, 0},
			"another":        {func(m *pubsub.Message) { m.Payload[20] ^= 1 }, security.ErrForged},
			"renamed":        {func(m *pubsub.Message) { m.ID = "renamed" }, security.ErrForged},
			"another-tenant": {func(m *pubsub.Message) { m.Headers.Add("tenant", "x") }, security.ErrForged},
			"unsigned":       {func(m *pubsub.Message) { m.Headers.Del("omnisig") }, security.ErrUnsigned},
			"plain":          {func(m *pubsub.Message) { m.Headers, m.Payload = nil, []byte("3 apples") }, security.ErrUnsigned},
			"elsewhere":      {func(m *pubsub.Message) { *m = wire["elsewhere"] }, security.ErrWrongDestination},
		} {
			m := stolen
			m.Payload, m.Headers, m.Delay, m.TTL = bytes.Clone(stolen.Payload), append(pubsub.Headers(nil), stolen.Headers...), 0, 0
			c.change(&m)
			p.refused = map[string]error{}
			if err := thief.Publish(t.Context(), "orders", m); err != nil {
				t.Fatal(name, err)
			}
			got := p.settle()
			why, _ := errors.AsType[security.Refusal](p.refused[m.ID])
			if got != "" || why != c.why {
				t.Errorf("%s: handled %q, given up for %v", name, got, p.refused)
			}
		}
		if err := p.orders.Broker().Publish(t.Context(), "orders", pubsub.Message{Type: "refund"}); !errors.Is(err, pubsub.ErrDenied) {
			t.Errorf("what the policy does not let it publish: %v", err)
		}
		p.publish("orders", "last")
		if got := p.settle(); got != "last: 3 apples" {
			t.Errorf("handled %q, refused %v", got, p.refused)
		}
	})
}

// A changed keyring counts without a restart, for all layers that have it; one that cannot be used changes nothing, and the log says so.
func TestKeyringsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.finished()
		sign, verify := keyPair(t, security.P256, "orders-2", "orders")
		wrap, wrapFor := keyPair(t, security.HPKEP256, "billing-2", "billing")
		before, err := p.sign.Public()
		if err != nil {
			t.Fatal(err)
		}
		p.keys("billing.keys", before, verify, p.wrap.With(security.Passive), wrap)
		rest(2 * time.Second)
		p.keys("orders.keys", p.sign.With(security.Passive), sign, wrapFor)
		rest(2 * time.Second)
		p.publish("orders", "new")
		if got := p.settle(); got != "new: 3 apples" || p.from.Key != "orders-2" {
			t.Errorf("handled %q with %s, refused %v", got, p.from.Key, p.refused)
		}
		p.file("billing.keys", "{")
		p.publish("orders", "broken")
		if got := p.settle(); got != "broken: 3 apples" {
			t.Errorf("handled %q, refused %v", got, p.refused)
		}
		p.keys("billing.keys", before, verify.With(security.Revoked), wrap)
		rest(2 * time.Second)
		p.publish("orders", "revoked")
		if got := p.settle(); got != "" || !errors.Is(p.refused["revoked"], security.ErrUnknownKey) {
			t.Errorf("handled %q, refused %v", got, p.refused)
		}
		if log := p.log.String(); strings.Count(log, "keyring changed") != 2 || strings.Count(log, "changed keyring refused") != 1 {
			t.Errorf("the log says %s", log)
		}
	})
}

// A policy is read once: what a changed one takes away is not taken away by a Reload, so that says it.
func TestReloadSeesAChangedPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		defer p.finished()
		want := func(restart ...string) {
			t.Helper()
			if r, err := p.billing.Reload(); err != nil || !slices.Equal(r.Restart, restart) || r.Applied != nil {
				t.Errorf("%+v, %v; want a restart for %q", r, err, restart)
			}
		}
		want()
		p.file("policy.json", strings.Replace(policyFile, `"orders", "others"`, `"others"`, 1))
		want("middleware[1].access.policy")
		p.file("policy.json", policyFile)
		want()
	})
}

// A tool has the file, and neither the keyrings nor the right to read them; layers are looked at all the same.
func TestUnboundNeedsNoKeyring(t *testing.T) {
	const file = "broker: mem://\nmiddleware:\n  - sign: {keyring: nothing.keys, producer: orders}\n  - encrypt: {keyring: nothing.keys, recipients: [billing]}\n"
	if _, err := config.Parse("o.yaml", []byte(file), &config.Options{Unbound: true}); err != nil {
		t.Error(err)
	}
	for problem, text := range map[string]string{
		"no signature can cover": strings.Replace(file, "producer:", "cover: [X], producer:", 1),
		"nobody says who":        strings.Replace(file, ", producer: orders", "", 1),
		"needs to know who":      strings.Replace(file, "  - sign: {keyring: nothing.keys, producer: orders}\n", "", 1),
	} {
		if _, err := config.Parse("o.yaml", []byte(text), &config.Options{Unbound: true}); err == nil || !strings.Contains(fmt.Sprint(err), problem) {
			t.Errorf("%v, want one that says %q", err, problem)
		}
	}
}
