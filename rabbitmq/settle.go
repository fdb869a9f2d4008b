package rabbitmq

import (
	"context"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A copyOf is a message on its way to its own queue, through the ladder: the broker counts deliveries, not failures, and what it gets back it delivers at once.
// The original is acknowledged when the copy is stored.
type copyOf struct {
	dl     *delivery
	delay  time.Duration
	failed int32
	tries  int // that the broker has refused
}

const (
	firstPause = 100 * time.Millisecond // before a copy that was refused is sent again; each further pause is twice as long
	lastPause  = 10 * time.Second
)

// find returns what a token names, if it is still ours. Tags begin anew with each channel: the delivery itself tells them apart. mu is held.
func (s *source) find(t pubsub.Token) *delivery {
	dl, ok := t.Ref.(*delivery)
	if !ok || dl.lane.s != s || dl.gen != dl.lane.gen || dl.state != deliveryOut {
		return nil
	}
	return dl
}

// Settle implements pubsub.Source. An acknowledgement is sent and forgotten: a lost one brings its message back.
func (s *source) Settle(_ context.Context, list []pubsub.Settlement, errs []error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead != nil {
		return s.dead
	}
	s.wire.cork()
	defer func() {
		if flushed := s.wire.uncork(); err == nil {
			err = flushed
		}
	}()
	for i := range list {
		dl := s.find(list[i].Token)
		if dl == nil {
			errs[i] = errStale
			continue
		}
		switch list[i].As {
		case pubsub.SettleAck:
			dl.state = deliveryAcked
		case pubsub.SettleRelease:
			err = s.handBack(dl)
		case pubsub.SettleRetryIn:
			s.move(copyOf{dl: dl, delay: list[i].Delay, failed: list[i].Failed})
		}
		if err != nil {
			return err
		}
	}
	for _, ln := range s.lanes {
		if err := ln.flush(); err != nil {
			return err
		}
	}
	if len(s.lanes) > s.spec.MaxInFlight {
		poke(s.ready) // see fill
	}
	return nil
}

// handBack gives a message back. In the quarantine a delivery that no process survives is the proof, and a hand-back would count as one: there a
// copy goes back. mu is held.
func (s *source) handBack(dl *delivery) error {
	switch {
	case s.spec.From.Kind == pubsub.PlaceQuarantine:
		s.move(copyOf{dl: dl, failed: dl.failed})
	case s.exclusive:
		dl.state, dl.lane.back = deliveryBack, true
	default:
		dl.state = deliveryDone
		dl.lane.told++
		return dl.lane.ch.Nack(dl.native.DeliveryTag, false, true)
	}
	return nil
}

// Renew implements pubsub.Source: leases end with their channel only.
func (s *source) Renew(_ context.Context, list []pubsub.Renewal, errs []error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		if s.find(list[i].Token) == nil {
			errs[i] = errStale
		}
	}
	return s.dead
}

// Sync implements pubsub.Source.
func (s *source) Sync(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if err := s.waitMoves(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ln := range s.lanes {
		if s.dead != nil {
			return s.dead
		}
		if err := ln.sync(ctx); err != nil {
			return err
		}
	}
	return nil
}

// waitMoves waits until no copy is on its way.
func (s *source) waitMoves(ctx context.Context) error {
	s.mu.Lock()
	if s.dead == nil && len(s.moves)+len(s.copies) > 0 && s.moved == nil {
		s.moved = make(chan struct{})
	}
	moved := s.moved
	s.mu.Unlock()
	if moved != nil {
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// settleMoves tells who waits that no copy is on its way. mu is held.
func (s *source) settleMoves() {
	if s.moved != nil && (s.dead != nil || len(s.moves)+len(s.copies) == 0) {
		close(s.moved)
		s.moved = nil
	}
}

// move puts a copy on its way. mu is held.
func (s *source) move(c copyOf) {
	c.dl.state = deliveryMoving
	s.moves = append(s.moves, c)
	poke(s.kick)
}

// later does something with a message whose copy was not taken, if it is still ours then. copied calls it, while carry is there. mu is held.
func (s *source) later(wait time.Duration, dl *delivery, do func()) {
	s.helpers.Go(func() {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.over:
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.dead == nil && dl.gen == dl.lane.gen && dl.state == deliveryMoving {
			do()
		}
	})
}

// again sends a copy once more, for which a queue had no room: an operator may have bounded it. Until then the original stays ours. mu is held.
func (s *source) again(c copyOf) {
	wait := min(firstPause<<min(c.tries, 10), lastPause)
	c.tries++
	s.later(wait, c.dl, func() { s.move(c) })
}

// keep holds a message whose copy the broker would not take, however often, and gives back the message itself when its delay is over; the broker would not let
// us have it for longer than leaseMax. mu is held.
func (s *source) keep(c copyOf) {
	s.later(min(max(c.delay, firstPause), leaseMax/2), c.dl, func() {
		if s.exclusive {
			c.dl.state, c.dl.lane.back = deliveryBack, true
			poke(s.ready)
			return
		}
		c.dl.state = deliveryDone
		err := c.dl.lane.ch.Nack(c.dl.native.DeliveryTag, false, true)
		if err == nil {
			err = c.dl.lane.flush()
		}
		if err != nil {
			s.fail(err)
		}
	})
}

// carry sends the copies. It does so beside Settle: a broker that takes no messages for a while still takes acknowledgements.
func (s *source) carry(life context.Context) {
	var p *producer
	defer func() {
		if p != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(life), closeTimeout)
			defer cancel()
			_ = p.Close(ctx) // what it does not know comes again
		}
	}()
	for {
		select {
		case <-s.kick:
		case <-life.Done():
			return
		}
		s.mu.Lock()
		first := s.sent
		list := s.moves
		s.moves = nil
		for _, c := range list {
			s.copies[s.sent] = c
			s.sent++
		}
		s.mu.Unlock()
		if len(list) == 0 {
			continue
		}
		var err error
		if p != nil && p.dead() != nil { // a copy that was too large has ended it
			_ = p.Close(life)
			p = nil
		}
		if p == nil {
			p, err = s.carrier(life)
		}
		if err == nil {
			err = s.sendCopies(life, p, first, list)
		}
		if err != nil {
			s.die(err)
			return
		}
	}
}

// carrier opens the producer of the copies. A connection that publishes is not answered while the broker takes no messages.
func (s *source) carrier(life context.Context) (*producer, error) {
	for {
		at, err := s.d.out.connected(life)
		if err == nil {
			err = at.opened(life, life.Done())
		}
		if err != nil {
			return nil, err
		}
		p, err := s.d.newProducer(life, pubsub.ProducerSpec{MaxPending: s.spec.MaxInFlight}, s.copied)
		if gate, _ := at.gate(); err == nil || gate == nil {
			return p, err
		}
	}
}

func (s *source) sendCopies(life context.Context, p *producer, first uint64, list []copyOf) error {
	return p.hold(life, func() error { return nil }, func() error {
		for i := range list {
			c := &list[i]
			m := encode(c.dl.msg, false)
			m.Headers[hdrFailed] = c.failed
			if pubsub.IsPattern(s.spec.From.Topic) {
				m.Headers[hdrTopic] = c.dl.topic
			}
			exchange := "" // straight to the queue
			if c.delay > 0 {
				exchange = s.d.names.delay(&m, c.delay)
			}
			seq := first + uint64(i)
			if err := p.fits(&m, 0); err != nil {
				s.copied([]pubsub.Result{{Seq: seq, Fate: pubsub.FateRefused, Err: err}})
				continue
			}
			if err := p.publish(life, flight{seq: seq, to: s.spec.From, key: c.dl.lane.queue}, exchange, m); err != nil {
				return err
			}
		}
		return nil
	})
}

// copied is told the fates of copies.
func (s *source) copied(rs []pubsub.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	touched := map[*lane]struct{}{}
	for _, r := range rs {
		c, ok := s.copies[r.Seq]
		if !ok {
			continue
		}
		delete(s.copies, r.Seq)
		code, _ := codeOf(r.Err)
		ours := c.dl.gen == c.dl.lane.gen && c.dl.state == deliveryMoving && s.dead == nil
		switch {
		case r.Fate == pubsub.FateUnknown:
			s.fail(&brokerError{pubsub.ErrUnavailable, false, "what became of a copy is not known: " + r.Err.Error()}) // it comes again
		case !ours:
		case r.Fate == pubsub.FateAccepted:
			c.dl.state = deliveryAcked
			touched[c.dl.lane] = struct{}{}
		case code == pubsub.ErrTooLarge:
			s.keep(c)
		case code == pubsub.ErrExhausted || code == pubsub.ErrUnconfirmed:
			s.again(c)
		default:
			s.fail(r.Err)
		}
	}
	for ln := range touched {
		if err := ln.flush(); err != nil {
			s.fail(err)
		}
	}
	s.settleMoves()
}
