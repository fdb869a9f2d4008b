// Command orders is a service whose messaging is one file: omnibus.yaml says which broker it is, who consumes what, and how failures
// are handled. The program has the handlers, and is the same on every broker. With a number it makes so many orders, and the last line that
// it prints is the same wherever they went.
//
//	go run ./examples/orders examples/orders/omnibus.yaml
//	BROKER_URL=nats://127.0.0.1:4222 go run ./examples/orders examples/orders/omnibus.yaml 10000
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/pubsub"
)

// An Order is what the shop publishes.
type Order struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Cents    int64  `json:"cents"`
}

var orderPlaced = pubsub.Typed[Order]{
	Type: "order.placed",
	Key:  func(o Order) string { return o.Customer },
}

var errDeclined = errors.New("card declined")

func main() {
	file, n, err := arguments(os.Args[1:])
	if err == nil {
		err = run(context.Background(), file, n)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// arguments are the file, and how many orders there are to be.
func arguments(args []string) (file string, n int, err error) {
	n = 3
	if len(args) == 2 {
		n, err = strconv.Atoi(args[1])
	}
	if len(args) < 1 || len(args) > 2 || err != nil || n < 1 {
		return "", 0, errors.New("usage: orders omnibus.yaml [number of orders]")
	}
	return args[0], n, nil
}

func run(ctx context.Context, file string, n int) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	// What becomes of all orders ends this example; a service has none of this, and runs until SIGTERM.
	all := &outcomes{lines: map[string]string{}, want: 2 * n, full: stop}

	svc, err := config.Open(ctx, file, brokers.All(), &config.Options{
		// what the file calls "declined"
		Failures: map[string]func(error) bool{"declined": func(err error) bool { return errors.Is(err, errDeclined) }},
		// what a file cannot say
		Adjust: func(name string, sub *pubsub.Subscription) {
			sub.DeadLetter.OnDeadLetter = func(d *pubsub.Delivery, err error) {
				all.add(d.ID+" "+name, fmt.Sprintf("%s gave up %s: %v (%s)", name, d.ID, err, pubsub.CategoryOf(err)))
			}
		},
	})
	if err != nil {
		return err // all that is wrong with the file, each with its line
	}

	bill := func(_ context.Context, o Order, d *pubsub.Delivery) error {
		if err := charge(o, d.Attempt); err != nil {
			return err // a timeout is retried, a declined card is not: the file says so
		}
		all.add(o.ID+" "+d.Group, fmt.Sprintf("billed %s in attempt %d", o.ID, d.Attempt))
		return nil
	}
	ship := func(_ context.Context, o Order, d *pubsub.Delivery) error {
		all.add(o.ID+" "+d.Group, "shipped "+o.ID)
		return nil
	}

	// The topic and its groups are at the broker by now: what is published before Serve is not lost.
	for batch := range slices.Chunk(orders(n), 500) {
		var msgs []pubsub.Message
		for _, o := range batch {
			m, err := orderPlaced.Message(o)
			if err != nil {
				return errors.Join(err, svc.Close())
			}
			m.ID = o.ID
			msgs = append(msgs, m)
		}
		if err := svc.Broker().PublishBatch(ctx, "orders", msgs); err != nil {
			return errors.Join(err, svc.Close())
		}
	}
	if err := svc.Serve(ctx, config.Handlers{"billing": orderPlaced.Handler(bill), "shipping": orderPlaced.Handler(ship)}); err != nil {
		return err
	}
	fmt.Println(all.summary())
	return nil
}

// orders are o-1, o-2 and so on. One in twenty costs nothing.
func orders(n int) (all []Order) {
	for i := 1; i <= n; i++ {
		o := Order{ID: fmt.Sprint("o-", i), Customer: fmt.Sprint("c-", i%97), Cents: 1999}
		if i%20 == 3 {
			o.Cents = 0
		}
		all = append(all, o)
	}
	return all
}

// charge stands for a payment gateway: it is late once for some orders, and takes no card for nothing.
func charge(o Order, attempt int) error {
	switch {
	case strings.HasSuffix(o.ID, "2") && attempt == 1:
		return os.ErrDeadlineExceeded
	case o.Cents == 0:
		return errDeclined
	}
	return nil
}

// outcomes are what became of each order in each group. A message may come twice: that is no other outcome.
type outcomes struct {
	want int
	full func() // called when there are so many

	mu    sync.Mutex
	lines map[string]string // by order and group
}

func (a *outcomes) add(of, line string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.lines[of]; known {
		return
	}
	a.lines[of] = line
	if a.want < 10 {
		fmt.Println(line)
	}
	if len(a.lines) == a.want {
		a.full()
	}
}

// summary is a hash of all outcomes in the order of their texts: which came first differs from run to run.
func (a *outcomes) summary() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, failed := sha256.New(), 0
	for _, line := range slices.Sorted(maps.Values(a.lines)) {
		fmt.Fprintln(h, line)
		if strings.Contains(line, " gave up ") {
			failed++
		}
	}
	return fmt.Sprintf("%d outcomes, %d of them given up: %x", len(a.lines), failed, h.Sum(nil)[:8])
}
