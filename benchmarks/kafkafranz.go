package main

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/omnibus-go/omnibus/internal/bench"
)

const kafkaFranzSettings = "franz-go: Produce, acks=all, idempotent, not compressed, no linger; PollRecords, MarkCommitRecords for all that it gave, committed every 20 ms; " +
	"16 and 64 workers: they share that by key or evenly"

const kafkaPoll = 4096 // records

// franzKafka is the other Go client of note. Its metadata is young enough for a topic that was just made.
type franzKafka struct {
	servers []string
	side    *kafkaSide
	p       *kgo.Client
}

func (f *franzKafka) client(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(more, kgo.SeedBrokers(f.servers...), kgo.MetadataMinAge(10*time.Millisecond))...)
}

func openKafkaFranz(servers []string) (*bench.Client, error) {
	side, err := openKafkaSide(servers)
	if err != nil {
		return nil, err
	}
	f := &franzKafka{servers: servers, side: side}
	if f.p, err = f.client(kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0)); err != nil {
		return nil, errors.Join(err, side.Close())
	}
	return &bench.Client{
		Prepare: side.prepare, Publish: f.publish, PublishBatch: f.publishBatch, Stream: f.stream, Consume: f.consume,
		Pending: func(_ context.Context, topic, group string) (int64, error) {
			return side.pending(kafkaGroup(topic, group), topic)
		},
		Close: func(context.Context) error {
			f.p.Close()
			return side.remove()
		},
	}, nil
}

// franzRecord has the headers of omnibus.
func franzRecord(topic string, m bench.Message) *kgo.Record {
	o := new(struct {
		kgo.Record
		headers [3]kgo.RecordHeader
	})
	o.headers = [3]kgo.RecordHeader{
		{Key: string(kafkaNameID), Value: []byte(m.ID)}, {Key: string(kafkaNameTime), Value: kafkaTime}, {Key: string(kafkaNameContent), Value: []byte(m.ContentType)},
	}
	o.Topic, o.Value, o.Headers = topic, m.Payload, o.headers[:]
	if m.Key != "" {
		o.Key = []byte(m.Key)
	}
	return &o.Record
}

func (f *franzKafka) publish(ctx context.Context, topic string, m bench.Message) error {
	return f.p.ProduceSync(ctx, franzRecord(topic, m)).FirstErr()
}

func (f *franzKafka) publishBatch(ctx context.Context, topic string, ms []bench.Message) (int, error) {
	list := make([]*kgo.Record, len(ms))
	for i, m := range ms {
		list[i] = franzRecord(topic, m)
	}
	confirmed := 0
	var errs []error
	for _, r := range f.p.ProduceSync(ctx, list...) {
		if r.Err == nil {
			confirmed++
		} else {
			errs = append(errs, r.Err)
		}
	}
	return confirmed, errors.Join(errs...)
}

func (f *franzKafka) stream(ctx context.Context, topic string, confirmed func(int, error)) (bench.Stream, error) {
	told := func(_ *kgo.Record, err error) { confirmed(1, err) }
	return bench.Stream{
		Send: func(m bench.Message) error {
			f.p.Produce(ctx, franzRecord(topic, m), told)
			return nil
		},
		Flush: f.p.Flush,
	}, nil
}

func (f *franzKafka) consume(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
	joined := make(chan struct{})
	once := sync.OnceFunc(func() { close(joined) })
	opts := []kgo.Opt{kgo.ConsumerGroup(kafkaGroup(s.Topic, s.Group)), kgo.ConsumeTopics(s.Topic), kgo.AutoCommitMarks(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) {
			if len(got) > 0 {
				once()
			}
		})}
	c, err := f.client(opts...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var failure atomic.Pointer[error]
	fail := func(err error) {
		if err != nil && ctx.Err() == nil {
			failure.CompareAndSwap(nil, &err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		every := time.NewTicker(kafkaCommitEvery)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				fail(c.CommitMarkedOffsets(ctx))
			case <-ctx.Done():
				return
			}
		}
	})
	wg.Go(func() { franzRead(ctx, c, s, handle, fail) })
	stop := func(ctx context.Context) error {
		cancel()
		wg.Wait()
		err := c.CommitMarkedOffsets(ctx)
		c.Close()
		if e := failure.Load(); e != nil {
			err = errors.Join(err, *e)
		}
		return err
	}
	select {
	case <-joined:
		return stop, nil
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), stop(context.WithoutCancel(ctx)))
	}
}

// franzRead handles what a poll gives itself, or has it handled by workers.
func franzRead(ctx context.Context, c *kgo.Client, s bench.Consume, handle func([]byte), fail func(error)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	seed := maphash.MakeSeed()
	lists, feeds := make([][]*kgo.Record, s.Workers), make([]chan []*kgo.Record, s.Workers)
	done := make(chan struct{}, s.Workers)
	if s.Workers > 1 {
		for w := range feeds {
			feeds[w] = make(chan []*kgo.Record)
			defer close(feeds[w])
			wg.Go(func() {
				for list := range feeds[w] {
					for _, r := range list {
						handle(r.Value)
					}
					done <- struct{}{}
				}
			})
		}
	}
	for {
		got := c.PollRecords(ctx, kafkaPoll)
		if ctx.Err() != nil {
			return
		}
		for _, e := range got.Errors() {
			fail(e.Err)
		}
		all := got.Records()
		if s.Workers == 1 {
			for _, r := range all {
				handle(r.Value)
			}
		} else {
			for i, r := range all {
				w := uint64(i)
				if s.Keyed {
					w = maphash.Bytes(seed, r.Key)
				}
				w %= uint64(len(lists))
				lists[w] = append(lists[w], r)
			}
			busy := 0
			for w, list := range lists {
				if len(list) > 0 {
					feeds[w] <- list
					busy++
				}
			}
			for range busy {
				<-done
			}
			for w := range lists {
				lists[w] = lists[w][:0]
			}
		}
		got.EachPartition(func(p kgo.FetchTopicPartition) {
			if n := len(p.Records); n > 0 {
				c.MarkCommitRecords(p.Records[n-1])
			}
		})
	}
}
