package programs_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// Testing one's own handler. What is under test:

var (
	errNegative = errors.New("negative amount")
	errOutage   = errors.New("the payment provider is down")
)

var billingSub = pubsub.Subscription{
	Topic: "orders", Group: "billing",
	Retry: pubsub.Policy{MaxAttempts: 20, Max: 10 * time.Minute},
	Rules: []pubsub.Rule{{Category: "outage", When: func(err error) bool { return errors.Is(err, errOutage) }, Retry: pubsub.Policy{MaxAttempts: 20, Max: 10 * time.Minute}}},
}

// bill charges an order and publishes the invoice.
func bill(provider *payments, out pubsub.Publisher) pubsub.Handler {
	return func(ctx context.Context, d *pubsub.Delivery) error {
		var order struct{ Cents int }
		if err := json.Unmarshal(d.Payload, &order); err != nil {
			return pubsub.Permanent(err)
		}
		if order.Cents < 0 {
			return pubsub.Permanent(errNegative)
		}
		if err := provider.charge(d.ID); err != nil {
			return err
		}
		return out.Publish(ctx, "invoices", pubsub.Message{ID: d.ID, Type: "invoice", Payload: d.Payload})
	}
}

// payments is down for a while from its first call on, and charges an id once.
type payments struct {
	downFor time.Duration

	mu      sync.Mutex
	first   time.Time
	charged map[string]bool
}

func (p *payments) charge(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.first.IsZero() {
		p.first, p.charged = time.Now(), map[string]bool{}
	}
	if time.Since(p.first) < p.downFor {
		return errOutage
	}
	p.charged[id] = true
	return nil
}

// A handler is a function of plain data: no broker needed.
func TestBillRefusesNegative(t *testing.T) {
	err := bill(&payments{}, nil)(t.Context(), &pubsub.Delivery{Message: pubsub.Message{Payload: []byte(`{"cents":-1}`)}, Attempt: 1})
	if !errors.Is(err, errNegative) {
		t.Fatalf("got %v, want %v", err, errNegative)
	}
}

// Retries over hours, in no time.
func TestBillOutlivesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, nil, "invoices")
		provider := &payments{downFor: 10 * time.Minute}
		fate := b.Deliver(billingSub, bill(provider, b), pubsub.Message{Payload: []byte(`{"cents":1999}`)})[0]
		if !fate.Acked || fate.Elapsed < 10*time.Minute || len(provider.charged) != 1 {
			t.Errorf("charged %d times; %v", len(provider.charged), fate)
		}
		pubsubtest.WantMessages(t, b.Published("invoices"), pubsub.Message{Type: "invoice", Payload: []byte(`{"cents": 1999}`)})
	})
}

func TestBillGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fate := pubsubtest.Deliver(t, billingSub, bill(&payments{downFor: 1000 * time.Hour}, nil), pubsub.Message{Payload: []byte(`{"cents":1999}`)})
		fate.Want(t, pubsubtest.Fate{Attempts: 20, Reason: "max-attempts", Category: "outage", Err: errOutage})
	})
}

// The invoice may be there or not: the order is tried again, is charged once, and the invoice has the same id.
func TestBillPublishesAgainWhatIsUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, nil, "invoices")
		b.FailPublish(2, pubsub.ErrUnconfirmed) // the first is the order itself
		provider := &payments{}
		fate := b.Deliver(billingSub, bill(provider, b), pubsub.Message{ID: "o-1", Payload: []byte(`{"cents":1999}`)})[0]
		fate.Want(t, pubsubtest.Fate{Acked: true, Attempts: 2})
		if len(provider.charged) != 1 {
			t.Errorf("charged %v", provider.charged)
		}
		pubsubtest.WantMessages(t, b.Published("invoices"), pubsub.Message{ID: "o-1"}, pubsub.Message{ID: "o-1"})
	})
}

// The service as a whole: it stops when it is told to, and leaves nothing behind.
func TestBillingStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, nil, "invoices")
		running, stop := context.WithCancel(t.Context())
		if _, err := b.Subscribe(running, billingSub, bill(&payments{downFor: time.Minute}, b)); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- b.Run(running) }()
		for range 100 {
			if err := b.Publish(t.Context(), "orders", pubsub.Message{Payload: []byte(`{"cents":1999}`)}); err != nil {
				t.Fatal(err)
			}
		}
		b.WaitIdle()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := len(b.Published("invoices")); n != 100 {
			t.Errorf("%d invoices", n)
		}
	})
}
