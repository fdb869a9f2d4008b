// Command groups shows who gets a message: the members of a group share them (competing consumers), every group gets all (fan-out), and
// so does every consumer that broadcasts are for.
//
//	go run ./examples/groups
//	BROKER_URL=nats://127.0.0.1:4222 go run ./examples/groups
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/pubsub"
)

func main() {
	if err := run(context.Background(), cmp.Or(os.Getenv("BROKER_URL"), "mem://")); err != nil {
		log.Fatal(err)
	}
}

const (
	parcels = 60
	packers = 3
	screens = 2
)

func run(ctx context.Context, url string) (err error) {
	b, err := brokers.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	running, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	topic := pubsub.TopicSpec{Name: "parcels"}
	if b.Capabilities().Partitions {
		topic.Partitions = 2 * packers // on some brokers a partition is with one member: there are to be enough for all
	}
	if err := b.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{topic}}); err != nil {
		return err
	}
	t := &tally{got: map[string]map[string]int{}, left: parcels * (1 + 1 + screens), done: stop, together: make(chan struct{})}

	// One group, three members: in production each is another process. Without an order every member takes what comes next; by key
	// (the zero Order) one customer's parcels would stay one after the other, and on some brokers with one member at a time. A small
	// MaxInFlight keeps the first member from fetching all that there is.
	packing := pubsub.Subscription{Topic: "parcels", Group: "packing", Order: pubsub.OrderNone, MaxInFlight: 8}
	for i := range packers {
		if _, err := b.Subscribe(running, packing, t.meet(fmt.Sprint("packer ", i+1))); err != nil {
			return err
		}
	}
	// Another group gets all of them, too, whatever the first one does.
	if _, err := b.Subscribe(running, pubsub.Subscription{Topic: "parcels", Group: "customs"}, t.count("customs")); err != nil {
		return err
	}
	// Without a group: each screen shows all that comes while it is on, and nothing is kept for it.
	for i := range screens {
		screen := pubsub.Subscription{Topic: "parcels", Group: pubsub.Broadcast}
		if _, err := b.Subscribe(running, screen, t.count(fmt.Sprint("screen ", i+1))); err != nil {
			return err
		}
	}

	msgs := make([]pubsub.Message, parcels)
	for i := range msgs {
		msgs[i].ID, msgs[i].Key = fmt.Sprint("parcel ", i+1), fmt.Sprint("customer ", i%20+1)
	}
	if err := b.PublishBatch(ctx, "parcels", msgs); err != nil {
		return err
	}
	if err := b.Run(running); err != nil {
		return err
	}
	t.print()
	return nil
}

// A tally counts who has got which parcel.
type tally struct {
	mu       sync.Mutex
	got      map[string]map[string]int // by consumer and parcel
	left     int
	done     func()
	met      int
	together chan struct{} // closed once every packer has a parcel
}

func (t *tally) count(consumer string) pubsub.Handler {
	t.got[consumer] = map[string]int{}
	return func(_ context.Context, d *pubsub.Delivery) error {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.got[consumer][d.ID]++
		if t.left--; t.left == 0 {
			t.done()
		}
		return nil
	}
}

// meet is count of a packer who holds the first parcel until the others have one: they work at the same time.
func (t *tally) meet(consumer string) pubsub.Handler {
	count := t.count(consumer)
	var first sync.Once
	return func(ctx context.Context, d *pubsub.Delivery) error {
		first.Do(func() {
			t.mu.Lock()
			if t.met++; t.met == packers {
				close(t.together)
			}
			t.mu.Unlock()
		})
		select {
		case <-t.together:
			return count(ctx, d)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *tally) print() {
	t.mu.Lock()
	defer t.mu.Unlock()
	packed, working := map[string]int{}, 0
	for i := range packers {
		mine := t.got[fmt.Sprint("packer ", i+1)]
		if len(mine) > 0 {
			working++
		}
		for id, n := range mine {
			packed[id] += n
		}
	}
	fmt.Printf("packing: %d parcels, %d of them once, by %d members\n", len(packed), once(packed), working)
	for _, consumer := range []string{"customs", "screen 1", "screen 2"} {
		fmt.Printf("%s: %d parcels, %d of them once\n", consumer, len(t.got[consumer]), once(t.got[consumer]))
	}
}

func once(counts map[string]int) (n int) {
	for _, c := range counts {
		if c == 1 {
			n++
		}
	}
	return n
}
