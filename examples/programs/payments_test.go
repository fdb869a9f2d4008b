package programs_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Layers around a service, listed once for both directions.
func Example_middleware() {
	ctx := context.Background()
	running, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()

	b, err := pubsub.Mux{memory.Opener()}.Open(ctx, "mem://", &pubsub.Options{
		Service: "checkout",
		//  wire
		//   │ in: decompress, validate, log, time out
		Use: []pubsub.Middleware{
			middleware.Compress(1 << 10),
			middleware.Validate(map[string]func(*pubsub.Message) error{"payment.made": hasCents}),
			middleware.Log(slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: withoutTimes}))),
			middleware.Timeout(30 * time.Second),
		},
		//   │ out: validate, compress
		//  application
	})
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	// a topic and its groups exist before the first publish: nothing is lost, on any broker
	err = b.Ensure(ctx, pubsub.Topology{
		Topics: []pubsub.TopicSpec{{Name: "payments"}},
		Groups: []pubsub.Subscription{{Topic: "payments", Group: "ledger"}},
	})
	if err != nil {
		log.Fatal(err)
	}

	msg := pubsub.Message{ID: "p-1", Type: "payment.made", Payload: []byte(`{"cents":1999,"note":"` + strings.Repeat("thanks ", 500) + `"}`)}
	if err := b.Publish(ctx, "payments", msg); err != nil {
		log.Fatal(err)
	}
	fmt.Println(b.Publish(ctx, "payments", pubsub.Message{ID: "p-2", Type: "payment.made", Payload: []byte(`{}`)}))

	_, err = b.Subscribe(running, pubsub.Subscription{Topic: "payments", Group: "ledger"}, func(_ context.Context, d *pubsub.Delivery) error {
		fmt.Println("booked", d.ID, "of", len(d.Payload), "bytes;", "less than 200 on the wire:", len(d.Raw().Payload) < 200)
		stop()
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := b.Run(running); err != nil {
		log.Fatal(err)
	}
	// Output:
	// pubsub: publish "payments" on memory: refused by middleware: validate: no amount
	// booked p-1 of 3524 bytes; less than 200 on the wire: true
	// level=DEBUG msg=handled topic=payments group=ledger id=p-1 type=payment.made attempt=1
}

func hasCents(m *pubsub.Message) error {
	if !strings.Contains(string(m.Payload), `"cents":`) {
		return fmt.Errorf("no amount")
	}
	return nil
}

// withoutTimes leaves out what is different in each run.
func withoutTimes(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey || a.Key == "took" {
		return slog.Attr{}
	}
	return a
}
