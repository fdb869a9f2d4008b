package rabbitmq

import (
	"bytes"
	"errors"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
)

const maxResults = 256 // that are told at once

// answer waits for the answers, one after the other, until all have come and the session is closed or dead.
func (p *producer) answer() {
	defer close(p.ended)
	for {
		p.mu.Lock()
		empty := p.head == p.tail
		over := empty && (p.closing || p.why != nil)
		p.idle = empty && !over
		var f flight
		if !empty {
			f = p.ring[p.head%len(p.ring)]
		}
		p.mu.Unlock()
		switch {
		case over:
			p.tell()
			return
		case empty:
			p.tell()
			select {
			case <-p.work:
			case <-p.stop:
			}
			continue
		}
		p.results = append(p.results, p.judge(&f))
		if len(p.results) >= maxResults || f.alone {
			p.tell()
		}
		p.pop()
		if f.alone {
			poke(p.alone)
		}
	}
}

// pop takes what has its answer out of the window. Who waits for room waits until a quarter is free: one message after the other would be slow.
func (p *producer) pop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ring[p.head%len(p.ring)] = flight{}
	p.head++
	if p.wantsRoom && p.tail-p.head <= len(p.ring)*3/4 {
		p.wantsRoom = false
		poke(p.room)
	}
}

// poke leaves a token, if there is none.
func poke(token chan struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}

// tell reports what is gathered.
func (p *producer) tell() {
	if len(p.results) > 0 {
		p.report(p.results)
		p.results = p.results[:0]
	}
}

// judge waits for the answer to a message. That it was returned has been said before it was confirmed.
func (p *producer) judge(f *flight) pubsub.Result {
	select {
	case <-f.sent.Done():
	default:
		p.tell()
		p.hear(f)
	}
	for more := true; more; {
		select {
		case r, ok := <-p.returns:
			p.heard(r, ok)
		default:
			more = false
		}
	}
	r := pubsub.Result{Seq: f.seq, Fate: pubsub.FateAccepted}
	switch {
	case p.takeReturn(f):
		r.Fate, r.Err = pubsub.FateRefused, errReturned
		if f.to.Kind != pubsub.PlaceMain {
			r.Err = says(pubsub.ErrNotFound, "there is no queue %q", f.key)
		}
		p.d.forgetTopic(f.to) // it may have been made again, with another number of partitions
	case f.sent.Acked():
	case !p.ch.IsClosed() && p.dead() == nil:
		if r.Fate, r.Err = pubsub.FateRefused, errNacked; f.single {
			r.Err = errFull
		}
	default:
		r.Fate, r.Err = p.unknown(f)
	}
	if r.Fate != pubsub.FateUnknown && f.alone && r.Err != nil {
		p.d.careful.Store(false) // it was this one
	}
	return r
}

// hear waits for the answer, or the end of the session.
func (p *producer) hear(f *flight) {
	for {
		select {
		case <-f.sent.Done():
			return
		case <-p.stop:
			return
		case r, ok := <-p.returns:
			p.heard(r, ok)
		}
	}
}

func (p *producer) heard(r amqp.Return, ok bool) {
	if !ok {
		p.returns = nil // the channel is closed
		return
	}
	p.returned = append(p.returned, r)
}

// takeReturn says whether a message was returned. Returns come in the order of the messages, so it is the first one, if any; of two messages with the same
// ID, key and payload it does not matter which.
func (p *producer) takeReturn(f *flight) bool {
	if len(p.returned) == 0 {
		return false
	}
	r := &p.returned[0]
	if r.MessageId != f.id || r.RoutingKey != f.key || !bytes.Equal(r.Body, f.body) {
		return false
	}
	p.returned = p.returned[1:]
	return true
}

// unknown is the fate of a message without an answer. Where the broker has ended the channel because of one message, that is this one if it went alone;
// else it is among those without an answer, and they go one by one the next time.
func (p *producer) unknown(f *flight) (pubsub.Fate, error) {
	if p.cause == nil {
		select {
		case e, ok := <-p.closed:
			if p.cause = errGone; ok {
				p.cause = e
			}
		default:
			p.cause = p.dead()
		}
	}
	e, ok := errors.AsType[*amqp.Error](p.cause)
	if !ok || !e.Server {
		return pubsub.FateUnknown, p.cause
	}
	if limit := limitIn(e); limit > 0 {
		p.d.limit.Store(min(p.d.limit.Load(), limit))
		if int64(len(f.body)) > limit {
			return pubsub.FateRefused, e
		}
	}
	if code, final := classify(e); !final || code == pubsub.ErrConflict {
		return pubsub.FateUnknown, e
	}
	if f.alone {
		return pubsub.FateRefused, e
	}
	p.d.forget()
	p.d.careful.Store(true)
	return pubsub.FateUnknown, e
}
