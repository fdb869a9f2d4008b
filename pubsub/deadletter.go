package pubsub

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/omnibus-go/omnibus/internal/backoff"
)

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
		if it.rec.Topic != c.sub.Topic {
			m.Headers = append(m.Headers, Header{Name: headerTopic, Value: it.rec.Topic})
		}
		m.Delay, m.Priority = 0, 0
	case d.Drop:
		c.log.Warn("a message is dropped", "id", it.rec.Msg.ID, "reason", it.why.reason, "err", it.why.err)
		done(Receipt{}, nil)
		return
	default:
		m = c.deadLetter(it)
		if d.Redact != nil {
			m.Payload, m.Headers = slices.Clone(m.Payload), slices.Clone(m.Headers)
			was := blocksBy(&m)
			d.Redact(&m)
			if c.blocks != nil && blocksBy(&m) != was {
				done(Receipt{}, errRedacted)
				return
			}
		}
		shed(&m, it.shed)
		if it.shed == pointing {
			pointAt(&m)
		}
		if c.blocks != nil {
			it.letter, _ = letterOf(&m)
		}
	}
	// the same for the same source: a crash between copy and ack does not store it twice where the broker can tell
	dedup := Dedup{}
	if it.rec.Pos != (Position{}) && c.b.caps.Dedup > 0 {
		what := "move"
		if it.shed == pointing {
			what = "point"
		}
		dedup = hashToken(what, own, it.rec.Topic, strconv.Itoa(int(it.feed.place.Kind)), it.rec.Pos.String(),
			it.rec.Msg.ID, strconv.FormatInt(it.rec.Msg.Time.UnixNano(), 10)) // a topic that was made anew has other messages at its positions
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
	to := c.b
	if it.job != taskQuarantine {
		if to = d.targetBroker(c.b); to == nil {
			d.To.PublishAsync(c.base, own.Topic, m, done)
			return
		}
	}
	if err := to.moves.sendAsync(c.base, own, m, dedup, done); err != nil {
		done(Receipt{}, err)
	}
}

// errRedacted keeps a message: what is stored without its key blocks none after a restart, and a replay that does not say of what it is has lost its turn, and
// what it resolves.
var errRedacted = errors.New("DeadLetter.Redact has changed the ID, the key or one of the headers " + headerDeadID + ", " + headerReplayOf + " and " + headerReplays +
	", which BlockKey goes by")

// blocksBy is what Redact has to leave of a dead letter.
func blocksBy(m *Message) [5]string {
	return [...]string{m.ID, m.Key, m.Headers.Get(headerDeadID), m.Headers.Get(headerReplayOf), m.Headers.Get(headerReplays)}
}

// moved is told that the copy is stored, or why not.
func (c *Consumer) moved(it *item, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moving--
	it.lane.running--
	if err == nil && it.letter != nil {
		c.blockKey(it)
	}
	switch {
	case it.takenAway():
		c.drop(it)
	case it.job == taskDeadLetter && errors.Is(err, ErrTooLarge) && (it.shed < lastShed || it.shed == lastShed && !it.pointed):
		it.shed++
		c.log.Warn("a dead letter is too large and is to tell less", "id", it.rec.Msg.ID, "reason", it.why.reason, "err", err)
		c.again(it)
	case err == nil && it.shed == pointing:
		it.pointed = true
		c.keep(it, fmt.Errorf("%w: only what points at it is stored", ErrTooLarge))
	case err != nil:
		c.keep(it, err)
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

// keep lets an item wait that has no place to go to. mu is held.
func (c *Consumer) keep(it *item, why error) {
	it.shed = 0 // when it is tried again there may be room for all
	c.log.Error("a message cannot be moved and is kept", "id", it.rec.Msg.ID, "reason", it.why.reason, "err", why)
	c.blocked = fmt.Errorf("message %s cannot be stored as a dead letter: %w", it.rec.Msg.ID, why)
	if c.draining || it.lane.losing != nil {
		c.settle(it, Settlement{As: SettleRelease, Failed: it.failed})
		return
	}
	again := backoff.Backoff{Initial: 500 * time.Millisecond, Max: 5 * time.Second}
	for range it.tries {
		again.Next()
	}
	it.tries++
	c.wait(it, again.Next())
}

func (c *Consumer) tellDead(hook func(*Delivery, error), it *item) {
	defer func() {
		if r := recover(); r != nil {
			c.log.Error("OnDeadLetter panicked", "err", newPanic(r))
		}
	}()
	hook(it.d, it.why.err)
}
