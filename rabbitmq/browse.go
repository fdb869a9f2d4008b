package rabbitmq

import (
	"context"
	"iter"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	positionKind = 2 // a position is an offset in a stream
	pageSize     = 64
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
	if _, there, err := at.queue(ctx, name); err != nil || !there {
		return err
	}
	ch, err := call(ctx, func() (*amqp.Channel, error) {
		ch, err := at.conn.Channel()
		if err == nil {
			err = ch.Qos(pageSize, 0, false)
		}
		return ch, err
	}, func(ch *amqp.Channel) { _ = ch.Close() })
	if err != nil {
		return err
	}
	defer shut(context.WithoutCancel(ctx), ch)
	next := int64(0)
	if kind, offset, _, _ := from.Parts(); kind == positionKind {
		next = offset
	}
	for {
		page, err := call(ctx, func() ([]amqp.Delivery, error) { return readPage(ch, name, next) }, nil)
		if err != nil || len(page) == 0 {
			return err
		}
		for i := range page {
			m := &page[i]
			offset, _ := integer(m.Headers[hdrOffset])
			next = offset + 1
			if !yield(pubsub.Record{Msg: decode(m), Topic: p.Topic, Pos: pubsub.NewPosition(positionKind, offset, 0, 0)}) {
				return nil
			}
		}
	}
}

// readPage reads what lies in a stream from an offset on; an empty page is the end. How many messages a stream has the broker says only some seconds later, and
// that there are no more it does not say at all. So what comes is made to come before something that is answered: the channel asks the stream to be told
// of what it has, which happens behind its back, and when it begins to read the stream for another consumer, it waits for an answer of the stream that
// follows that. The answer to the request after that one follows both.
func readPage(ch *amqp.Channel, name string, from int64) (page []amqp.Delivery, err error) {
	const reads, waits = "reads", "waits"
	in, err := ch.Consume(name, reads, false, false, false, false, amqp.Table{hdrOffset: from})
	if err != nil {
		return nil, err
	}
	if _, err = ch.Consume(name, waits, false, false, false, false, amqp.Table{hdrOffset: "next"}); err != nil {
		return nil, err
	}
	if err = ch.Qos(pageSize, 0, false); err != nil {
		return nil, err
	}
	if err = ch.Cancel(reads, false); err != nil {
		return nil, err
	}
	for m := range in {
		if offset, _ := integer(m.Headers[hdrOffset]); offset >= from { // a chunk may begin before
			page = append(page, m)
		}
	}
	return page, ch.Cancel(waits, false)
}
