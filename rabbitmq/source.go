package rabbitmq

import (
	"context"
	"crypto/rand"
	"errors"
	"math"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A source reads the queues of a place, each through a lane. An exclusive one reads queues with a single active consumer: what it hands back goes back, in its
// place, when the lane's channel closes, since the queue would deliver it behind what it has delivered already.
type source struct {
	*link
	d         *driver
	spec      pubsub.SourceSpec
	exclusive bool
	polls     bool          // the quarantine, see poll
	prefetch  int           // of each lane
	members   *amqp.Channel // of an exclusive group, see meet
	called    <-chan amqp.Delivery
	ready     chan struct{} // a token: look again
	kick      chan struct{} // the same for carry
	freed     chan struct{} // the same for poll
	end       context.CancelFunc
	over      <-chan struct{} // closed by end
	helpers   sync.WaitGroup  // carry, its later, and tend or freshen
	turn      sync.Mutex      // of Quiesce and freshen; taken before mu

	mu     sync.Mutex
	lanes  []*lane
	events []pubsub.LaneEvent
	dead   error
	quiet  bool
	from   int // the lane to begin with, so that all get their turn
	moves  []copyOf
	copies map[uint64]copyOf // on their way
	sent   uint64            // copies so far
	moved  chan struct{}     // closed when none is on its way any more; nil = nobody waits
}

// A delivery is a message that has come and is not settled.
type delivery struct {
	lane       *lane
	gen        uint32
	native     amqp.Delivery
	msg        *pubsub.Message
	topic      string
	deliveries int32
	failed     int32
	state      deliveryState
}

type deliveryState uint8

const (
	deliveryHere   deliveryState = iota // in its lane's buffer
	deliveryOut                         // with the engine
	deliveryMoving                      // its copy is on its way
	deliveryBack                        // it goes back with the lane
	deliveryAcked                       // the broker is to be told
	deliveryDone                        // the broker has been told
)

// OpenSource implements pubsub.Driver.
func (d *driver) OpenSource(ctx context.Context, spec pubsub.SourceSpec) (pubsub.Source, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if spec.From.Kind == pubsub.PlaceRetry {
		return nil, says(pubsub.ErrUnsupported, "what is sent to a group alone comes with the group's other messages, not by itself")
	}
	at, err := d.in.connected(ctx)
	if err != nil {
		return nil, err
	}
	s := &source{
		link: at, d: d, spec: spec, ready: make(chan struct{}, 1), kick: make(chan struct{}, 1), freed: make(chan struct{}, 1), copies: map[uint64]copyOf{}, end: func() {},
		exclusive: spec.From.Kind == pubsub.PlaceMain && spec.From.Group != pubsub.Broadcast && spec.Order.Exclusive() && d.caps.Exclusive,
		polls:     spec.From.Kind == pubsub.PlaceQuarantine,
	}
	var queues []string
	switch {
	case spec.From.Group == pubsub.Broadcast:
		queues, err = d.liveTail(ctx, at, spec)
	case spec.From.Kind == pubsub.PlaceQuarantine:
		queues = []string{d.names.queue(spec.From, 0)}
	case spec.Manage == pubsub.Off:
		queues, err = d.queuesThere(ctx, at, spec.From)
	default:
		queues, err = d.ensureGroup(ctx, at, spec)
	}
	if err != nil {
		return nil, err
	}
	s.prefetch = min(max(spec.MaxInFlight/len(queues), 1), math.MaxUint16)
	for i, queue := range queues {
		s.lanes = append(s.lanes, &lane{s: s, id: int32(i), queue: queue})
	}
	if err = at.add(s); err == nil {
		for _, ln := range s.lanes {
			if err = ln.attach(ctx); err != nil {
				break
			}
		}
	}
	if err == nil && s.exclusive {
		err = s.meet(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	s.mu.Lock()
	s.end, s.over = end, life.Done()
	if s.dead != nil {
		end()
	}
	s.mu.Unlock()
	s.helpers.Go(func() { s.carry(life) })
	switch {
	case s.exclusive:
		s.helpers.Go(func() { s.tend(life) })
	case s.ages():
		s.helpers.Go(func() { s.freshen(life) })
	}
	return s, nil
}

// liveTail makes a queue of our own that begins now and ends with its connection.
func (d *driver) liveTail(ctx context.Context, at *link, spec pubsub.SourceSpec) ([]string, error) {
	var err error
	retries := d.caps.RetryIn > 0
	switch {
	case spec.Manage == pubsub.Off:
	case pubsub.IsPattern(spec.From.Topic):
		err = d.ensureExchange(ctx, at, spec.Manage)
	default:
		_, err = d.ensureTopic(ctx, at, spec.From.Topic, 0, spec.Manage)
	}
	if err == nil && retries && spec.Manage != pubsub.Off {
		err = d.ensureLadder(ctx, at, spec.Manage)
	}
	all := d.names.bindings(spec.From.Topic, -1)
	if err == nil && spec.Manage != pubsub.Create { // where nobody has made a topic with partitions, there are no lanes
		var there bool
		there, err = at.found(ctx, func(ch *amqp.Channel) error {
			return ch.ExchangeDeclarePassive(d.names.lanes(), amqp.ExchangeTopic, true, false, false, false, nil)
		})
		if !there {
			all = all[:1]
		}
	}
	if err != nil {
		return nil, err
	}
	name := d.names.own("broadcast." + rand.Text())
	return []string{name}, at.with(ctx, func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclare(name, false, true, true, false, nil); err != nil {
			return err
		}
		if retries {
			if err := ch.QueueBind(name, name, d.names.due(), false, nil); err != nil {
				return err
			}
		}
		if spec.Manage == pubsub.Create {
			if err := d.declareLanes(ch); err != nil {
				return err
			}
		}
		for _, b := range all {
			if err := ch.QueueBind(name, b.key, b.exchange, false, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// die implements session.
func (s *source) die(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(err)
}

// fail ends the session. mu is held.
func (s *source) fail(err error) {
	if s.dead != nil {
		return
	}
	s.dead = err
	s.end()
	s.settleMoves()
	poke(s.ready)
	poke(s.freed)
}

// arrive takes in what a lane's channel has brought.
func (s *source) arrive(ln *lane, gen uint32, list []*delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead != nil || ln.gen != gen {
		return // it goes back with its channel
	}
	ln.heard = time.Now()
	if !ln.gained {
		ln.gain()
	}
	pattern := pubsub.IsPattern(s.spec.From.Topic)
	for _, dl := range list {
		ln.held = append(ln.held, dl)
		switch wait := dueIn(dl.native.Headers); {
		case pattern && dl.native.RoutingKey != ln.queue && (!pubsub.MatchPattern(s.spec.From.Topic, dl.topic) || isLost(dl)):
			dl.state = deliveryAcked // what had a delay comes through both exchanges: where it is not a lane, it may pass for a topic
		case wait > 0 && s.d.caps.RetryIn > 0:
			s.move(copyOf{dl: dl, delay: wait, failed: dl.failed})
		case s.quiet && s.exclusive:
			dl.state = deliveryBack
		default:
			ln.buf = append(ln.buf, dl)
		}
	}
	if pattern {
		if err := ln.flush(); err != nil {
			s.fail(err)
		}
	}
	poke(s.ready)
}

// isLost says whether a message is the retry of another group whose queue is gone: the ladder lets go whatever finds no queue, and the name of a queue may pass
// for a topic.
func isLost(dl *delivery) bool {
	_, retry := dl.native.Headers[hdrFailed]
	return retry && strings.Contains(dl.topic, "__")
}

// Recv implements pubsub.Source.
func (s *source) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	for {
		s.mu.Lock()
		for _, ln := range s.lanes {
			if ln.back && ln.losing.IsZero() && !s.quiet {
				s.fail(errRest) // who hands back and goes on wants it again, before what follows it
			}
		}
		if s.dead != nil {
			err := s.dead
			s.mu.Unlock()
			return 0, nil, err
		}
		events := s.events
		s.events = nil
		n := 0
		if ctx.Err() == nil && !s.quiet {
			n = s.fill(buf, maxBytes)
		}
		s.mu.Unlock()
		if n > 0 || len(events) > 0 {
			return n, events, nil
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// fill hands out what has come. mu is held.
func (s *source) fill(buf []pubsub.Record, maxBytes int64) (n int) {
	if most := s.spec.MaxInFlight; len(s.lanes) > most { // each lane's channel brings one all the same
		buf = buf[:min(len(buf), max(most-s.out(), 0))]
	}
	for i := range s.lanes {
		ln := s.lanes[(s.from+i)%len(s.lanes)]
		if !ln.losing.IsZero() {
			continue
		}
		for n < len(buf) && (n == 0 || maxBytes > 0) && len(ln.buf) > 0 {
			dl := ln.buf[0]
			ln.buf[0] = nil
			ln.buf = ln.buf[1:]
			dl.state = deliveryOut
			buf[n] = pubsub.Record{
				Msg: dl.msg, Topic: dl.topic, Deliveries: dl.deliveries, Failed: dl.failed,
				Token: pubsub.Token{Lane: ln.id, Gen: dl.gen, A: dl.native.DeliveryTag, Ref: dl},
			}
			maxBytes -= dl.msg.Size()
			n++
		}
	}
	s.from++
	return n
}

// out counts what the engine has. mu is held.
func (s *source) out() (n int) {
	for _, ln := range s.lanes {
		for _, dl := range ln.held {
			if dl.state == deliveryOut {
				n++
			}
		}
	}
	return n
}

// Quiesce implements pubsub.Source. Members that compete get at once what was not handed out; the next member of an exclusive group gets it, in order, when this
// one has closed.
func (s *source) Quiesce(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = true
	if s.exclusive || s.dead != nil {
		for _, ln := range s.lanes {
			for _, dl := range ln.buf {
				dl.state, ln.back = deliveryBack, true
			}
			ln.buf = nil
		}
		return s.dead
	}
	for _, ln := range s.lanes {
		ch, tag, ended := ln.ch, ln.tag, ln.ended
		ln.canceled = true
		s.mu.Unlock()
		var err error
		if s.polls {
			poke(s.freed)
		} else {
			_, err = call(ctx, func() (struct{}, error) { return struct{}{}, ch.Cancel(tag, false) }, nil)
		}
		if err == nil {
			select {
			case <-ended: // all that the broker had sent is here
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		s.mu.Lock()
		if err != nil {
			return err
		}
		back := ln.buf
		ln.buf = nil
		for _, dl := range back {
			if err := s.handBack(dl); err != nil {
				return err
			}
		}
	}
	return s.dead
}

// Close implements pubsub.Source. What is not settled goes back.
func (s *source) Close(ctx context.Context) error {
	s.die(errGone)
	s.helpers.Wait() // none attaches a lane any more
	var all sync.WaitGroup
	for _, ln := range s.lanes {
		all.Go(func() { ln.close(ctx) })
	}
	if s.members != nil {
		all.Go(func() { shut(ctx, s.members) })
	}
	all.Wait()
	s.remove(s)
	return nil
}

// RecordAs implements pubsub.RecordAser: target may be a **amqp091.Delivery.
func (s *source) RecordAs(t pubsub.Token, target any) bool {
	m, ok := target.(**amqp.Delivery)
	dl, have := t.Ref.(*delivery)
	if ok && have {
		*m = &dl.native
	}
	return ok && have
}
