package memory_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// backlog is how far a publisher may be ahead of the handlers: without a bound it would fill the broker instead.
const backlog = 8192

// BenchmarkPublishHandleAck is the memory row of the targets: 256 bytes from publish through the handler to the ack.
func BenchmarkPublishHandleAck(b *testing.B) {
	for _, w := range []struct{ workers, keys int }{{1, 0}, {16, 10000}} {
		for _, how := range []string{"async", "blocking"} {
			b.Run(fmt.Sprintf("%s/workers=%d/keys=%d", how, w.workers, w.keys), func(b *testing.B) {
				br := memory.New(nil)
				defer br.Close()
				var n atomic.Int64
				caughtUp := make(chan struct{}, 1)
				_, err := br.Subscribe(context.Background(), pubsub.Subscription{Topic: "t", Group: "g", Concurrency: w.workers, MaxInFlight: 4096},
					func(context.Context, *pubsub.Delivery) error {
						if n.Add(1)%(backlog/4) == 0 {
							select {
							case caughtUp <- struct{}{}:
							default:
							}
						}
						return nil
					})
				if err != nil {
					b.Fatal(err)
				}
				keys := make([]string, max(w.keys, 1))
				for i := range keys {
					if w.keys > 0 {
						keys[i] = fmt.Sprint("key-", i)
					}
				}
				payload := make([]byte, 256)
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					m := pubsub.Message{Key: keys[i%len(keys)], Payload: payload}
					if how == "async" {
						br.PublishAsync(context.Background(), "t", m, nil)
					} else if err := br.Publish(context.Background(), "t", m); err != nil {
						b.Fatal(err)
					}
					for int64(i)-n.Load() > backlog {
						<-caughtUp
					}
				}
				for n.Load() < int64(b.N) {
					runtime.Gosched()
				}
			})
		}
	}
}
