package rabbitmq

import (
	"context"
	"errors"
	"iter"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	positionKind = 2    // a position is an offset in a stream
	firstPage    = 64   // messages of a stream that are read at once, until it is known how large they are
	largestPage  = 1000 // of small ones
	pageBytes    = 4 << 20
	countedAfter = 10 * time.Second // the broker counts a stream's messages every 5 s
)

// Browse implements pubsub.Browser, of dead letters and what became of them: both lie in streams. What lies in a queue nobody can look at without taking it.
func (d *driver) Browse(ctx context.Context, p pubsub.Place, from pubsub.Position) iter.Seq2[pubsub.Record, error] {
	return drivers.Walk(func(yield func(pubsub.Record) bool) error { return d.browse(ctx, p, from, yield) })
}

func (d *driver) browse(ctx context.Context, p pubsub.Place, from pubsub.Position, yield func(pubsub.Record) bool) error {
	if !inStream(p.Kind) {
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
		return at.conn.Channel()
	}, func(ch *amqp.Channel) { _ = ch.Close() })
	if err != nil {
		return err
	}
	defer shut(context.WithoutCancel(ctx), ch)
	var next any = "first"
	least := int64(0)
	if kind, offset, _, _ := from.Parts(); kind == positionKind {
		next, least = offset, offset
	}
	for size := firstPage; ; {
		page, err := at.readPage(ctx, ch, name, next, size)
		if err != nil {
			return err
		}
		read := 1
		for i := range page {
			m := &page[i]
			read += len(m.Body)
			offset, _ := integer(m.Headers[hdrOffset])
			if _, mark := m.Headers[hdrMark]; offset < least || mark {
				continue
			}
			next, least = offset, offset+1
			if !yield(pubsub.Record{Msg: decode(m), Topic: p.Topic, Pos: pubsub.NewPosition(positionKind, offset, 0, 0)}) {
				return nil
			}
		}
		if len(page) < size {
			return nil
		}
		size = min(max(pageBytes*len(page)/read, firstPage), 2*size, largestPage)
	}
}

// readPage reads what lies in a stream from a message on that is there: that one, and what follows it. How many messages a stream has the broker says only some
// seconds later, and that there are no more it does not say at all. But it sends all that it has at once, as much as the channel may have, and then
// looks at what it is asked next: so what has not come before the answer to a request that was made when the first message was here, was not there then. A
// stream of ours always has a message, see ensureStream.
func (l *link) readPage(ctx context.Context, ch *amqp.Channel, name string, from any, size int) (page []amqp.Delivery, err error) {
	in, err := call(ctx, func() (<-chan amqp.Delivery, error) {
		if err := ch.Qos(size, 0, false); err != nil {
			return nil, err
		}
		return ch.Consume(name, "omnibus", false, false, false, false, amqp.Table{hdrOffset: from})
	}, nil)
	if err != nil {
		return nil, err
	}
	none := time.NewTimer(countedAfter)
	defer none.Stop()
	for len(page) == 0 {
		select {
		case m, ok := <-in:
			if !ok {
				return nil, errCanceled
			}
			page = append(page, m)
		case <-none.C: // it was made by somebody else, or who made it was killed before it had a message
			if q, _, err := l.queue(ctx, name); err != nil || q.Messages == 0 {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if _, err := call(ctx, func() (struct{}, error) { return struct{}{}, ch.Cancel("omnibus", false) }, nil); err != nil {
		return nil, err
	}
	for m := range in {
		page = append(page, m)
	}
	return page, nil
}

// inStream says whether a place is a stream, and no queue.
func inStream(k pubsub.PlaceKind) bool { return k == pubsub.PlaceDead || k == pubsub.PlaceState }

// ensureStream makes the dead letters of a group, or the place beside them, with a first message, which is none: see readPage.
func (d *driver) ensureStream(ctx context.Context, at *link, name string) error {
	if _, there, err := at.queue(ctx, name); err != nil || there {
		return err
	}
	out, err := d.out.connected(ctx)
	if err != nil {
		return err
	}
	args := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeStream}
	if d.cfg.Replicas > 0 {
		args["x-initial-cluster-size"] = d.cfg.Replicas
	}
	return out.with(ctx, func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
			return err
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		first := amqp.Publishing{DeliveryMode: amqp.Persistent, Headers: amqp.Table{hdrMark: true}}
		sent, err := ch.PublishWithDeferredConfirm("", name, true, false, first)
		if err != nil {
			return err
		}
		if ok, err := sent.WaitContext(ctx); err != nil || !ok {
			return errors.Join(err, errGone)
		}
		return nil
	})
}
