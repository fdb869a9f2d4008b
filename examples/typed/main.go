// Command typed gives handlers Go values instead of bytes: several types of events in one topic, each with a handler of its own, one of
// them in a format that is not JSON. What cannot be decoded never reaches a handler: it is kept in the dead letters, as it came.
//
//	go run ./examples/typed
//	BROKER_URL=nats://127.0.0.1:4222 go run ./examples/typed
package main

import (
	"cmp"
	"context"
	"encoding"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Placed is an order that was placed.
type Placed struct {
	Order    string   `json:"order"`
	Customer string   `json:"customer"`
	Items    []string `json:"items"`
}

// Canceled is an order that was taken back.
type Canceled struct {
	Order    string `json:"order"`
	Customer string `json:"customer"`
	Reason   string `json:"reason"`
}

// A Scan is what a device at the gate sends: "o-1@gate 7".
type Scan struct{ Order, Gate string }

var errNoGate = errors.New("a scan without a gate")

// MarshalText writes a Scan as the device does.
func (s Scan) MarshalText() ([]byte, error) {
	if s.Gate == "" {
		return nil, errNoGate
	}
	return []byte(s.Order + "@" + s.Gate), nil
}

// UnmarshalText reads what the device has written.
func (s *Scan) UnmarshalText(text []byte) error {
	var ok bool
	if s.Order, s.Gate, ok = strings.Cut(string(text), "@"); !ok {
		return errNoGate
	}
	return nil
}

// Each type is bound to its messages once, for publishers and handlers alike. A customer's events stay in order, whatever their types.
var (
	placed   = pubsub.Typed[Placed]{Type: "order.placed", Key: func(p Placed) string { return p.Customer }}
	canceled = pubsub.Typed[Canceled]{Type: "order.canceled", Key: func(c Canceled) string { return c.Customer }}
	scanned  = pubsub.Typed[Scan]{Type: "parcel.scanned", Codec: text{}}
)

// text is the codec of what can write itself as text.
type text struct{}

func (text) ContentType() string { return "text/plain" }

func (text) Marshal(v any) ([]byte, error) {
	m, ok := v.(encoding.TextMarshaler)
	if !ok {
		return nil, fmt.Errorf("%T cannot be written as text", v)
	}
	return m.MarshalText()
}

func (text) Unmarshal(data []byte, v any) error {
	u, ok := v.(encoding.TextUnmarshaler)
	if !ok {
		return fmt.Errorf("%T cannot be read from text", v)
	}
	return u.UnmarshalText(data)
}

func main() {
	if err := run(context.Background(), cmp.Or(os.Getenv("BROKER_URL"), "mem://")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, url string) (err error) {
	running, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	b, err := brokers.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()

	var left atomic.Int32
	left.Store(5)
	done := func() {
		if left.Add(-1) == 0 {
			stop()
		}
	}
	onPlaced := func(_ context.Context, p Placed, _ *pubsub.Delivery) error {
		fmt.Printf("%s placed %s: %s\n", p.Customer, p.Order, strings.Join(p.Items, ", "))
		done()
		return nil
	}
	onCanceled := func(_ context.Context, c Canceled, _ *pubsub.Delivery) error {
		fmt.Printf("%s canceled %s: %s\n", c.Customer, c.Order, c.Reason)
		done()
		return nil
	}
	onScanned := func(_ context.Context, s Scan, d *pubsub.Delivery) error {
		fmt.Printf("%s passed %s (%s)\n", s.Order, s.Gate, d.ContentType)
		done()
		return nil
	}
	sub := pubsub.Subscription{
		Topic: "events", Group: "typed",
		DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(d *pubsub.Delivery, _ error) {
			fmt.Printf("kept in the dead letters, %s: %s\n", d.Type, d.Payload)
			done()
		}},
	}
	_, err = b.Subscribe(running, sub, pubsub.ByType(map[string]pubsub.Handler{
		placed.Type:   placed.Handler(onPlaced),
		canceled.Type: canceled.Handler(onCanceled),
		scanned.Type:  scanned.Handler(onScanned),
		// With an entry "" here the rest is handled, too; without, it is kept in the dead letters.
	}))
	if err != nil {
		return err
	}

	err = errors.Join(
		placed.Publish(ctx, b, "events", Placed{"o-1", "ann", []string{"tea", "milk"}}),
		canceled.Publish(ctx, b, "events", Canceled{"o-1", "ann", "too late"}),
		scanned.Publish(ctx, b, "events", Scan{"o-1", "gate 7"}),
		// what others publish may be wrong
		b.Publish(ctx, "events", pubsub.Message{Type: placed.Type, Payload: []byte(`{"order":`)}),
		b.Publish(ctx, "events", pubsub.Message{Type: "order.lost", Payload: []byte(`{"order":"o-2"}`)}),
	)
	if err != nil {
		return err
	}
	if err := b.Run(running); err != nil {
		return err
	}
	if n := left.Load(); n > 0 {
		return fmt.Errorf("%d outcomes did not come", n)
	}
	return nil
}
