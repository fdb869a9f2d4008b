package main

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/internal/bench"
)

const (
	natsWindow = 1000
	natsStall  = 30 * time.Second // how long a publish waits for room in the window
	natsRun    = 256              // deliveries that a worker's channel holds
)

// rawNATS is the jetstream package, used as an expert would.
type rawNATS struct {
	js      jetstream.JetStream
	streams []string
}

func openNATS(url string) (*bench.Client, error) {
	js, err := natsConnect(url)
	if err != nil {
		return nil, err
	}
	r := &rawNATS{js: js}
	return &bench.Client{
		Prepare: func(ctx context.Context, topic string, groups []string) error {
			r.streams = append(r.streams, natsName(topic))
			return natsPrepare(ctx, js, natsName(topic), groups)
		},
		Publish: func(ctx context.Context, topic string, m bench.Message) error {
			_, err := js.PublishMsg(ctx, natsMessage(topic, m))
			return err
		},
		PublishBatch: r.publishBatch,
		Stream: func(_ context.Context, topic string, confirmed func(int, error)) (bench.Stream, error) {
			return r.stream(topic, confirmed)
		},
		Consume: r.consume,
		Pending: func(ctx context.Context, topic, group string) (int64, error) {
			return natsPending(ctx, js, natsName(topic), group)
		},
		Close: func(ctx context.Context) error { return natsRemove(ctx, js, r.streams) },
	}, nil
}

// natsMessage has the headers of omnibus, together as long: its token against duplicates has 32 letters, an id fewer. The time is none that
// anybody has formatted.
func natsMessage(topic string, m bench.Message) *client.Msg {
	h := make(client.Header, 5)
	h["Nats-Msg-Id"] = []string{m.ID}
	h["Omnibus-Id"] = []string{m.ID}
	h["Omnibus-Time"] = []string{"2026-03-02T06:00:41.123456789Z+++++++++++"}
	h["Content-Type"] = []string{m.ContentType}
	if m.Key != "" {
		h["Omnibus-Key"] = []string{m.Key}
	}
	return &client.Msg{Subject: natsName(topic), Header: h, Data: m.Payload}
}

func (r *rawNATS) publishBatch(ctx context.Context, topic string, ms []bench.Message) (confirmed int, err error) {
	futures := make([]jetstream.PubAckFuture, 0, len(ms))
	for _, m := range ms {
		f, e := r.js.PublishMsgAsync(natsMessage(topic, m), jetstream.WithStallWait(natsStall))
		if e != nil {
			err = e
			break
		}
		futures = append(futures, f)
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
			confirmed++
		case e := <-f.Err():
			err = errors.Join(err, e)
		case <-ctx.Done():
			return confirmed, ctx.Err()
		}
	}
	return confirmed, err
}

// stream counts failures by the handler of the client, and what has none of it as confirmed once nothing is pending.
func (r *rawNATS) stream(topic string, confirmed func(int, error)) (bench.Stream, error) {
	var failed atomic.Int64
	js, err := jetstream.New(r.js.Conn(), jetstream.WithPublishAsyncMaxPending(natsWindow),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *client.Msg, err error) {
			failed.Add(1)
			confirmed(1, err)
		}))
	if err != nil {
		return bench.Stream{}, err
	}
	sent := 0
	return bench.Stream{
		Send: func(m bench.Message) error {
			sent++
			_, err := js.PublishMsgAsync(natsMessage(topic, m), jetstream.WithStallWait(natsStall))
			return err
		},
		Flush: func(ctx context.Context) error {
			select {
			case <-js.PublishAsyncComplete():
				confirmed(sent-int(failed.Load()), nil)
				js.CleanupPublisher()
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}, nil
}

// consume handles in the client's own goroutine where one worker is enough, else in the workers.
func (r *rawNATS) consume(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
	c, err := r.js.Consumer(ctx, natsName(s.Topic), s.Group)
	if err != nil {
		return nil, err
	}
	var failure atomic.Pointer[error]
	fail := func(err error) { failure.CompareAndSwap(nil, &err) }
	work := func(m jetstream.Msg) {
		handle(m.Data())
		if err := m.Ack(); err != nil {
			fail(err)
		}
	}
	each := work
	var wg sync.WaitGroup
	var feeds []chan jetstream.Msg
	if s.Workers > 1 {
		feeds = make([]chan jetstream.Msg, 1, s.Workers)
		feeds[0] = make(chan jetstream.Msg, natsRun)
		for w := range s.Workers {
			if s.Keyed && w > 0 {
				feeds = append(feeds, make(chan jetstream.Msg, natsRun))
			}
			feed := feeds[len(feeds)-1]
			wg.Go(func() {
				for m := range feed {
					work(m)
				}
			})
		}
		seed := maphash.MakeSeed()
		each = func(m jetstream.Msg) {
			w := uint64(0)
			if s.Keyed {
				w = maphash.String(seed, m.Headers()["Omnibus-Key"][0]) % uint64(len(feeds))
			}
			feeds[w] <- m
		}
	}
	opts := []jetstream.PullConsumeOpt{jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		if !errors.Is(err, jetstream.ErrNoHeartbeat) { // a busy machine
			fail(err)
		}
	})}
	if !s.Defaults {
		opts = append(opts, jetstream.PullMaxMessages(natsWindow))
	}
	cc, err := c.Consume(each, opts...)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		cc.Drain()
		select {
		case <-cc.Closed():
		case <-ctx.Done():
			return ctx.Err()
		}
		for _, f := range feeds {
			close(f)
		}
		wg.Wait()
		if err := failure.Load(); err != nil {
			return *err
		}
		return nil
	}, nil
}
