package rabbitmq

import (
	"cmp"
	"context"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/internal/stuck"
	"github.com/omnibus-go/omnibus/pubsub"
)

const window = 1024 // messages without an answer: the client goes through all of them when several are confirmed at once

// A producer publishes on a channel of its own, so that what one publisher sends stays in its order, and waits for the answers in that order. Two
// goroutines share it: the one that calls Send, and answer.
type producer struct {
	*link
	d      *driver
	ch     *amqp.Channel
	spec   pubsub.ProducerSpec
	report func([]pubsub.Result)
	closed chan *amqp.Error // why the broker ended the channel
	work   chan struct{}    // a token: there is something to wait for, or the end
	room   chan struct{}    // a token: there is room again
	alone  chan struct{}    // a token: a message that goes alone has its answer
	ended  chan struct{}    // closed when answer is over

	// of Send
	rr      uint32 // of messages without a key
	singles int    // how many may still go one by one, see driver.careful
	writes  *stuck.Watch

	// of answer
	returns  chan amqp.Return // holds as many as there can be, so that the client never waits with one, and none is lost
	returned []amqp.Return    // whose answer has not come
	results  []pubsub.Result
	cause    error // of the end of the channel

	stop chan struct{} // closed when the session is dead

	mu         sync.Mutex
	why        error    // it is dead
	ring       []flight // without an answer, from head to tail
	head, tail int
	idle       bool // answer waits for work
	wantsRoom  bool
	closing    bool
}

// A flight is a message on its way.
type flight struct {
	seq   uint64
	sent  *amqp.DeferredConfirmation
	to    pubsub.Place
	key   string
	id    string
	body  []byte
	alone bool

	single bool // one queue is to take it, of a kind that refuses only what it has not stored
}

// OpenProducer implements pubsub.Driver.
func (d *driver) OpenProducer(ctx context.Context, spec pubsub.ProducerSpec, report func([]pubsub.Result)) (pubsub.Producer, error) {
	if at := d.out.at.Load(); at != nil && at.broken() == nil {
		if gate, reason := at.gate(); gate != nil {
			return nil, blockedError(reason) // which the engine tells who waits; one that is open already waits itself
		}
	}
	p, err := d.newProducer(ctx, spec, report)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (d *driver) newProducer(ctx context.Context, spec pubsub.ProducerSpec, report func([]pubsub.Result)) (*producer, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	at, err := d.out.connected(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.ensureExchange(ctx, at, pubsub.Verify); err != nil {
		return nil, err
	}
	n := window
	if spec.MaxPending > 0 {
		n = min(n, spec.MaxPending)
	}
	p := &producer{
		link: at, d: d, spec: spec, report: report, closed: make(chan *amqp.Error, 1), work: make(chan struct{}, 1), room: make(chan struct{}, 1),
		alone: make(chan struct{}, 1), ended: make(chan struct{}), writes: stuck.New(at.cut), returns: make(chan amqp.Return, n), stop: make(chan struct{}),
		ring: make([]flight, n),
	}
	if d.careful.Load() {
		p.singles = window
	}
	p.ch, err = call(ctx, func() (*amqp.Channel, error) {
		ch, err := at.conn.Channel()
		if err == nil && spec.Ack != pubsub.AckNone {
			ch.NotifyReturn(p.returns)
			err = ch.Confirm(false)
		}
		return ch, err
	}, func(ch *amqp.Channel) { _ = ch.Close() })
	if err != nil {
		return nil, err
	}
	p.ch.NotifyClose(p.closed)
	go p.answer()
	if err := at.add(p); err != nil {
		p.die(err)
		<-p.ended
		return nil, err
	}
	return p, nil
}

// die implements session.
func (p *producer) die(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == nil {
		p.why = err
		close(p.stop)
	}
}

// dead is why the session cannot be used any more.
func (p *producer) dead() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why == nil && p.ch.IsClosed() {
		return errGone
	}
	return p.why
}

// Send implements pubsub.Producer.
func (p *producer) Send(ctx context.Context, run []pubsub.Out) (n int, err error) {
	err = p.hold(ctx, func() error { return p.look(ctx, run) }, func() error {
		for ; n < len(run); n++ {
			o := &run[n]
			m, exchange, key, err := p.message(ctx, o)
			if err == nil {
				err = p.publish(ctx, flight{seq: o.Seq, to: o.To, key: key}, exchange, m)
			}
			if err == nil {
				continue
			}
			if _, final := classify(err); !final || ctx.Err() != nil {
				return err
			}
			p.report([]pubsub.Result{{Seq: o.Seq, Fate: pubsub.FateRefused, Err: err}})
		}
		return nil
	})
	return n, err
}

// hold writes what f publishes at once, after look, and once the broker takes messages. The end of ctx ends a write that the broker does not read.
func (p *producer) hold(ctx context.Context, look, f func() error) (err error) {
	p.writes.Begin(ctx)
	defer p.writes.End()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := p.opened(ctx, p.stop); err != nil {
		return err
	}
	if err := look(); err != nil {
		return err
	}
	p.wire.cork()
	defer func() {
		if flushed := p.wire.uncork(); err == nil {
			err = flushed // what of it has arrived the end of the connection tells
		}
	}()
	return f()
}

// look finds out about topics and groups that are new, before anything is held back.
func (p *producer) look(ctx context.Context, run []pubsub.Out) (err error) {
	var last pubsub.Place
	for i := range run {
		to := run[i].To
		if to.Kind == pubsub.PlaceMain && run[i].Msg.Delay > 0 {
			if _, err := p.d.delays(ctx); err != nil {
				return err
			}
		}
		if to == last {
			continue
		}
		last = to
		switch to.Kind {
		case pubsub.PlaceMain:
			_, err = p.d.partsOf(ctx, to.Topic)
		case pubsub.PlaceRetry:
			_, err = p.d.lanesOf(ctx, to)
		}
		if _, final := codeOf(err); err != nil && !final {
			return err
		}
	}
	return nil
}

// message finds out where o goes, and writes it down.
func (p *producer) message(ctx context.Context, o *pubsub.Out) (m amqp.Publishing, exchange, to string, err error) {
	d := p.d
	m = encode(o.Msg, inStream(o.To.Kind))
	headroom := 0
	if o.To.Kind == pubsub.PlaceMain {
		headroom = pubsub.Headroom
	}
	if err := p.fits(&m, headroom); err != nil {
		return m, "", "", err
	}
	if o.To.Kind != pubsub.PlaceMain {
		lane := int32(0)
		if o.To.Kind == pubsub.PlaceRetry {
			lanes, err := d.lanesOf(ctx, o.To)
			if err != nil {
				return m, "", "", err
			}
			lane = drivers.PartitionOf(o.Msg.Key, lanes)
		}
		return m, "", d.names.queue(o.To, lane), nil // the default exchange knows queues by their names
	}
	parts, err := d.partsOf(ctx, o.To.Topic)
	if err != nil {
		return m, "", "", err
	}
	if parts == notOurs && d.names.exchange == defaultExchange {
		return m, "", "", errUnknown
	}
	lane := drivers.PartitionOf(o.Msg.Key, parts)
	if o.Msg.Key == "" && parts > 1 {
		lane = int32(p.rr % uint32(parts))
		p.rr++
	}
	exchange = d.names.exchangeOf(lane)
	if o.Msg.Delay > 0 {
		if there, err := d.delays(ctx); err != nil || !there {
			return m, "", "", cmp.Or(err, error(errReturned))
		}
		d.names.delay(&m, o.Msg.Delay)
		exchange = d.names.later(lane)
	}
	return m, exchange, key(o.To.Topic, lane), nil
}

// fits refuses what the server would end the channel or the connection for.
func (p *producer) fits(m *amqp.Publishing, headroom int) error {
	if limit := p.d.limit.Load(); int64(len(m.Body)) > limit {
		return says(pubsub.ErrTooLarge, "a payload of %d bytes, and the server takes %d", len(m.Body), limit)
	}
	if frame := p.conn.Config.FrameSize; frame > 0 {
		if n, most := headerBytes(m), frame-frameSlack-headroom; n > most {
			return says(pubsub.ErrTooLarge, "headers of %d bytes, and they have to fit into a frame, which takes %d of them", n, most)
		}
	}
	return nil
}

// publish hands one message to the client, once there is room in the window. It is called within hold.
func (p *producer) publish(ctx context.Context, f flight, exchange string, m amqp.Publishing) (err error) {
	if p.spec.Ack == pubsub.AckNone {
		if err = p.dead(); err == nil {
			_, err = p.ch.PublishWithDeferredConfirm(exchange, f.key, false, false, m)
		}
		if err == nil {
			p.report([]pubsub.Result{{Seq: f.seq, Fate: pubsub.FateAccepted}})
		}
		return err
	}
	if err := p.waitRoom(ctx); err != nil {
		return err
	}
	if f.sent, err = p.ch.PublishWithDeferredConfirm(exchange, f.key, true, false, m); err != nil {
		return err // a message that was cut off is none
	}
	alone := p.singles > 0
	f.id, f.body, f.alone = m.MessageId, m.Body, alone
	f.single = exchange != p.d.names.exchange && exchange != p.d.names.lanes() && !p.d.cfg.Classic
	p.mu.Lock()
	p.ring[p.tail%len(p.ring)] = f
	p.tail++
	idle := p.idle
	p.idle = false
	p.mu.Unlock()
	if idle {
		poke(p.work)
	}
	if !alone {
		return nil
	}
	if p.singles--; p.singles == 0 {
		p.d.careful.Store(false)
	}
	return p.wait(ctx, p.alone, true)
}

// waitRoom waits until the window has room.
func (p *producer) waitRoom(ctx context.Context) error {
	for {
		p.mu.Lock()
		full := p.tail-p.head == len(p.ring)
		p.wantsRoom = full
		why := p.why
		p.mu.Unlock()
		if why != nil || !full {
			return why
		}
		if err := p.wait(ctx, p.room, false); err != nil {
			return err
		}
	}
}

// wait waits for a token of answer. What is held back leaves before. The message that was sent last is taken, whatever ends the wait for its answer.
func (p *producer) wait(ctx context.Context, token chan struct{}, taken bool) error {
	if err := p.wire.uncork(); err != nil {
		p.wire.cork()
		return err
	}
	defer p.wire.cork()
	select {
	case <-token:
		return nil
	case <-p.stop:
	case <-ctx.Done():
	}
	if taken {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return p.dead()
}

// Close implements pubsub.Producer.
func (p *producer) Close(ctx context.Context) error {
	p.writes.Close()
	p.mu.Lock()
	p.closing = true
	poke(p.work)
	p.mu.Unlock()
	select {
	case <-p.ended:
	case <-ctx.Done():
		p.die(errGone)
		<-p.ended // it waits for nothing but report
	}
	p.mu.Lock()
	var lost []pubsub.Result
	for ; p.head < p.tail; p.head++ { // sent when the session was dead already
		lost = append(lost, pubsub.Result{Seq: p.ring[p.head%len(p.ring)].seq, Fate: pubsub.FateUnknown, Err: errGone})
	}
	p.mu.Unlock()
	if len(lost) > 0 {
		p.report(lost)
	}
	p.die(errGone)
	p.remove(p)
	shut(ctx, p.ch)
	return nil
}
