package main

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/bench"
)

const (
	rabbitWindow = 1000 // messages without an answer
	rabbitAcks   = 64   // that are sent as one
)

var errRabbitRefused = errors.New("the server returned or refused a message")

// rawRabbit is amqp091, used as an expert would.
type rawRabbit struct {
	*rabbitSide
	pub     *amqp.Connection
	ch      *amqp.Channel
	returns chan amqp.Return
}

func openRabbit(s *rabbitSide) (*bench.Client, error) {
	r := &rawRabbit{rabbitSide: s, returns: make(chan amqp.Return, 2*rabbitWindow)}
	var err error
	if r.pub, err = amqp.Dial(s.url); err != nil {
		return nil, err
	}
	if r.ch, err = r.pub.Channel(); err == nil {
		r.ch.NotifyReturn(r.returns)
		err = r.ch.Confirm(false)
	}
	if err != nil {
		return nil, errors.Join(err, r.pub.Close())
	}
	return s.settling(&bench.Client{
		Prepare: s.prepare,
		Publish: func(ctx context.Context, topic string, m bench.Message) error {
			sent, err := r.send(topic, m)
			if err != nil {
				return err
			}
			return r.confirmed(ctx, sent)
		},
		PublishBatch: r.publishBatch,
		Stream: func(_ context.Context, topic string, confirmed func(int, error)) (bench.Stream, error) {
			return r.stream(topic, confirmed), nil
		},
		Consume: r.consume,
		Close:   func(context.Context) error { return errors.Join(r.pub.Close(), s.remove()) },
	}), nil
}

// rabbitMessage has the headers of omnibus, as long. The time is none that anybody has formatted.
func rabbitMessage(m bench.Message) amqp.Publishing {
	h := amqp.Table{"omnibus.ns": int32(123456789)}
	if m.Key != "" {
		h["omnibus.key"] = m.Key
	}
	return amqp.Publishing{
		MessageId: m.ID, ContentType: m.ContentType, DeliveryMode: amqp.Persistent, Timestamp: time.Unix(1772431241, 0), Headers: h, Body: m.Payload,
	}
}

func (r *rawRabbit) send(topic string, m bench.Message) (*amqp.DeferredConfirmation, error) {
	return r.ch.PublishWithDeferredConfirm(r.exchange, topic, true, false, rabbitMessage(m))
}

// confirmed waits for the answer. A return comes before it.
func (r *rawRabbit) confirmed(ctx context.Context, sent *amqp.DeferredConfirmation) error {
	select {
	case <-sent.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	if !sent.Acked() || len(r.returns) > 0 {
		return errRabbitRefused
	}
	return nil
}

func (r *rawRabbit) publishBatch(ctx context.Context, topic string, ms []bench.Message) (confirmed int, err error) {
	sent := make([]*amqp.DeferredConfirmation, 0, len(ms))
	for _, m := range ms {
		one, e := r.send(topic, m)
		if e != nil {
			err = e
			break
		}
		sent = append(sent, one)
	}
	for _, one := range sent {
		if e := r.confirmed(ctx, one); e != nil {
			return confirmed, errors.Join(err, e)
		}
		confirmed++
	}
	return confirmed, err
}

// stream waits for the oldest answers once the window is full, a quarter of it at once.
func (r *rawRabbit) stream(topic string, confirmed func(int, error)) bench.Stream {
	ring := make([]*amqp.DeferredConfirmation, 0, rabbitWindow)
	wait := func(ctx context.Context, n int) error {
		for _, one := range ring[:n] {
			if err := r.confirmed(ctx, one); err != nil {
				return err
			}
		}
		confirmed(n, nil)
		ring = ring[:copy(ring, ring[n:])]
		return nil
	}
	return bench.Stream{
		Send: func(m bench.Message) error {
			if len(ring) == cap(ring) {
				if err := wait(context.Background(), rabbitWindow/4); err != nil {
					return err
				}
			}
			one, err := r.send(topic, m)
			ring = append(ring, one)
			return err
		},
		Flush: func(ctx context.Context) error { return wait(ctx, len(ring)) },
	}
}

// A rabbitAcker acknowledges what is handled without a gap, several at once.
type rabbitAcker struct {
	ch *amqp.Channel

	mu          sync.Mutex
	done        map[uint64]bool // handled, after a gap
	next, acked uint64
	err         error
}

func (a *rabbitAcker) handled(tag uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if tag != a.next {
		a.done[tag] = true
		return
	}
	for a.next++; len(a.done) > 0 && a.done[a.next]; a.next++ {
		delete(a.done, a.next)
	}
	if a.next-1-a.acked >= rabbitAcks {
		a.flush()
	}
}

func (a *rabbitAcker) flush() {
	if last := a.next - 1; last > a.acked {
		a.err = errors.Join(a.err, a.ch.Ack(last, true))
		a.acked = last
	}
}

// consume handles in one goroutine where one worker is enough, else in the workers.
func (r *rawRabbit) consume(_ context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
	conn, err := amqp.Dial(r.url)
	if err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	if err == nil {
		err = ch.Qos(rabbitPrefetch, 0, false)
	}
	const tag = "bench"
	var in <-chan amqp.Delivery
	if err == nil {
		in, err = ch.Consume(rabbitQueue(s.Topic, s.Group), tag, false, false, false, false, nil)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	acks := &rabbitAcker{ch: ch, next: 1, done: map[uint64]bool{}}
	feeds := []chan amqp.Delivery{make(chan amqp.Delivery, rabbitPrefetch)}
	var wg sync.WaitGroup
	work := func(in <-chan amqp.Delivery) {
		for d := range in {
			handle(d.Body)
			acks.handled(d.DeliveryTag)
		}
	}
	if s.Workers == 1 {
		wg.Go(func() { work(in) })
	} else {
		for w := range s.Workers {
			if s.Keyed && w > 0 {
				feeds = append(feeds, make(chan amqp.Delivery, rabbitPrefetch))
			}
			feed := feeds[len(feeds)-1]
			wg.Go(func() { work(feed) })
		}
		seed := maphash.MakeSeed()
		wg.Go(func() {
			for d := range in {
				w := uint64(0)
				if s.Keyed {
					key, _ := d.Headers["omnibus.key"].(string)
					w = maphash.String(seed, key) % uint64(len(feeds))
				}
				feeds[w] <- d
			}
			for _, f := range feeds {
				close(f)
			}
		})
	}
	return func(context.Context) error {
		err := ch.Cancel(tag, false)
		wg.Wait()
		acks.flush()
		return errors.Join(err, acks.err, ch.Close(), conn.Close())
	}, nil
}
