package pubsub

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/omnibus-go/omnibus/internal/backoff"
)

// Headers of a dead letter; payload, key and the original headers are as they came.
const (
	headerAttempts = reservedHeader + "attempts" // of a copy for the quarantine

	headerDead         = reservedHeader + "dlq-"
	headerDeadID       = headerDead + "id"
	headerDeadTopic    = headerDead + "source-topic"
	headerDeadGroup    = headerDead + "source-group"
	headerDeadPosition = headerDead + "source-position"
	headerDeadBroker   = headerDead + "source-broker"
	headerDeadReason   = headerDead + "reason"
	headerDeadCategory = headerDead + "category"
	headerDeadError    = headerDead + "error"
	headerDeadType     = headerDead + "error-type"
	headerDeadStack    = headerDead + "stack"
	headerDeadAttempts = headerDead + "attempts"
	headerDeadFirst    = headerDead + "first-failed"
	headerDeadLast     = headerDead + "last-failed"
	headerDeadService  = headerDead + "service"
)

// Together with the names, what the engine adds is to stay below Headroom.
const (
	maxDeadError = 4 << 10
	maxDeadStack = 8 << 10
	maxDeadText  = 256 // of each other text that users choose
	maxDeadShort = 256 // of an error that has to be short
)

// lastShed is the last step of shed.
const lastShed = 3

// move begins to put a copy of an item into the dead letters or the quarantine. The original is settled when the copy is
// confirmed, see moved. mu is held, and released while the copy is handed over.
func (c *Consumer) move(it *item, v verdict) {
	if it.job == taskHandle {
		it.job = taskDeadLetter
	}
	if v.kind == verdictQuarantine {
		it.job = taskQuarantine
	}
	if it.why.reason == "" {
		it.why = v
	}
	if v.reason != "" {
		it.why.reason = v.reason
	}
	it.state, it.due = itemMoving, time.Now()
	it.lane.running++
	c.moving++
	c.mu.Unlock()
	c.send(it)
	c.mu.Lock()
}

// send hands the copy over; moved is told its fate.
func (c *Consumer) send(it *item) {
	defer func() {
		if r := recover(); r != nil { // Route, Redact or a Publisher of the user's
			c.moved(it, newPanic(r))
		}
	}()
	done := func(_ Receipt, err error) { c.moved(it, err) }
	d := &c.sub.DeadLetter
	own := Place{Topic: c.sub.Topic, Group: c.sub.Group, Kind: PlaceDead}
	var m Message
	switch {
	case it.job == taskQuarantine:
		own.Kind = PlaceQuarantine
		m = *it.rec.Msg
		m.Headers = append(slices.Clip(m.Headers), Header{Name: headerAttempts, Value: strconv.Itoa(int(it.failed))})
		m.Delay, m.Priority = 0, 0
	case d.Drop:
		c.log.Warn("a message is dropped", "id", it.rec.Msg.ID, "reason", it.why.reason, "err", it.why.err)
		done(Receipt{}, nil)
		return
	default:
		m = c.deadLetter(it)
		if d.Redact != nil {
			m.Payload, m.Headers = slices.Clone(m.Payload), slices.Clone(m.Headers)
			d.Redact(&m)
		}
		shed(&m, it.shed)
	}
	// the same for the same source: a crash between copy and ack does not store it twice where the broker can tell
	dedup := Dedup{}
	if it.rec.Pos != (Position{}) && c.b.caps.Dedup > 0 {
		dedup = hashToken("move", own, it.rec.Topic, strconv.Itoa(int(it.feed.place.Kind)), it.rec.Pos.String())
	}
	if it.job != taskQuarantine {
		topic := d.Topic
		if d.Route != nil {
			if to := d.Route(it.d, it.why.err); to != "" {
				topic = to
			}
		}
		if topic != "" {
			own = Place{Topic: topic}
		}
	}
	pub := c.b.moves
	switch to := d.To.(type) {
	case nil:
	case *Broker:
		pub = to.moves
	case *publisher:
		pub = to.b.moves
	default:
		to.PublishAsync(c.base, own.Topic, m, done)
		return
	}
	if it.job == taskQuarantine {
		pub = c.b.moves
	}
	if err := pub.sendAsync(c.base, own, m, dedup, done); err != nil {
		done(Receipt{}, err)
	}
}

// moved is told that the copy is stored, or why not.
func (c *Consumer) moved(it *item, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moving--
	it.lane.running--
	switch {
	case it.lost || it.feed.src == nil:
		c.drop(it)
	case it.job == taskDeadLetter && it.shed < lastShed && errors.Is(err, ErrTooLarge):
		it.shed++
		c.log.Warn("a dead letter is too large and is to tell less", "id", it.rec.Msg.ID, "reason", it.why.reason, "err", err)
		c.again(it)
	case err != nil:
		it.shed = 0 // when it is tried again there may be room for all
		c.log.Error("a message cannot be moved and is kept", "id", it.rec.Msg.ID, "reason", it.why.reason, "err", err)
		c.blocked = fmt.Errorf("message %s cannot be stored as a dead letter: %w", it.rec.Msg.ID, err)
		if c.draining || it.lane.losing != nil {
			c.settle(it, Settlement{As: SettleRelease, Failed: it.failed})
			break
		}
		again := backoff.Backoff{Initial: 500 * time.Millisecond, Max: 5 * time.Second}
		for range it.tries {
			again.Next()
		}
		it.tries++
		c.wait(it, again.Next())
	default:
		c.blocked = nil
		c.settle(it, Settlement{As: SettleAck})
		c.flushIdle()
		if it.job == taskDeadLetter {
			c.report(c.event(it, EventDeadLettered, it.why))
			if hook := c.sub.DeadLetter.OnDeadLetter; hook != nil {
				c.mu.Unlock()
				c.tellDead(hook, it)
				c.mu.Lock()
			}
		}
	}
	c.settled(it)
}

func (c *Consumer) tellDead(hook func(*Delivery, error), it *item) {
	defer func() {
		if r := recover(); r != nil {
			c.log.Error("OnDeadLetter panicked", "err", newPanic(r))
		}
	}()
	hook(it.d, it.why.err)
}

// deadLetter is the message as it came, with headers that tell what happened.
func (c *Consumer) deadLetter(it *item) Message {
	m := *it.rec.Msg
	m.Delay, m.TTL, m.Priority = 0, 0, 0
	now := time.Now().UTC().Format(time.RFC3339Nano)
	m.Headers = slices.DeleteFunc(slices.Clone(m.Headers), func(h Header) bool {
		return strings.HasPrefix(h.Name, headerDead) // of an earlier life, or forged
	})
	add := func(name, value string) {
		if value != "" {
			m.Headers = append(m.Headers, Header{Name: name, Value: value})
		}
	}
	add(headerDeadID, c.b.ids.id())
	add(headerDeadTopic, it.rec.Topic)
	add(headerDeadGroup, c.sub.Group)
	add(headerDeadPosition, it.rec.Pos.String())
	add(headerDeadBroker, c.b.name)
	add(headerDeadReason, it.why.reason)
	add(headerDeadCategory, cutText(it.why.category, maxDeadText))
	add(headerDeadAttempts, strconv.Itoa(int(it.failed)))
	if !it.first.IsZero() {
		add(headerDeadFirst, it.first.UTC().Format(time.RFC3339Nano))
	}
	add(headerDeadLast, now)
	add(headerDeadService, cutText(c.b.opts.Service, maxDeadText))
	if err := it.why.err; err != nil {
		add(headerDeadError, cutText(err.Error(), maxDeadError))
		add(headerDeadType, cutText(errorType(err), maxDeadText))
		if p, ok := errors.AsType[*panicError](err); ok {
			add(headerDeadStack, cutText(string(p.stack), maxDeadStack))
		}
	}
	return m
}

// shed takes off a dead letter what it tells of the failure, as much as so many steps say: the stack, most of the error, all of the error. What
// came stays, and so does what is needed to find and replay it.
func shed(m *Message, steps uint8) {
	if steps >= 1 {
		m.Headers.Del(headerDeadStack)
	}
	if steps == 2 {
		if text, ok := m.Headers.Lookup(headerDeadError); ok {
			m.Headers.Set(headerDeadError, cutText(text, maxDeadShort))
		}
	}
	if steps >= lastShed {
		m.Headers.Del(headerDeadError)
	}
}

// errorType names the innermost error that is not one of ours.
func errorType(err error) string {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			break
		}
		next := u.Unwrap()
		if next == nil {
			break
		}
		err = next
	}
	return fmt.Sprintf("%T", err)
}

// cutText cuts a text, but not within a character.
func cutText(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for i := limit; i > limit-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return s[:i]
		}
	}
	return s[:limit] // it is no UTF-8
}
