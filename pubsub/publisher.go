package pubsub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A publisher takes messages in, keeps them in one queue until each has its fate, and hands runs of them to a
// Producer session. The queue is a ring ordered by sequence number:
//
//	base … next: handed to the session, or have their fate already
//	next … end:  waiting to be sent
//
// base moves past messages that have their fate. A session that dies is replaced (send.go) and next goes back to base, so that
// what has no fate is sent again in the order in which it was published.
type publisher struct {
	b    *Broker
	opts PublisherOptions
	salt uint64 // makes the dedup tokens of this publisher its own

	mu              sync.Mutex
	ring            []pending // its length is a power of two
	base, next, end uint64
	bytes           int64
	prod            Producer           // nil while there is no session
	cut             context.CancelFunc // interrupts a Send that blocks
	sendCtx         context.Context
	sending         bool  // someone is in prod.Send
	halted          error // why the session is to be replaced
	closing, ended  bool  // takes no more; gives up what has no fate
	started         bool
	run             []Out
	calls, spare    []call
	lost            []error // failures that nobody was told of
	lostMore        int
	flushers        []flusher
	telling         bool          // someone makes the calls
	told            uint64        // all messages before it have their fate, and their calls have returned
	roomC           chan struct{} // closed when the window has room again; nil when nobody waits
	timer           *time.Timer   // of the oldest message's deadline
	timed           bool
	slab            []Message // copies of messages and small payloads, carved from blocks that are never reused
	buf             []byte

	asleep bool          // the sender waits for wake
	wake   chan struct{} // one token: there is something to do for the sender
	done   chan struct{} // closed when the sender has ended
}

type pending struct {
	out      Out
	at       time.Time // when it was published
	size     int64
	told     func(Receipt, error)
	wait     *waiter
	index    int32 // of the message in wait
	state    pendingState
	accepted bool
	maybe    bool // a session took it: it may be stored
	unknown  bool // the last session told no fate
	refused  bool // the last session refused it, for a reason that may pass
}

type pendingState uint8

const (
	queued pendingState = iota + 1
	sent
	fated
)

// A call is a done that is due, made when the lock is released.
type call struct {
	told  func(Receipt, error)
	r     Receipt
	err   error
	at    time.Time
	bytes int64
}

// A waiter is a blocking publish.
type waiter struct {
	ch   chan struct{}
	left int
	n    int
	err  error   // of a single message
	errs []error // of a batch; nil = no failure
}

type flusher struct {
	upTo uint64
	ch   chan struct{}
}

const (
	maxRun     = 256      // messages handed to a driver at once
	slabSize   = 102      // messages: as many as fit into a block of 16 KiB
	bufSize    = 32 << 10 // bytes
	bufPayload = 1 << 10  // larger payloads get memory of their own
	maxLost    = 16       // failures kept for Flush, the others are counted
)

func newPublisher(b *Broker, opts PublisherOptions) *publisher {
	return &publisher{b: b, opts: opts, salt: rand.Uint64(), wake: make(chan struct{}, 1), done: make(chan struct{})}
}

func (p *publisher) Publish(ctx context.Context, topic string, msg Message) error {
	if err := p.b.infos.check(topic); err != nil {
		return invalidOn(p.b, "publish", topic, err, namesHint)
	}
	return p.publishTo(ctx, Place{Topic: topic}, msg)
}

func (p *publisher) publishTo(ctx context.Context, to Place, msg Message) error {
	now := time.Now()
	owned, err := p.intake(ctx, to.Topic, &msg, now)
	if err != nil {
		return err
	}
	w := &waiter{ch: make(chan struct{}, 1), left: 1, n: 1}
	p.mu.Lock()
	seq, err := p.enqueue(ctx, to, &msg, owned, pending{wait: w, at: now})
	if err != nil {
		p.mu.Unlock()
		return err
	}
	// A caller that cannot be cancelled sends by itself when it is alone: that saves two changes of goroutine. Anyone else could not
	// leave a Send that blocks, and must not run the done of others.
	if ctx.Done() == nil && p.prod != nil && p.next == seq && p.canSend() {
		p.pump()
		p.release()
	} else {
		p.poke()
		p.mu.Unlock()
	}
	return p.await(ctx, w, seq, seq)
}

// await waits for w, whose messages are between first and last.
func (p *publisher) await(ctx context.Context, w *waiter, first, last uint64) error {
	select {
	case <-w.ch:
	case <-ctx.Done():
		p.mu.Lock()
		for s := max(p.base, first); s <= last; s++ {
			if e := p.entry(s); e != nil && e.state != fated && e.wait == w {
				p.complete(e, Position{}, p.cancelled(ctx, e))
			}
		}
		p.advance()
		p.release()
		<-w.ch // every message has a fate now, by us or just before
	}
	if w.n == 1 {
		return w.err
	}
	if w.errs != nil {
		return &BatchError{Errs: w.errs}
	}
	return nil
}

func (p *publisher) cancelled(ctx context.Context, e *pending) error {
	err := &Error{Op: "publish", Broker: p.b.name, Topic: e.out.To.Topic, Code: ErrCanceled, Err: context.Cause(ctx)}
	if e.state == sent || e.maybe {
		err.Code, err.Hint = ErrUnconfirmed, hintUnconfirmed
	}
	return err
}

const hintUnconfirmed = "it may be stored or not; publish it again with the same ID and a consumer that tolerates duplicates, or with DedupByID"

func (p *publisher) PublishBatch(ctx context.Context, topic string, msgs []Message) error {
	if err := p.b.infos.check(topic); err != nil {
		return invalidOn(p.b, "publish", topic, err, namesHint)
	}
	if len(msgs) == 0 {
		return nil
	}
	// left counts one more than the messages, so that w cannot be done before all of them are handed over
	w := &waiter{ch: make(chan struct{}, 1), left: len(msgs) + 1, n: len(msgs)}
	var errs []error // of those that were not handed over
	var first, last uint64
	var some bool
	for i := range msgs {
		now := time.Now()
		m := msgs[i]
		owned, err := p.intake(ctx, topic, &m, now)
		if err == nil {
			p.mu.Lock()
			var seq uint64
			if seq, err = p.enqueue(ctx, Place{Topic: topic}, &m, owned, pending{wait: w, at: now, index: int32(i)}); err == nil {
				last = seq
				if !some {
					first, some = seq, true
				}
			}
			if p.end-p.next == maxRun { // let it go while the rest is prepared
				p.poke()
			}
			p.mu.Unlock()
		}
		if err != nil {
			if errs == nil {
				errs = make([]error, len(msgs))
			}
			errs[i] = err
			p.mu.Lock()
			w.left--
			p.mu.Unlock()
		}
	}
	p.mu.Lock()
	w.left--
	if w.left == 0 {
		w.ch <- struct{}{}
	}
	if some {
		p.poke()
	}
	p.mu.Unlock()
	err := p.await(ctx, w, first, last)
	if errs == nil {
		if len(msgs) == 1 && err != nil {
			return &BatchError{Errs: []error{err}}
		}
		return err
	}
	if b, ok := errors.AsType[*BatchError](err); ok {
		for i, e := range b.Errs {
			if e != nil {
				errs[i] = e
			}
		}
	}
	return &BatchError{Errs: errs}
}

func (p *publisher) PublishAsync(ctx context.Context, topic string, msg Message, done func(Receipt, error)) {
	err := p.b.infos.check(topic)
	if err != nil {
		err = invalidOn(p.b, "publish", topic, err, namesHint)
	} else {
		err = p.sendAsync(ctx, Place{Topic: topic}, msg, Dedup{}, done)
	}
	if err == nil {
		return
	}
	if done != nil {
		done(Receipt{Topic: topic, ID: msg.ID, Key: msg.Key}, err)
		return
	}
	p.mu.Lock()
	p.lose(err)
	p.mu.Unlock()
}

// sendAsync hands one message over; told is called unless it returns an error.
func (p *publisher) sendAsync(ctx context.Context, to Place, msg Message, dedup Dedup, told func(Receipt, error)) error {
	now := time.Now()
	owned, err := p.intake(ctx, to.Topic, &msg, now)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err = p.enqueue(ctx, to, &msg, owned, pending{told: told, at: now, out: Out{Dedup: dedup}}); err == nil {
		p.poke()
	}
	return err
}

// intake checks a message that is published now and passes it through the middleware. m is the caller's copy; owned says that its
// payload and headers are ours, too.
func (p *publisher) intake(ctx context.Context, topic string, m *Message, now time.Time) (owned bool, err error) {
	fail := func(code Code, err error, hint string) (bool, error) {
		return false, &Error{Op: "publish", Broker: p.b.name, Topic: topic, Code: code, Err: err, Hint: hint}
	}
	if err := ctx.Err(); err != nil {
		return fail(ErrCanceled, context.Cause(ctx), "")
	}
	moved := p == p.b.moves // what the engine moves was checked, changed and signed when it was published
	if !moved {
		if code, err := p.checkMessage(m); err != nil {
			return fail(code, err, "")
		}
		if m.ID == "" {
			m.ID = p.b.ids.id()
		}
		if m.Time.IsZero() {
			m.Time = now
		}
		m.Time, m.Delay = m.Time.Round(0).UTC(), min(m.Delay, longestDelay)
		if len(p.b.opts.Use) > 0 {
			if *m, err = p.outgoing(ctx, topic, *m); err != nil {
				return false, err
			}
			owned = true
		}
		if m.TTL > 0 {
			m.Headers = append(slices.Clip(m.Headers), Header{Name: headerExpires, Value: expires(now, m.TTL)})
			owned = true
			m.Payload = bytes.Clone(m.Payload)
		}
	}
	if limit := p.b.caps.MaxMessage; limit > 0 {
		over := m.Size() - limit
		if moved {
			over -= Headroom
		}
		if over > 0 {
			return fail(ErrTooLarge, fmt.Errorf("%d bytes, at most %d", m.Size(), m.Size()-over), "raise the broker's limit, compress, or publish a reference to the data")
		}
	}
	return owned, nil
}

func (p *publisher) checkMessage(m *Message) (Code, error) {
	switch {
	case m.Delay < 0:
		return ErrInvalid, fmt.Errorf("Message.Delay is %v; it cannot be negative", m.Delay)
	case m.TTL < 0:
		return ErrInvalid, fmt.Errorf("Message.TTL is %v; it cannot be negative", m.TTL)
	case m.Priority > 9:
		return ErrInvalid, fmt.Errorf("Message.Priority is %d; it is 0 to 9", m.Priority)
	case m.Delay > 0 && !p.b.caps.Schedule:
		return ErrUnsupported, errors.New("Message.Delay")
	case m.Priority > 0 && !p.b.caps.Priority:
		return ErrUnsupported, errors.New("Message.Priority")
	case p.opts.DedupByID && m.ID == "":
		return ErrInvalid, errors.New("no Message.ID, which PublisherOptions.DedupByID needs")
	}
	for i := range m.Headers {
		// those of a dead letter and of a replay say nothing to the engine, and a DeadLetter.To that wraps another Publisher sends them
		if name := m.Headers[i].Name; strings.HasPrefix(name, reservedHeader) && !strings.HasPrefix(name, headerDead) && !strings.HasPrefix(name, headerReplay) {
			return ErrInvalid, fmt.Errorf("header %q is reserved", m.Headers[i].Name)
		}
	}
	return 0, nil
}

// outgoing passes a copy through the outgoing halves, innermost first.
func (p *publisher) outgoing(ctx context.Context, topic string, msg Message) (_ Message, err error) {
	m := &msg
	m.Payload, m.Headers = bytes.Clone(m.Payload), slices.Clone(m.Headers)
	defer func() {
		if r := recover(); r != nil {
			err = &Error{Op: "publish", Broker: p.b.name, Topic: topic, Code: ErrRefused, Err: newPanic(r)}
		}
	}()
	for _, layer := range slices.Backward(p.b.opts.Use) {
		if layer.Outgoing == nil {
			continue
		}
		if err := layer.Outgoing(ctx, topic, m); err != nil {
			return *m, &Error{Op: "publish", Broker: p.b.name, Topic: topic, Code: ErrRefused, Err: fmt.Errorf("%s: %w", layer.Name, err)}
		}
	}
	return *m, nil
}

// headerExpires carries the moment (Unix nanoseconds) and the TTL it comes from: brokers do not keep the time to the
// nanosecond, and some have no TTL. A moment that is further away than can be told, as with Forever, is the last that can be: it would come out before now.
const headerExpires = reservedHeader + "expires"

func expires(now time.Time, ttl time.Duration) string {
	at := now.UnixNano()
	return strconv.FormatInt(at+min(int64(ttl), math.MaxInt64-at), 10) + " " + ttl.String()
}

// enqueue waits for room and puts a copy of m at the end of the queue. mu is held, and held again when it returns.
func (p *publisher) enqueue(ctx context.Context, to Place, m *Message, owned bool, e pending) (uint64, error) {
	e.size = m.Size()
	for !p.hasRoom(e.size) && !p.closing {
		if p.roomC == nil {
			p.roomC = make(chan struct{})
		}
		room := p.roomC
		p.poke()
		p.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if ctx.Err() != nil {
			return 0, &Error{Op: "publish", Broker: p.b.name, Topic: to.Topic, Code: ErrCanceled, Err: context.Cause(ctx),
				Hint: fmt.Sprintf("%d messages wait for the broker's answer", p.end-p.base)}
		}
	}
	if p.closing {
		return 0, &Error{Op: "publish", Broker: p.b.name, Topic: to.Topic, Code: ErrClosed}
	}
	if p.end-p.base == uint64(len(p.ring)) {
		p.grow()
	}
	seq := p.end
	p.end++
	if e.out.Dedup == (Dedup{}) && p.b.caps.Dedup > 0 {
		e.out.Dedup = p.token(to, m, seq)
	}
	e.out.Seq, e.out.To, e.out.Msg = seq, to, p.keep(m, owned)
	e.state = queued
	p.ring[seq&uint64(len(p.ring)-1)] = e
	p.bytes += e.size
	if !p.timed {
		p.arm(p.opts.Timeout)
	}
	if !p.started {
		p.started = true
		go p.serve()
	}
	return seq, nil
}

func (p *publisher) hasRoom(size int64) bool {
	n := p.end - p.base
	return n == 0 || n < uint64(p.opts.MaxPending) && p.bytes+size <= p.opts.MaxPendingBytes
}

func (p *publisher) grow() {
	ring := make([]pending, max(16, 2*len(p.ring)))
	for s := p.base; s < p.end; s++ {
		ring[s&uint64(len(ring)-1)] = p.ring[s&uint64(len(p.ring)-1)]
	}
	p.ring = ring
}

func (p *publisher) Flush(ctx context.Context) error {
	p.mu.Lock()
	if p.told < p.end {
		f := flusher{p.end, make(chan struct{})}
		p.flushers = append(p.flushers, f)
		p.poke()
		p.mu.Unlock()
		select {
		case <-f.ch:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if p.told < f.upTo {
			n := p.end - p.base
			p.flushers = slices.DeleteFunc(p.flushers, func(o flusher) bool { return o.ch == f.ch })
			err := &Error{Op: "flush", Broker: p.b.name, Code: ErrCanceled, Err: context.Cause(ctx), Hint: fmt.Sprintf("%d messages have no answer yet", n)}
			return errors.Join(err, p.takeLost())
		}
	}
	return p.takeLost()
}

// lose keeps a failure for Flush. mu is held.
func (p *publisher) lose(err error) {
	if len(p.lost) < maxLost {
		p.lost = append(p.lost, err)
	} else {
		p.lostMore++
	}
}

// takeLost returns the failures kept for Flush, and releases mu.
func (p *publisher) takeLost() error {
	defer p.mu.Unlock()
	errs := p.lost
	if p.lostMore > 0 {
		errs = append(errs, fmt.Errorf("pubsub: and %d more messages that failed", p.lostMore))
	}
	p.lost, p.lostMore = nil, 0
	return errors.Join(errs...)
}
