package programs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"
	"sync/atomic"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A bulk load: a message a line at full speed, the fate of each one known, and a second load that changes nothing because the
// broker recognises the ids.
func Example_lines() {
	ctx := context.Background()
	b := memory.New(nil)
	defer b.Close()
	err := b.Ensure(ctx, pubsub.Topology{
		Topics: []pubsub.TopicSpec{{Name: "lines", Partitions: 4}},
		Groups: []pubsub.Subscription{{Topic: "lines", Group: "indexer"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	p, err := b.Publisher(pubsub.PublisherOptions{DedupByID: true})
	if err != nil {
		log.Fatal(err)
	}
	text := strings.Repeat("a line\n", 1000)
	for range 2 {
		if err := load(ctx, p, strings.NewReader(text)); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(lag(ctx, b), "to index after loading 1000 lines twice")
	if err := loadAllOrNothing(ctx, b, strings.NewReader(text)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(lag(ctx, b), "to index after loading them without ids")
	// Output:
	// 1000 sent, 0 unknown, 0 refused
	// 1000 sent, 0 unknown, 0 refused
	// 1000 to index after loading 1000 lines twice
	// 2000 to index after loading them without ids
}

func lag(ctx context.Context, b *pubsub.Broker) int64 {
	l, err := b.Lag(ctx, "lines", "indexer")
	if err != nil {
		log.Fatal(err)
	}
	return l.Messages
}

// load publishes a line a message at full speed and reports each one that failed.
func load(ctx context.Context, p pubsub.Publisher, r io.Reader) error {
	var sent, unknown, refused atomic.Int64
	done := func(rc pubsub.Receipt, err error) { // one function for all: nothing allocated per message
		switch {
		case err == nil:
			sent.Add(1)
		case errors.Is(err, pubsub.ErrUnconfirmed):
			unknown.Add(1) // may be there: publish again with the same ID
		default:
			refused.Add(1)
			log.Printf("line %s: %v", rc.ID, err)
		}
	}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		p.PublishAsync(ctx, "lines", pubsub.Message{ID: fmt.Sprint(n), Payload: []byte(lines.Text())}, done)
	}
	err := p.Flush(ctx)
	fmt.Printf("%d sent, %d unknown, %d refused\n", sent.Load(), unknown.Load(), refused.Load())
	return errors.Join(lines.Err(), err)
}

// loadAllOrNothing does not look at single messages: Flush returns whatever went wrong.
func loadAllOrNothing(ctx context.Context, p pubsub.Publisher, r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		p.PublishAsync(ctx, "lines", pubsub.Message{Payload: []byte(lines.Text())}, nil)
	}
	return errors.Join(lines.Err(), p.Flush(ctx))
}
