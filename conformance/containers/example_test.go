package containers_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A real broker that a test kills while somebody uses it. It needs Docker, and the images that `make setup` gets.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	server, err := containers.Start(ctx, "nats", "default")
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close(context.WithoutCancel(ctx))
	b, err := brokers.Open(ctx, server.URL(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	if err := b.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "orders"}}}); err != nil {
		log.Fatal(err)
	}
	if err := server.Kill(ctx); err != nil {
		log.Fatal(err)
	}
	b.PublishAsync(ctx, "orders", pubsub.Message{}, func(_ pubsub.Receipt, err error) { fmt.Println(err) }) // waits until it is back
	if err := server.Restart(ctx); err != nil {
		log.Fatal(err)
	}
	if err := b.Flush(ctx); err != nil {
		log.Fatal(err)
	}
}
