package rabbitmq

import (
	"context"
	"math"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	syncTag    = "omnibus.sync"
	maxArrived = 64          // messages that are taken in at once
	pollPause  = time.Second // where there is none
	silence    = time.Minute // after which a lane begins anew, see idle
	unheard    = 32          // commands to a queue, of which a channel has heard nothing yet, until it keeps the next ones to itself
)

// A lane is one queue that a source reads, and the channel for it. Its fields below the line are guarded by the source's mu.
type lane struct {
	s     *source
	id    int32
	queue string

	ch       *amqp.Channel
	tag      string
	ended    chan struct{} // closed when the channel brings nothing more
	gen      uint32        // counts the channels
	canceled bool          // the consumer ends because we want it to
	gained   bool          // the engine knows that the lane is ours
	losing   time.Time     // until when it is ours; zero = it stays
	away     bool          // it is given up, and not attached again yet
	back     bool          // something goes back with the channel
	heard    time.Time     // when something came last, or it was attached
	told     int           // commands since the last one that is known to be carried out
	buf      []*delivery   // not handed out
	held     []*delivery   // what the broker does not know to be settled, in the order of their tags
}

// attach begins to consume on a new channel.
func (ln *lane) attach(ctx context.Context) error {
	type consumer struct {
		ch     *amqp.Channel
		in     <-chan amqp.Delivery
		closed chan *amqp.Error
	}
	s := ln.s
	tag := "omnibus-" + s.spec.Member
	tag = tag[:min(len(tag), shortText)]
	c, err := call(ctx, func() (c consumer, err error) {
		if c.ch, err = s.conn.Channel(); err != nil {
			return c, err
		}
		c.closed = c.ch.NotifyClose(make(chan *amqp.Error, 1))
		if s.polls {
			return c, nil
		}
		if err = c.ch.Qos(s.prefetch, 0, false); err == nil {
			c.in, err = c.ch.Consume(ln.queue, tag, false, false, false, false, nil)
		}
		if err != nil {
			_ = c.ch.Close() // the broker has closed it already
		}
		return c, err
	}, func(c consumer) { _ = c.ch.Close() })
	if err != nil {
		return err
	}
	s.mu.Lock()
	if err := s.dead; err != nil { // meanwhile: nobody closes the channel any more, and its consumer would keep the queue from all others
		s.mu.Unlock()
		shut(ctx, c.ch)
		return err
	}
	ln.gen++
	gen, ended := ln.gen, make(chan struct{})
	ln.ch, ln.tag, ln.ended, ln.canceled, ln.told, ln.away, ln.heard = c.ch, tag, ended, false, 0, false, time.Now()
	if !s.exclusive && !ln.gained {
		ln.gain()
	}
	s.mu.Unlock()
	go func() {
		defer close(ended)
		if s.polls {
			ln.poll(gen, c.ch)
		} else {
			ln.read(gen, c.in)
		}
		ln.over(gen, c.closed)
	}()
	return nil
}

// gain tells the engine that the lane is ours. The source's mu is held.
func (ln *lane) gain() {
	ln.gained = true
	ln.s.events = append(ln.s.events, pubsub.LaneEvent{Lane: ln.id, Gen: ln.gen, Kind: pubsub.LaneGained})
	poke(ln.s.ready)
}

// read takes in what the channel brings until it ends.
func (ln *lane) read(gen uint32, in <-chan amqp.Delivery) {
	for d := range in {
		list := append(make([]*delivery, 0, 1), ln.take(gen, d))
		for more := true; more && len(list) < maxArrived; {
			select {
			case d, ok := <-in:
				if more = ok; ok {
					list = append(list, ln.take(gen, d))
				}
			default:
				more = false
			}
		}
		ln.s.arrive(ln, gen, list)
	}
}

// poll asks for one message after the other, each when the one before it is settled. A queue may send a consumer a message when that has just ended, and count
// a delivery that nobody has seen: in the quarantine it would pass for one that no process survives.
func (ln *lane) poll(gen uint32, ch *amqp.Channel) {
	s := ln.s
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for {
		s.mu.Lock()
		over, free := s.dead != nil || s.quiet, len(ln.held) == 0
		s.mu.Unlock()
		if over {
			return
		}
		if free {
			d, ok, err := ch.Get(ln.queue, false)
			if err != nil {
				return
			}
			if ok {
				s.arrive(ln, gen, []*delivery{ln.take(gen, d)})
				continue
			}
		}
		select {
		case <-s.freed:
		case <-tick.C:
		}
	}
}

// over ends the session, unless the lane was to end.
func (ln *lane) over(gen uint32, closed chan *amqp.Error) {
	var why error = errCanceled
	select {
	case e, ok := <-closed:
		if ok {
			why = e
		}
	default:
	}
	s := ln.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if ln.gen == gen && !ln.canceled {
		s.fail(why)
	}
}

// take makes the engine's view of a message.
func (ln *lane) take(gen uint32, d amqp.Delivery) *delivery {
	s := ln.s
	dl := &delivery{lane: ln, gen: gen, native: d, msg: decode(&d), topic: s.spec.From.Topic}
	private := d.RoutingKey == ln.queue // it came by the queue's name: somebody has sent it to this group alone
	if pubsub.IsPattern(dl.topic) {
		if topic := text(d.Headers[hdrTopic]); private && topic != "" {
			dl.topic = topic
		} else if !private {
			dl.topic = topicOf(d.RoutingKey)
		}
	}
	if private {
		dl.failed = failures(d.Headers)
	}
	if s.d.caps.Deliveries && s.spec.From.Group != pubsub.Broadcast {
		dl.deliveries = 1
		if n, ok := integer(d.Headers["x-delivery-count"]); ok && d.Redelivered { // else somebody has made it up
			dl.deliveries = int32(min(max(n+1, 2), math.MaxInt32))
		}
		if s.polls && dl.deliveries <= math.MaxInt32-dl.failed {
			dl.deliveries += dl.failed // a copy is counted anew, and each failure was a delivery
		}
	}
	return dl
}

// flush tells the broker what is acknowledged: all up to a message at once where nothing before it is open, the others one by one. What the broker knows is
// let go: one message that is held for long keeps nobody's memory but its own. The source's mu is held.
func (ln *lane) flush() (err error) {
	last := uint64(0)
	open := ln.held[:0]
	for _, dl := range ln.held {
		switch {
		case dl.state < deliveryAcked:
			open = append(open, dl)
		case dl.state == deliveryDone: // the broker knows it already, and must not be told again
		case len(open) == 0:
			last = dl.native.DeliveryTag
		case err == nil:
			ln.told++
			err = ln.ch.Ack(dl.native.DeliveryTag, false)
		}
	}
	clear(ln.held[len(open):])
	ln.held = open
	if last > 0 && err == nil {
		ln.told++
		err = ln.ch.Ack(last, true)
	}
	if len(open) == 0 {
		poke(ln.s.freed)
	}
	return err
}

// sync returns when the broker has carried out what it was told, or will whatever becomes of us. A channel forgets, when it is closed, what it has kept to
// itself because a quorum queue was behind. A consumer that begins is answered by the queue, after the commands that it has; by then the channel has heard of
// these, and sends what it kept; and when the consumer has ended, that is carried out, too. The source's mu is held: what that consumer gets must not be
// acknowledged along with what comes after it. Of a live tail nothing comes back.
func (ln *lane) sync(ctx context.Context) error {
	ch, wait := ln.ch, ln.told >= unheard && ln.s.spec.From.Group != pubsub.Broadcast
	_, err := call(ctx, func() (struct{}, error) {
		if err := ch.Qos(1, 0, false); err != nil || !wait {
			return struct{}{}, err
		}
		in, err := ch.Consume(ln.queue, syncTag, false, false, false, false, nil)
		if err == nil {
			err = ch.Cancel(syncTag, false)
		}
		if err != nil {
			return struct{}{}, err
		}
		for d := range in {
			if err := ch.Nack(d.DeliveryTag, false, true); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	}, nil)
	if err == nil && wait {
		ln.told = 0
	}
	return err
}

// close ends the channel: what is not settled goes back.
func (ln *lane) close(ctx context.Context) {
	s := ln.s
	s.mu.Lock()
	ch := ln.ch
	ln.canceled = true
	if ch != nil && ln.told >= unheard && !ch.IsClosed() {
		_ = ln.sync(ctx) // or it comes again
	}
	s.mu.Unlock()
	if ch != nil {
		shut(ctx, ch)
	}
}

// ages says whether lanes that bring nothing for a while are to begin anew. When another node begins to lead a quorum queue, or one has lost sight of another, the
// queue may believe that it has sent a consumer messages that were lost on their way, or that the consumer is gone: and the client is told nothing of it. The
// messages come when the next one does, or when the consumer's channel is closed.
func (s *source) ages() bool {
	return !s.d.cfg.Classic && !s.polls && s.spec.From.Group != pubsub.Broadcast
}

// idle says whether the lane is to begin anew: nothing is lost by that. The source's mu is held.
func (ln *lane) idle(now time.Time) bool {
	s := ln.s
	return s.ages() && s.dead == nil && !s.quiet && ln.losing.IsZero() && !ln.away && len(ln.held) == 0 && now.Sub(ln.heard) > silence
}

// freshen lets idle lanes begin anew, where members compete. Of an exclusive group tend does it.
func (s *source) freshen(life context.Context) {
	tick := time.NewTicker(silence / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-life.Done():
			return
		}
		for _, ln := range s.lanes {
			ctx, cancel := context.WithTimeout(life, dialTimeout)
			err := ln.anew(ctx)
			cancel()
			if err != nil {
				s.die(err) // nothing, where it is dead
				return
			}
		}
	}
}

// anew attaches an idle lane again.
func (ln *lane) anew(ctx context.Context) error {
	s := ln.s
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	idle := ln.idle(time.Now())
	if idle {
		ln.gen++ // what comes yet goes back with the channel
	}
	s.mu.Unlock()
	if !idle {
		return nil
	}
	ln.close(ctx)
	return ln.attach(ctx)
}

// leave gives the lane up to who stands by, and stands by itself. told says that the engine knows.
func (ln *lane) leave(ctx context.Context, told bool) error {
	s := ln.s
	s.mu.Lock()
	if s.dead != nil || ln.losing.IsZero() {
		defer s.mu.Unlock()
		return s.dead
	}
	if !told {
		s.events = append(s.events, pubsub.LaneEvent{Lane: ln.id, Gen: ln.gen, Kind: pubsub.LaneLost})
		poke(s.ready)
	}
	ln.gen++ // what comes yet is for nobody
	ln.gained, ln.losing, ln.back, ln.away, ln.buf, ln.held = false, time.Time{}, false, true, nil, nil
	s.mu.Unlock()
	ln.close(ctx)
	if err := ln.attach(ctx); err != nil {
		s.die(err)
		return err
	}
	return nil
}

// LaneDone implements pubsub.Source.
func (s *source) LaneDone(ctx context.Context, losing pubsub.LaneEvent) error {
	s.mu.Lock()
	var done *lane
	for _, ln := range s.lanes {
		if ln.id == losing.Lane && ln.gen == losing.Gen && !ln.losing.IsZero() {
			done = ln
		}
	}
	dead := s.dead
	s.mu.Unlock()
	if done == nil {
		return dead
	}
	return done.leave(ctx, true)
}
