package pubsub

import (
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

// resolve begins to tell that the handler has succeeded on a replay. The message is acked when that is stored: a crash between the two lets both happen
// again. mu is held, and released while it is handed over.
func (c *Consumer) resolve(it *item, v verdict) {
	it.job, it.state, it.due = taskResolve, itemMoving, time.Now()
	it.lane.running++
	c.moving++
	m := it.rec.Msg
	e := deadevent.Event{
		Operation: deadevent.Resolved, At: time.Now().UTC(), By: c.b.opts.Service + "@" + c.b.host, IDs: []string{m.Headers.Get(headerReplayOf)}, Message: m.ID,
	}
	c.mu.Unlock()
	payload, key := deadevent.Encode(&e)
	to := Place{Topic: c.sub.Topic, Group: c.sub.Group, Kind: PlaceState}
	out := Message{ID: c.b.ids.id(), Type: deadevent.Type, Key: key, Payload: payload, ContentType: "application/json", Time: e.At}
	if err := c.b.moves.sendAsync(c.base, to, out, hashToken("resolved", to, out.ID), func(_ Receipt, err error) { c.resolved(it, v, err) }); err != nil {
		c.resolved(it, v, err)
	}
	c.mu.Lock()
}

// resolved is told that the outcome is stored, or why not. The handler has succeeded either way: where it can never be stored the message is acked
// all the same, and its dead letter stays pending. Where the broker is away for a while the ack waits.
func (c *Consumer) resolved(it *item, v verdict, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moving--
	it.lane.running--
	switch {
	case it.takenAway():
		c.drop(it)
	case err != nil && passes(err) && (c.draining || it.lane.losing != nil):
		c.settle(it, Settlement{As: SettleRelease, Failed: it.failed})
	case err != nil && passes(err):
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
		c.flushIdle()
		c.report(c.event(it, EventSettled, v))
	}
	c.settled(it)
}

// passes says whether what the broker says may be otherwise later.
func passes(err error) bool {
	switch CodeOf(err) {
	case ErrUnavailable, ErrUnconfirmed, ErrCanceled, ErrClosed, ErrTimeout, ErrUnauthenticated, ErrExhausted:
		return true
	}
	return false
}
