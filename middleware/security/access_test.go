package security_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

const policyText = `{
	"publish": {
		"orders": [{"topics": ["orders.>"], "types": ["order.*"]}, {"topics": ["audit"], "types": [">"]}],
		"ledger": [{"topics": ["ledger.booked"], "types": ["entry"]}]
	},
	"consume": {"billing": ["orders.placed", "ledger.*"]}
}`

func policy(t *testing.T) *security.Policy {
	t.Helper()
	p, err := security.DecodePolicy([]byte(policyText))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPolicy(t *testing.T) {
	p := policy(t)
	for _, c := range []struct {
		who, topic, kind string
		may              bool
	}{
		{"orders", "orders.placed", "order.placed", true},
		{"orders", "orders.eu.placed", "order.placed", true},
		{"orders", "orders", "order.placed", false},
		{"orders", "orders.placed", "order", false},
		{"orders", "orders.placed", "order.placed.v2", false},
		{"orders", "orders.placed", "", false},
		{"orders", "audit", "order.placed", true},
		{"orders", "audit", "anything", true},
		{"orders", "ledger.booked", "entry", false},
		{"ledger", "ledger.booked", "entry", true},
		{"ledger", "orders.placed", "order.placed", false},
		{"nobody", "orders.placed", "order.placed", false},
		{"", "orders.placed", "order.placed", false},
	} {
		if got := p.MayPublish(c.who, c.topic, c.kind); got != c.may {
			t.Errorf("%q may publish %q to %q: %v", c.who, c.kind, c.topic, got)
		}
	}
	for topic, may := range map[string]bool{"orders.placed": true, "orders.paid": false, "ledger.booked": true, "ledger.eu.booked": false} {
		if got := p.MayConsume("billing", topic); got != may {
			t.Errorf("billing may consume %q: %v", topic, got)
		}
	}
	if p.MayConsume("orders", "orders.placed") {
		t.Error("who is not named may consume")
	}
	for text, says := range map[string]string{
		`{"publish": {"a": [{"topics": ["x"]}]}}`:                     "publish.a[0].types is empty",
		`{"publish": {"a": [{"topics": [], "types": [">"]}]}}`:        "publish.a[0].topics is empty",
		`{"publish": {"a": [{"topics": ["a.>.b"], "types": [">"]}]}}`: `"a.>.b"`,
		`{"publish": {"a": [{"topics": ["a..b"], "types": [">"]}]}}`:  `"a..b"`,
		`{"consume": {"a": []}}`:                                      "consume.a is empty",
		`{"consume": {"a": [""]}}`:                                    `""`,
		`{"consumes": {}}`:                                            "consumes",
		`{"consume": {"a": ["x"], "a": [">"]}}`:                       `"a" is there twice`,
		`{"consume": {"a": ["x"]}, "consume": {}}`:                    `"consume" is there twice`,
		`{}`:    "allows nothing",
		`null`:  "allows nothing",
		`{} {}`: "follows",
		`[]`:    "policy",
		`{"publish": {"a": [{"topics": ["x"], "types": [">"], "z":1}]}}`: "z",
	} {
		if _, err := security.DecodePolicy([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error that says %s", text, err, says)
		}
	}
}

func TestAccess(t *testing.T) {
	orders, ledger := key(t, security.Ed25519, "o", "orders"), key(t, security.Ed25519, "l", "ledger")
	r := ring(t, orders, ledger)
	sign := func(who string) pubsub.Middleware {
		return security.Sign(security.SignOptions{Keys: r, Producer: who})
	}
	billing := security.Access("billing", policy(t))
	if got, err := receive(t.Context(), "orders.placed", mustSend(t, "orders.placed", order(), sign("orders"), security.Access("orders", policy(t))), sign(""), billing); got == nil || err != nil {
		t.Errorf("what is allowed is refused: %v", err)
	}
	// the guard-rail at the publisher
	if _, err := send("orders.placed", order(), sign("ledger"), security.Access("ledger", policy(t))); !errors.Is(err, pubsub.ErrDenied) {
		t.Errorf("ledger publishes an order: %v", err)
	}
	// the control at the consumer, where the publisher has no guard-rail
	wantRefused(t, "orders.placed", mustSend(t, "orders.placed", order(), sign("ledger")), security.ErrDenied, sign(""), billing)
	wantPaused(t, order(), billing)
	other := order()
	other.Type = "refund"
	wantRefused(t, "orders.placed", mustSend(t, "orders.placed", other, sign("orders")), security.ErrDenied, sign(""), billing)

	// a service that must not consume keeps what it must not see
	got, err := receive(t.Context(), "orders.paid", mustSend(t, "orders.paid", order(), sign("orders")), sign(""), billing)
	if outcome, d := pubsub.OutcomeOf(err); got != nil || outcome != pubsub.OutcomePause || d != time.Minute || !errors.Is(err, security.ErrDenied) {
		t.Errorf("billing consumes what it must not: %v, %v", got, err)
	}
	for says, m := range map[string]pubsub.Middleware{
		"nil": security.Access("a", nil), "name": security.Access("", policy(t)), "empty": security.Access("a", &security.Policy{Consume: map[string][]string{"a": nil}}),
	} {
		if m.Err == nil || !strings.Contains(m.Err.Error(), says) {
			t.Errorf("%v, want an error that says %s", m.Err, says)
		}
	}
}
