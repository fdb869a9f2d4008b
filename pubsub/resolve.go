package pubsub

import (
	"errors"
	"time"

	"github.com/omnibus-go/omnibus/internal/backoff"
	"github.com/omnibus-go/omnibus/internal/deadevent"
)

// headerReplayOf is on a message that was replayed: the dead letter that it comes from.
const headerReplayOf = headerReplay + "-of"

// resolves says whether an item's success is to be told: it is a replay, and its group has a place where what becomes of its dead letters is kept.
func (c *Consumer) resolves(it *item) bool {
	return it.replay && c.b.caps.Redelivery && c.sub.Group != Broadcast
}

// A success is a replay whose handler has succeeded, and that is not acked yet.
type success struct {
	it    *item
	v     verdict
	alone bool // with others it was too large
}

// resolve begins to tell that the handler has succeeded on a replay. The message is acked when that is stored: a crash between the two lets both happen
// again. mu is held, and released while something is handed over.
func (c *Consumer) resolve(it *item, v verdict) {
	it.job, it.state, it.due = taskResolve, itemMoving, time.Now()
	it.lane.running++
	c.moving++
	c.successes = append(c.successes, success{it: it, v: v})
	c.tellSuccesses()
}

// tellSuccesses hands over what there is to tell, unless something is on its way: what comes until then goes together. mu is held, and released
// meanwhile.
func (c *Consumer) tellSuccesses() {
	if !c.telling && len(c.successes) > 0 {
		c.telling = true
		c.tellNext()
	}
}

// tellNext hands over what goes together, of what there is to tell. mu is held, and released meanwhile, which may take until there is room.
func (c *Consumer) tellNext() {
	room := deadevent.Room(c.b.caps.MaxMessage)
	e := deadevent.Event{Operation: deadevent.Resolved, At: time.Now().UTC(), By: c.b.opts.Service + "@" + c.b.host}
	n := 0
	for _, x := range c.successes[:min(len(c.successes), deadevent.MaxNames)] {
		m := x.it.rec.Msg
		id := m.Headers.Get(headerReplayOf)
		room -= deadevent.Size(id) + deadevent.Size(m.ID)
		if n > 0 && (room < 0 || x.alone || c.successes[0].alone) {
			break
		}
		e.IDs, e.Messages = append(e.IDs, id), append(e.Messages, m.ID)
		n++
	}
	told := c.successes[:n:n]
	c.successes = c.successes[n:]
	c.mu.Unlock()
	payload, key, err := deadevent.Encode(&e)
	to := Place{Topic: c.sub.Topic, Group: c.sub.Group, Kind: PlaceState}
	out := Message{ID: c.b.ids.id(), Type: deadevent.Type, Key: key, Payload: payload, ContentType: "application/json", Time: e.At}
	if err == nil {
		err = c.b.moves.sendAsync(c.base, to, out, hashToken("resolved", to, out.ID), func(_ Receipt, err error) { c.told(told, err) })
	}
	if err != nil {
		c.told(told, err)
	}
	c.mu.Lock()
}

// told hears whether outcomes are stored. Who calls it reports confirmations, so it must not wait for room, which only those make: what has come meanwhile
// is told by a goroutine, one for all of it. A drain waits for its items.
func (c *Consumer) told(all []success, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(err, ErrTooLarge) && len(all) > 1 {
		for i := range all {
			all[i].alone = true
		}
		c.successes = append(all, c.successes...)
	} else {
		for _, x := range all {
			c.resolved(x.it, x.v, err)
		}
		c.flushIdle()
	}
	if c.telling = len(c.successes) > 0; c.telling {
		go func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.tellNext()
		}()
	}
}

// resolved settles a replay whose outcome is stored, or not. The handler has succeeded either way: where it can never be stored the message is acked
// all the same, and its dead letter stays pending. Where the broker is away for a while the ack waits. mu is held, and may be released meanwhile.
func (c *Consumer) resolved(it *item, v verdict, err error) {
	c.moving--
	it.lane.running--
	if err == nil && c.blocks != nil { // while the key is held
		c.resolvesKey(it)
	}
	switch {
	case it.takenAway():
		c.drop(it)
	case it.tellsAgain(err) && (c.draining || it.lane.losing != nil):
		c.settle(it, Settlement{As: SettleRelease, Failed: it.failed})
	case it.tellsAgain(err):
		c.log.Warn("the outcome of a replay cannot be stored yet, and its message is not acked", "id", it.rec.Msg.ID, "err", err)
		again := backoff.Backoff{Initial: 500 * time.Millisecond, Max: 5 * time.Second}
		for range it.tries {
			again.Next()
		}
		it.tries++
		c.wait(it, again.Next())
	default:
		if err != nil {
			c.log.Error("the outcome of a replay cannot be stored: its dead letter stays pending", "id", it.rec.Msg.ID, "err", err)
		}
		c.settle(it, Settlement{As: SettleAck})
		c.report(c.event(it, EventSettled, v))
	}
	c.settled(it)
}

// maxDoubts is how often an outcome is told again that the broker refuses without saying that this will pass: 12.5 s together.
const maxDoubts = 5

// tellsAgain says whether an outcome that is not stored may be later. What nobody has classified, and a place that is not found, may be the trouble of a moment.
func (it *item) tellsAgain(err error) bool {
	switch CodeOf(err) {
	case ErrUnavailable, ErrUnconfirmed, ErrCanceled, ErrClosed, ErrTimeout, ErrUnauthenticated, ErrExhausted:
		return true
	case ErrBroker, ErrNotFound, ErrUnroutable:
		return it.tries < maxDoubts
	}
	return false
}
