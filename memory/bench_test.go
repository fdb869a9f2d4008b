package memory_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

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

// BenchmarkDriver is the broker's own share: publish, deliver and ack through the driver alone, in batches of 256.
func BenchmarkDriver(b *testing.B) {
	for _, parts := range []int{1, 4} {
		b.Run(fmt.Sprint("partitions=", parts), func(b *testing.B) { throughDriver(b, parts) })
	}
}

func throughDriver(b *testing.B, parts int) {
	b.Helper()
	const batch = 256
	ctx := b.Context()
	s := memory.NewServer(memory.Config{})
	defer s.DeleteTopic("t") // with the group's timer, which would keep all this for the ack wait
	d := s.Driver()
	stored := 0
	prod, err := d.OpenProducer(ctx, pubsub.ProducerSpec{}, func(rs []pubsub.Result) { stored += len(rs) })
	if err == nil {
		err = d.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "t", Partitions: parts}}}, pubsub.Create)
	}
	if err != nil {
		b.Fatal(err)
	}
	src, err := d.OpenSource(ctx, pubsub.SourceSpec{From: pubsub.Place{Topic: "t", Group: "g"}, AckWait: time.Minute, MaxInFlight: 2 * batch})
	if err != nil {
		b.Fatal(err)
	}
	run, recs := make([]pubsub.Out, batch), make([]pubsub.Record, batch)
	acks, errs := make([]pubsub.Settlement, batch), make([]error, batch)
	for i := range run {
		key := fmt.Sprint("key-", i%100)
		run[i] = pubsub.Out{To: pubsub.Place{Topic: "t"}, Msg: &pubsub.Message{Key: key, Payload: make([]byte, 256)}, Dedup: pubsub.Dedup{1}}
	}
	received := 0
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += batch {
		for i := range run {
			run[i].Seq = uint64(done + i)
		}
		if n, err := prod.Send(ctx, run); n != batch || err != nil {
			b.Fatal(n, err)
		}
		for got := 0; got < batch; {
			n, _, err := src.Recv(ctx, recs, 1<<30)
			if err != nil {
				b.Fatal(err)
			}
			for i := range n {
				acks[i] = pubsub.Settlement{Token: recs[i].Token, As: pubsub.SettleAck}
			}
			if err := src.Settle(ctx, acks[:n], errs[:n]); err != nil {
				b.Fatal(err)
			}
			got += n
		}
		received += batch
	}
	b.StopTimer()
	if stored != received {
		b.Fatalf("%d stored, %d received", stored, received)
	}
}
