package main

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/internal/bench"
	"github.com/omnibus-go/omnibus/pubsub"
)

const driverSettings = "pubsub.Driver without the engine: runs of 500 to Send (one at a time behind a mutex where callers wait), " +
	"Recv 500, Settle once a batch; 16 workers: Recv 4096, a slice by key to each, which it settles; 4096 in flight; payloads are kept, not copied"

const driverRun = 500

// driverClient uses an adapter's driver as an expert would who needs nothing of the engine: no retries, no leases, no middleware.
func driverClient(d pubsub.Driver) *bench.Client {
	p := &driverProducers{d: d, open: map[string]*driverProducer{}}
	return &bench.Client{
		Prepare: func(ctx context.Context, topic string, groups []string) error {
			t := pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: topic}}}
			for _, g := range groups {
				t.Groups = append(t.Groups, pubsub.Subscription{Topic: topic, Group: g, Order: pubsub.OrderByKey, AckWait: driverAckWait})
			}
			return d.Ensure(ctx, t, pubsub.Create)
		},
		Publish: func(ctx context.Context, topic string, m bench.Message) error {
			pr, err := p.get(ctx, topic)
			if err != nil {
				return err
			}
			_, err = pr.send(ctx, []bench.Message{m})
			return err
		},
		PublishBatch: func(ctx context.Context, topic string, ms []bench.Message) (int, error) {
			pr, err := p.get(ctx, topic)
			if err != nil {
				return 0, err
			}
			return pr.send(ctx, ms)
		},
		Stream: func(ctx context.Context, topic string, confirmed func(int, error)) (bench.Stream, error) {
			pr, err := p.get(ctx, topic)
			if err != nil {
				return bench.Stream{}, err
			}
			run := make([]bench.Message, 0, driverRun)
			flush := func(ctx context.Context) error {
				n, err := pr.send(ctx, run)
				run = run[:0]
				confirmed(n, nil)
				return err
			}
			return bench.Stream{Flush: flush, Send: func(m bench.Message) error {
				if run = append(run, m); len(run) == cap(run) {
					return flush(ctx)
				}
				return nil
			}}, nil
		},
		Consume: func(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
			if s.Workers > 1 && !s.Keyed {
				return nil, bench.NotOffered("the bound is the handler's time, not the client's")
			}
			return driverConsume(ctx, d, s, handle)
		},
		Pending: func(ctx context.Context, topic, group string) (int64, error) {
			l, ok := d.(pubsub.Lagger)
			if !ok {
				return 0, errors.New("the driver has no Lag")
			}
			lag, err := l.Lag(ctx, topic, group)
			return lag.Messages, err
		},
		Close: func(ctx context.Context) error { return errors.Join(p.close(ctx), d.Close(ctx)) },
	}
}

const (
	driverAckWait  = 30 * time.Second
	driverInFlight = 4096
)

// driverProducers are the sessions, one for each topic.
type driverProducers struct {
	d    pubsub.Driver
	mu   sync.Mutex
	open map[string]*driverProducer
}

type driverProducer struct {
	topic string

	mu  sync.Mutex // Send is called by one goroutine at a time
	p   pubsub.Producer
	seq uint64
	run []pubsub.Out

	mu2      sync.Mutex // of the answers, which may come after Send has returned
	answered sync.Cond
	accepted int
	fates    int
	err      error
}

func (p *driverProducers) get(ctx context.Context, topic string) (*driverProducer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pr := p.open[topic]; pr != nil {
		return pr, nil
	}
	pr := &driverProducer{topic: topic}
	pr.answered.L = &pr.mu2
	var err error
	pr.p, err = p.d.OpenProducer(ctx, pubsub.ProducerSpec{MaxPending: driverRun}, pr.report)
	if err != nil {
		return nil, err
	}
	p.open[topic] = pr
	return pr, nil
}

func (p *driverProducers) close(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, pr := range p.open {
		errs = append(errs, pr.p.Close(ctx))
	}
	return errors.Join(errs...)
}

func (pr *driverProducer) report(rs []pubsub.Result) {
	pr.mu2.Lock()
	for i := range rs {
		pr.fates++
		if rs[i].Fate == pubsub.FateAccepted {
			pr.accepted++
		} else if pr.err == nil {
			pr.err = errors.Join(errors.New("not accepted"), rs[i].Err)
		}
	}
	pr.mu2.Unlock()
	pr.answered.Signal()
}

// send sends one run and waits for its answers.
func (pr *driverProducer) send(ctx context.Context, ms []bench.Message) (int, error) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.mu2.Lock()
	pr.accepted, pr.fates, pr.err = 0, 0, nil
	pr.mu2.Unlock()
	now := time.Now()
	run, slab := pr.run[:0], make([]pubsub.Message, len(ms))
	for i, m := range ms {
		slab[i] = pubsub.Message{ID: m.ID, Key: m.Key, ContentType: m.ContentType, Payload: m.Payload, Time: now}
		run = append(run, pubsub.Out{Seq: pr.seq, To: pubsub.Place{Topic: pr.topic}, Msg: &slab[i]})
		pr.seq++
	}
	pr.run = run
	took, err := pr.p.Send(ctx, run)
	pr.mu2.Lock()
	defer pr.mu2.Unlock()
	for pr.fates < took {
		pr.answered.Wait()
	}
	return pr.accepted, errors.Join(err, pr.err)
}

// driverConsume reads with one goroutine that handles what it gets itself, or hands it to the workers by key.
func driverConsume(ctx context.Context, d pubsub.Driver, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
	src, err := d.OpenSource(ctx, pubsub.SourceSpec{From: pubsub.Place{Topic: s.Topic, Group: s.Group}, Order: pubsub.OrderByKey,
		AckWait: driverAckWait, MaxInFlight: driverInFlight, MaxInFlightBytes: 64 << 20, Member: "raw", Manage: pubsub.Create})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var failed error
	var once sync.Once
	fail := func(err error) { once.Do(func() { failed = err; cancel() }) }
	settle := func(batch []pubsub.Record, list []pubsub.Settlement, errs []error) {
		list, errs = list[:len(batch)], errs[:len(batch)]
		clear(errs)
		for i := range batch {
			handle(batch[i].Msg.Payload)
			list[i] = pubsub.Settlement{Token: batch[i].Token, As: pubsub.SettleAck}
		}
		if err := errors.Join(src.Settle(context.WithoutCancel(ctx), list, errs), errors.Join(errs...)); err != nil {
			fail(err)
		}
	}

	var wg sync.WaitGroup
	feeds := make([]chan []pubsub.Record, 0, s.Workers)
	if s.Workers > 1 {
		for range s.Workers {
			feed := make(chan []pubsub.Record, 8)
			feeds = append(feeds, feed)
			wg.Go(func() {
				list, errs := make([]pubsub.Settlement, driverInFlight), make([]error, driverInFlight)
				for batch := range feed {
					settle(batch, list, errs)
				}
			})
		}
	}
	wg.Go(func() {
		buf := make([]pubsub.Record, driverRun)
		if len(feeds) > 0 {
			buf = make([]pubsub.Record, driverInFlight) // so that each worker gets enough of it
		}
		list, errs := make([]pubsub.Settlement, driverRun), make([]error, driverRun)
		seed := maphash.MakeSeed()
		for {
			n, _, err := src.Recv(ctx, buf, 64<<20)
			if err != nil {
				if ctx.Err() == nil {
					fail(err)
				}
				break
			}
			if len(feeds) == 0 {
				settle(buf[:n], list, errs)
				continue
			}
			parts := make([][]pubsub.Record, len(feeds))
			for i := range buf[:n] {
				w := maphash.String(seed, buf[i].Msg.Key) % uint64(len(feeds))
				if parts[w] == nil {
					parts[w] = make([]pubsub.Record, 0, 2*n/len(feeds))
				}
				parts[w] = append(parts[w], buf[i])
			}
			for w, part := range parts {
				if len(part) > 0 {
					feeds[w] <- part
				}
			}
		}
		for _, f := range feeds {
			close(f)
		}
	})
	return func(closing context.Context) error {
		cancel()
		wg.Wait()
		return errors.Join(failed, src.Close(closing))
	}, nil
}
