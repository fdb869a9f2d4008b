package pubsub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/internal/backoff"
)

// closeGrace is how long a dying session may take to tell the fates that it knows.
const closeGrace = 2 * time.Second

// poke tells the sender that there is something to do. mu is held.
func (p *publisher) poke() {
	if p.asleep {
		p.asleep = false
		p.wake <- struct{}{}
	}
}

// sleep waits for a poke. mu is held, and held again when it returns.
func (p *publisher) sleep() {
	p.asleep = true
	p.mu.Unlock()
	<-p.wake
	p.mu.Lock()
}

// serve is the sender: it keeps a session open while there is something to send.
func (p *publisher) serve() {
	defer close(p.done)
	delays := retryDelays()
	for {
		prod := p.connect(&delays)
		if prod == nil {
			return
		}
		ended := p.send(prod, &delays)
		ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
		err := prod.Close(ctx)
		cancel()
		if ended {
			if err != nil {
				p.b.log.Debug("closing a producer", "err", err)
			}
			return
		}
		p.rewind()
		if delays.Wait(p.b.life) != nil {
			return
		}
	}
}

// connect opens a session once there is something to send. nil means that the publisher has ended.
func (p *publisher) connect(delays *backoff.Backoff) Producer {
	for {
		p.mu.Lock()
		for p.next == p.end && !p.ended {
			p.sleep()
		}
		ended := p.ended
		p.mu.Unlock()
		if ended {
			return nil
		}
		ctx, cancel := context.WithTimeout(p.b.life, openTimeout)
		prod, err := p.b.drv.OpenProducer(ctx, ProducerSpec{Ack: p.opts.Ack, MaxPending: p.opts.MaxPending}, p.report)
		cancel()
		if err == nil {
			return prod
		}
		p.b.log.Warn("cannot open a producer", "err", err)
		final := false
		if !isContextError(err) {
			_, final = p.b.drv.Classify(err)
		}
		p.mu.Lock()
		p.halted = err
		if final {
			p.failAll(err)
		}
		p.release()
		if delays.Wait(p.b.life) != nil {
			return nil
		}
	}
}

// send serves one session until it is to be replaced, or (true) the publisher has ended.
func (p *publisher) send(prod Producer, delays *backoff.Backoff) (ended bool) {
	ctx, cut := context.WithCancel(p.b.life)
	defer cut()
	p.mu.Lock()
	p.prod, p.sendCtx, p.cut, p.halted = prod, ctx, cut, nil
	for p.halted == nil && !p.ended {
		if p.canSend() && p.next < p.end {
			before := p.base
			p.pump()
			if p.base > before {
				delays.Reset() // it is a working session
			}
			p.release()
			p.mu.Lock()
		} else {
			p.sleep()
		}
	}
	for p.sending { // a blocking caller is in Send; cut has been called, or soon its run is over
		cut()
		p.sleep()
	}
	p.prod, p.cut, ended = nil, nil, p.ended
	p.mu.Unlock()
	return ended
}

func (p *publisher) canSend() bool { return !p.sending && p.halted == nil && !p.ended }

// pump hands what is queued to the session, a run at a time. mu is held, but not during Send; the caller calls release.
func (p *publisher) pump() {
	p.sending = true
	for p.next < p.end && p.halted == nil && !p.ended {
		run := p.run[:0]
		for p.next < p.end && len(run) < maxRun {
			e := p.entry(p.next)
			p.next++
			if e.state == queued {
				e.state, e.refused = sent, false
				e.out.Again = e.maybe || p.opts.DedupByID || p == p.b.moves // a process that crashed may have moved it before
				run = append(run, e.out)
			}
		}
		if len(run) == 0 {
			break
		}
		prod, ctx := p.prod, p.sendCtx
		p.mu.Unlock()
		n, err := prod.Send(ctx, run)
		p.mu.Lock()
		for i := range run[n:] {
			if e := p.entry(run[n+i].Seq); e != nil && e.state == sent {
				e.state = queued // certainly not sent
			}
		}
		if err == nil && n < len(run) {
			err = fmt.Errorf("the driver took %d of %d messages and gave no reason", n, len(run))
		}
		if err != nil {
			p.halt(err)
		}
		clear(run)
		p.run = run
	}
	p.sending = false
	p.advance()
	if p.halted != nil || p.ended || p.next < p.end {
		p.poke()
	}
}

// halt says that the session is to be replaced. mu is held.
func (p *publisher) halt(err error) {
	if p.halted == nil {
		p.halted = err
		if p.cut != nil {
			p.cut()
		}
		p.poke()
	}
}

func (p *publisher) entry(seq uint64) *pending {
	if seq < p.base || seq >= p.end {
		return nil
	}
	return &p.ring[seq&uint64(len(p.ring)-1)]
}

// report takes the fates from the session. It is called from any goroutine, also from within Send.
func (p *publisher) report(rs []Result) {
	p.mu.Lock()
	for i := range rs {
		r := &rs[i]
		e := p.entry(r.Seq)
		if e == nil || e.state != sent { // its deadline or its caller's context was faster
			continue
		}
		switch r.Fate {
		case FateAccepted:
			e.accepted = true
			p.complete(e, r.Pos, nil)
		case FateRefused:
			err := r.Err
			if err == nil {
				err = errors.New("refused without a reason")
			}
			code, final := p.b.drv.Classify(err)
			if code == ErrUnavailable && !final {
				e.state, e.refused = queued, true
				p.halt(err)
				continue
			}
			p.complete(e, Position{}, &Error{Op: "publish", Broker: p.b.name, Topic: e.out.To.Topic, Code: code, Err: err, Hint: refusedHint(code)})
		default:
			e.state, e.maybe, e.unknown = queued, true, true
			err := r.Err
			if err == nil {
				err = errors.New("the session ended before the broker answered")
			}
			p.halt(err)
		}
	}
	p.advance()
	p.release()
}

func refusedHint(code Code) string {
	switch code {
	case ErrUnroutable, ErrNotFound:
		return "nobody provisioned the topic: call Ensure, or Subscribe first"
	case ErrExhausted:
		return "the broker is full: let its consumers catch up, or give it more room"
	}
	return ""
}

// complete gives a message its fate. mu is held; the caller calls advance and release.
func (p *publisher) complete(e *pending, pos Position, err error) {
	e.state = fated
	p.bytes -= e.size
	if w := e.wait; w != nil {
		if err != nil {
			if w.n == 1 {
				w.err = err
			} else {
				if w.errs == nil {
					w.errs = make([]error, w.n)
				}
				w.errs[e.index] = err
			}
		}
		if w.left--; w.left == 0 {
			w.ch <- struct{}{}
		}
	}
	if e.told == nil && e.wait == nil && err != nil {
		p.lose(err)
	}
	if e.told != nil || len(p.b.observe) > 0 {
		m := e.out.Msg
		p.calls = append(p.calls, call{e.told, Receipt{e.out.To.Topic, m.ID, m.Key, pos}, err, e.at, int64(len(m.Payload))})
	}
}

// advance moves base past what has its fate, and lets in who waits for room. mu is held; the caller calls release.
func (p *publisher) advance() {
	from := p.base
	for p.base < p.end {
		e := &p.ring[p.base&uint64(len(p.ring)-1)]
		if e.state != fated {
			break
		}
		*e = pending{}
		p.base++
	}
	if p.base == from {
		return
	}
	p.next = max(p.next, p.base)
	// not before a quarter is free: waking a blocked publisher for each message would cost more than sending it
	if p.roomC != nil && p.end-p.base <= uint64(p.opts.MaxPending)*3/4 && p.bytes <= p.opts.MaxPendingBytes*3/4 {
		close(p.roomC)
		p.roomC = nil
	}
}

// release unlocks mu, after making the calls that are due. One goroutine at a time makes them, so that they come in order; what is
// due meanwhile is its affair too. A Flush ends only when the calls of its messages have returned.
func (p *publisher) release() {
	defer p.mu.Unlock()
	if p.telling {
		return
	}
	p.telling = true
	for {
		calls, upTo := p.calls, p.base
		if len(calls) > 0 {
			p.calls, p.spare = p.spare, nil
			p.mu.Unlock()
			for i := range calls {
				p.tell(&calls[i])
			}
			clear(calls)
			p.mu.Lock()
			p.spare = calls[:0]
		}
		p.told = upTo
		p.flushers = slices.DeleteFunc(p.flushers, func(f flusher) bool {
			if f.upTo > upTo {
				return false
			}
			close(f.ch)
			return true
		})
		if len(p.calls) == 0 && p.base == upTo {
			break
		}
	}
	p.telling = false
}

func (p *publisher) tell(c *call) {
	defer func() {
		if r := recover(); r != nil {
			p.b.log.Error("a publish callback panicked", "topic", c.r.Topic, "err", newPanic(r))
		}
	}()
	if len(p.b.observe) > 0 {
		ev := Event{Kind: EventPublished, Topic: c.r.Topic, Count: 1, Bytes: c.bytes, Duration: time.Since(c.at), Err: c.err}
		for _, o := range p.b.observe {
			o(ev)
		}
	}
	if c.told != nil {
		c.told(c.r, c.err)
	}
}

// rewind prepares the next session: everything without a fate is sent again, in order, unless a later message of its key
// was accepted already, which it would then follow. Such a message is reported: its order matters more than one more try. The same goes for
// a message that was refused when a later one may be stored by the same session. (Of two whose fates are unknown the later one is not stored without the
// earlier one: a session stores in order.)
func (p *publisher) rewind() {
	type key struct{ topic, key string }
	p.mu.Lock()
	p.b.log.Warn("a producer session ended", "err", p.halted, "unanswered", p.end-p.base)
	overtaken, perhaps := map[key]bool{}, map[key]bool{}
	for s := p.end; s > p.base; s-- {
		e := p.entry(s - 1)
		if e.state == sent { // Close is to report everything; what it forgot may be stored
			e.state, e.maybe, e.unknown = queued, true, true
		}
		k := key{e.out.To.Topic, e.out.Msg.Key}
		switch {
		case k.key == "" || e.out.To.Kind != PlaceMain:
		case e.state == fated:
			overtaken[k] = overtaken[k] || e.accepted
		case overtaken[k] || e.refused && perhaps[k]:
			err := p.gaveUp(e, p.halted)
			err.Hint = "a later message of its key was accepted meanwhile, or may have been, so sending it again would break their order"
			p.complete(e, Position{}, err)
		case e.unknown: // not one that only an earlier session may have stored: that would have stored those before it, too
			perhaps[k] = true
		}
		e.unknown = false
	}
	p.next = p.base
	p.advance()
	p.release()
}

// gaveUp is the error of a message that will not be sent again.
func (p *publisher) gaveUp(e *pending, cause error) *Error {
	err := &Error{Op: "publish", Broker: p.b.name, Topic: e.out.To.Topic, Code: ErrUnavailable, Err: cause}
	if e.state == sent || e.maybe {
		err.Code, err.Hint = ErrUnconfirmed, hintUnconfirmed
	}
	return err
}

// failAll gives up everything that has no fate. mu is held.
func (p *publisher) failAll(cause error) {
	for s := p.base; s < p.end; s++ {
		if e := p.entry(s); e.state != fated {
			err := p.gaveUp(e, cause)
			if err.Code == ErrUnavailable && cause != nil && !isContextError(cause) {
				err.Code = CodeOf(p.b.fail(context.Background(), "publish", "", cause))
			}
			p.complete(e, Position{}, err)
		}
	}
	p.next = p.end
	p.advance()
}

func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// arm starts the timer of the oldest message's deadline. mu is held.
func (p *publisher) arm(d time.Duration) {
	p.timed = true
	if p.timer == nil {
		p.timer = time.AfterFunc(d, p.expire)
		return
	}
	p.timer.Reset(d)
}

// expire gives up messages whose deadline is over. A session that leaves a message unanswered that long is not trusted with others.
func (p *publisher) expire() {
	p.mu.Lock()
	p.timed = false
	now := time.Now()
	for s := p.base; s < p.end; s++ {
		e := p.entry(s)
		left := e.at.Add(p.opts.Timeout).Sub(now)
		if left > 0 { // those behind it were published later
			p.arm(left)
			break
		}
		if e.state == fated {
			continue
		}
		cause := fmt.Errorf("no answer from the broker within %v", p.opts.Timeout)
		if p.halted != nil {
			cause = fmt.Errorf("%w; the last session ended: %w", cause, p.halted)
		}
		if e.state == sent {
			p.halt(cause)
		}
		p.complete(e, Position{}, p.gaveUp(e, cause))
	}
	p.advance()
	p.release()
}

// close flushes until ctx ends, gives up the rest and ends the session. It returns the failures that nobody was told of.
func (p *publisher) close(ctx context.Context) error {
	p.mu.Lock()
	p.closing = true
	if p.roomC != nil {
		close(p.roomC)
		p.roomC = nil
	}
	p.mu.Unlock()
	err := p.Flush(ctx)
	p.mu.Lock()
	p.ended = true
	p.failAll(&Error{Op: "publish", Broker: p.b.name, Code: ErrClosed, Err: errors.New("closed before the broker answered")})
	if p.cut != nil {
		p.cut()
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	started := p.started
	p.started = true // no sender starts any more
	p.poke()
	p.release()
	if started {
		<-p.done
	}
	p.mu.Lock()
	return errors.Join(err, p.takeLost())
}
