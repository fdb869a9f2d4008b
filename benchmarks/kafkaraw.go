package main

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/internal/bench"
)

const kafkaRawSettings = "sarama: AsyncProducer, acks=all, idempotent, one request in flight; where callers wait each has its own channel; " +
	"a group with MarkMessage for the last of what has come of a partition (up to 512), committed every 20 ms, fetches wait 25 ms at most; 16 and 64 workers: they share that by key or evenly"

const (
	kafkaRun     = 512  // messages of a partition that are handled before the last one is marked
	kafkaBuffers = 2048 // messages in each of the client's channels, where the row does not say defaults
)

// The headers of omnibus. The time is none that anybody has formatted, but as long.
var (
	kafkaNameID      = []byte("omnibus-id")
	kafkaNameTime    = []byte("omnibus-time")
	kafkaNameContent = []byte("content-type")
	kafkaTime        = []byte("2026-03-02T06:00:41.123456789Z")
)

// rawKafka is sarama, used as an expert would.
type rawKafka struct {
	servers []string
	side    *kafkaSide
	p       sarama.AsyncProducer
	drained sync.WaitGroup
	calls   sync.Pool // of *kafkaCall
}

func kafkaConfig() *sarama.Config {
	c := kafkaPeer(sarama.NewConfig())
	c.Version = sarama.MaxVersion
	c.ChannelBufferSize = kafkaBuffers
	c.Net.MaxOpenRequests = 1
	p := &c.Producer
	p.RequiredAcks, p.Idempotent, p.Return.Successes = sarama.WaitForAll, true, true
	p.Retry.Max, p.Retry.BackoffFunc = 20, sarama.NewExponentialBackoff(50*time.Millisecond, 2*time.Second)
	p.Partitioner = sarama.NewMurmur2Partitioner
	c.Consumer.Return.Errors, c.Consumer.IsolationLevel = true, sarama.ReadCommitted
	return c
}

func openKafka(servers []string) (*bench.Client, error) {
	side, err := openKafkaSide(servers)
	if err != nil {
		return nil, err
	}
	r := &rawKafka{servers: servers, side: side}
	if r.p, err = sarama.NewAsyncProducer(servers, kafkaConfig()); err != nil {
		return nil, errors.Join(err, side.Close())
	}
	r.calls.New = func() any { return &kafkaCall{answered: make(chan error, 1)} }
	r.drained.Go(func() {
		for m := range r.p.Successes() {
			m.Metadata.(kafkaFate).told(nil)
		}
	})
	r.drained.Go(func() {
		for e := range r.p.Errors() {
			e.Msg.Metadata.(kafkaFate).told(e.Err)
		}
	})
	return &bench.Client{
		Prepare: side.prepare, Publish: r.publish, PublishBatch: r.publishBatch, Stream: r.stream, Consume: r.consume,
		Pending: func(_ context.Context, topic, group string) (int64, error) {
			return side.pending(kafkaGroup(topic, group), topic)
		},
		Close: func(context.Context) error {
			r.p.AsyncClose()
			r.drained.Wait()
			return side.remove()
		},
	}, nil
}

// A kafkaFate is told what became of one message.
type kafkaFate interface{ told(error) }

// A kafkaOut is a message with all that it needs, in one piece.
type kafkaOut struct {
	sarama.ProducerMessage
	key, value kafkaText
	headers    [3]sarama.RecordHeader
	text       [64]byte // of id, content type and key
}

// kafkaText is a sarama.Encoder that needs no memory.
type kafkaText struct{ b []byte }

func (t *kafkaText) Encode() ([]byte, error) { return t.b, nil }
func (t *kafkaText) Length() int             { return len(t.b) }

func kafkaMessage(topic string, m bench.Message, f kafkaFate) *sarama.ProducerMessage {
	o := new(kafkaOut)
	text := o.text[:0]
	part := func(s string) []byte {
		from := len(text)
		text = append(text, s...)
		return text[from:len(text):len(text)]
	}
	o.headers = [3]sarama.RecordHeader{
		{Key: kafkaNameID, Value: part(m.ID)}, {Key: kafkaNameTime, Value: kafkaTime}, {Key: kafkaNameContent, Value: part(m.ContentType)},
	}
	o.Topic, o.Headers, o.Metadata = topic, o.headers[:], f
	o.value.b = m.Payload
	o.Value = &o.value
	if m.Key != "" {
		o.key.b = part(m.Key)
		o.Key = &o.key
	}
	return &o.ProducerMessage
}

type kafkaCall struct{ answered chan error }

func (c *kafkaCall) told(err error) { c.answered <- err }

func (r *rawKafka) publish(_ context.Context, topic string, m bench.Message) error {
	c := r.calls.Get().(*kafkaCall)
	r.p.Input() <- kafkaMessage(topic, m, c)
	err := <-c.answered
	r.calls.Put(c)
	return err
}

// A kafkaBatch counts what has its answer.
type kafkaBatch struct {
	confirmed func(int, error) // nil = nobody waits for a single one

	mu   sync.Mutex
	open int
	ok   int
	err  error
	done chan struct{} // closed when none is open; nil = nobody waits yet
}

func (b *kafkaBatch) told(err error) {
	if b.confirmed != nil {
		b.confirmed(1, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.ok++
	} else if b.err == nil {
		b.err = err
	}
	if b.open--; b.open == 0 && b.done != nil {
		close(b.done)
		b.done = nil
	}
}

func (b *kafkaBatch) expect(n int) {
	b.mu.Lock()
	b.open += n
	b.mu.Unlock()
}

func (b *kafkaBatch) wait(ctx context.Context) error {
	b.mu.Lock()
	if b.open == 0 {
		b.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	b.done = done
	b.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *rawKafka) publishBatch(ctx context.Context, topic string, ms []bench.Message) (int, error) {
	b := &kafkaBatch{}
	b.expect(len(ms))
	for _, m := range ms {
		r.p.Input() <- kafkaMessage(topic, m, b)
	}
	err := b.wait(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ok, errors.Join(err, b.err)
}

func (r *rawKafka) stream(_ context.Context, topic string, confirmed func(int, error)) (bench.Stream, error) {
	b := &kafkaBatch{confirmed: confirmed}
	return bench.Stream{
		Send: func(m bench.Message) error {
			b.expect(1)
			r.p.Input() <- kafkaMessage(topic, m, b)
			return nil
		},
		Flush: b.wait,
	}, nil
}

// consume joins the group. A partition has a goroutine of its own, which is the client's way.
func (r *rawKafka) consume(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
	conf := kafkaConfig()
	if s.Defaults {
		conf.ChannelBufferSize = sarama.NewConfig().ChannelBufferSize
	}
	g, err := sarama.NewConsumerGroup(r.servers, kafkaGroup(s.Topic, s.Group), conf)
	if err != nil {
		return nil, err
	}
	h := &kafkaClaims{s: s, handle: handle, seed: maphash.MakeSeed(), joined: make(chan struct{})}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() {
		for err := range g.Errors() {
			if ctx.Err() == nil {
				failed = errors.Join(failed, err)
			}
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- g.Consume(ctx, []string{s.Topic}, h) }()
	stop := func(context.Context) error {
		cancel()
		err := errors.Join(<-ended, g.Close())
		wg.Wait()
		return errors.Join(err, failed)
	}
	select {
	case <-h.joined:
		if err := kafkaReads(ctx, conf, s.Shape); err != nil {
			return nil, errors.Join(err, stop(ctx))
		}
		return stop, nil
	case err := <-ended:
		ended <- err
		return nil, errors.Join(errors.New("the group does not read"), stop(ctx))
	}
}

// kafkaClaims handles what comes of each partition.
type kafkaClaims struct {
	s      bench.Consume
	handle func([]byte)
	seed   maphash.Seed
	joined chan struct{}
	one    sync.Mutex // of the handler, where one is to run at once
}

func (h *kafkaClaims) Setup(sarama.ConsumerGroupSession) error {
	close(h.joined) // there is one session only
	return nil
}

func (*kafkaClaims) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (h *kafkaClaims) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	workers := make([]kafkaWorker, max(h.s.Workers/kafkaPartitions, 1))
	var wg sync.WaitGroup
	defer wg.Wait()
	if h.s.Workers > 1 {
		for i := range workers {
			w := &workers[i]
			w.feed = make(chan []*sarama.ConsumerMessage)
			defer close(w.feed)
			wg.Go(func() {
				for list := range w.feed {
					for _, m := range list {
						h.handle(m.Value)
					}
					w.done <- struct{}{}
				}
			})
			w.done = make(chan struct{}, 1)
		}
	}
	run := make([]*sarama.ConsumerMessage, 0, kafkaRun)
	for m := range c.Messages() {
		run = append(run[:0], m)
		for more := true; more && len(run) < cap(run); {
			select {
			case m, open := <-c.Messages():
				if more = open; open {
					run = append(run, m)
				}
			default:
				more = false
			}
		}
		if h.s.Workers == 1 {
			h.one.Lock()
			for _, m := range run {
				h.handle(m.Value)
			}
			h.one.Unlock()
		} else {
			h.share(run, workers)
		}
		s.MarkMessage(run[len(run)-1], "")
	}
	return nil
}

// A kafkaWorker handles its part of a run.
type kafkaWorker struct {
	feed chan []*sarama.ConsumerMessage
	done chan struct{}
	list []*sarama.ConsumerMessage
}

func (h *kafkaClaims) share(run []*sarama.ConsumerMessage, workers []kafkaWorker) {
	for i, m := range run {
		at := uint64(i)
		if h.s.Keyed {
			at = maphash.Bytes(h.seed, m.Key)
		}
		w := &workers[at%uint64(len(workers))]
		w.list = append(w.list, m)
	}
	for i := range workers {
		if w := &workers[i]; len(w.list) > 0 {
			w.feed <- w.list
		}
	}
	for i := range workers {
		if w := &workers[i]; len(w.list) > 0 {
			<-w.done
			w.list = w.list[:0]
		}
	}
}
