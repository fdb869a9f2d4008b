package rabbitmq

import (
	"context"
	"iter"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	positionKind   = 2 // a position is an offset in a stream
	browsePrefetch = 256
)

// Browse implements pubsub.Browser, of dead letters: they lie in a stream. What lies in a queue nobody can look at without taking it.
func (d *driver) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return func(yield func(pubsub.Record, error) bool) {
		if err := d.browse(ctx, p, from, func(r pubsub.Record) bool { return yield(r, nil) }); err != nil {
			yield(pubsub.Record{}, err)
		}
	}
}

func (d *driver) browse(ctx context.Context, p pubsub.Place, from pubsub.Position, yield func(pubsub.Record) bool) error {
	if p.Kind != pubsub.PlaceDead {
		return says(pubsub.ErrUnsupported, "browsing anything but dead letters: a queue shows only what it gives away")
	}
	at, err := d.in.connected(ctx)
	if err != nil {
		return err
	}
	name := d.names.queue(p, 0)
	q, there, err := at.queue(ctx, name)
	if err != nil || !there || q.Messages == 0 {
		return err
	}
	start := any("first")
	if kind, offset, _, _ := from.Parts(); kind == positionKind {
		start = offset
	}
	first, err := at.firstOffset(ctx, name)
	if err != nil {
		return err
	}
	last := first + int64(q.Messages) - 1
	if offset, ok := start.(int64); ok && offset > last {
		return nil
	}
	ch, in, err := at.stream(ctx, name, start, browsePrefetch)
	if err != nil {
		return err
	}
	defer func() { go func() { _ = ch.Close() }() }() // nobody waits for what else it brings
	for n := 1; ; n++ {
		select {
		case m, ok := <-in:
			if !ok {
				return errCanceled
			}
			offset, _ := integer(m.Headers[hdrOffset])
			if wanted, ok := start.(int64); !ok || offset >= wanted { // the stream begins with a whole chunk
				r := pubsub.Record{Msg: decode(&m), Topic: p.Topic, Pos: pubsub.NewPosition(positionKind, offset, 0, 0)}
				if !yield(r) {
					return nil
				}
			}
			if offset >= last {
				return nil
			}
			if n%(browsePrefetch/2) == 0 {
				if err := ch.Ack(m.DeliveryTag, true); err != nil {
					return err
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stream reads a stream from somewhere on.
func (l *link) stream(ctx context.Context, name string, from any, prefetch int) (*amqp.Channel, <-chan amqp.Delivery, error) {
	type reader struct {
		ch *amqp.Channel
		in <-chan amqp.Delivery
	}
	r, err := call(ctx, func() (r reader, err error) {
		if r.ch, err = l.conn.Channel(); err != nil {
			return r, err
		}
		if err = r.ch.Qos(prefetch, 0, false); err == nil {
			r.in, err = r.ch.Consume(name, "", false, false, false, false, amqp.Table{"x-stream-offset": from})
		}
		return r, err
	}, func(r reader) { _ = r.ch.Close() })
	return r.ch, r.in, err
}

// firstOffset is where a stream that is not empty begins.
func (l *link) firstOffset(ctx context.Context, name string) (int64, error) {
	ch, in, err := l.stream(ctx, name, "first", 1)
	if err != nil {
		return 0, err
	}
	defer func() { go func() { _ = ch.Close() }() }() // nobody waits for what else it brings
	select {
	case m, ok := <-in:
		if !ok {
			return 0, errCanceled
		}
		offset, _ := integer(m.Headers[hdrOffset])
		return offset, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
