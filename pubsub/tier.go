package pubsub

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/internal/backoff"
)

// Tiers are the lengths of time for which messages wait in the places of PlaceRetry that have a Tier, the shortest first. A retry with a longer
// delay goes through several of them, one after the other: the longest that is not longer than what is left, until less than a second is left.
//
// All messages of a place wait equally long, so they become due in the order in which they lie there: a log can hold them as well as a
// queue, and nothing in it has to be looked for.
//
// An adapter declares Capabilities.Tiers where the engine is to write and read these places. It makes one of each with a group, with the
// topic's partitions, kept for longer than the tier and the worst outage together. The members share it as they share the topic, but there is
// no order to keep in it. Its records are acked or released, roughly in their order, and one may be unsettled for as long as the tier
// is before its handler is called: tiers longer than half of LeaseMax are not used.
//
// A broker that brings a message back by itself, after a time that belongs to a queue, needs queues of these lengths, and its adapter declares
// RetryIn instead.
func Tiers() []time.Duration {
	return []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour}
}

const (
	// headerRetry is on a copy in a tier: when its handler may be called, when it may leave the tier (RFC 3339), and what it was: topic,
	// position ("-" = unknown), delay and priority. The last two would keep it from its turn in the tier.
	headerRetry = reservedHeader + "retry"

	// tierSlack is how much less than a tier may be left of a delay that goes there: what is due in 4.99 s takes one tier of 5 s, not four of 1 s.
	// It waits until it is due, not longer. In turn, who follows it there may be as much late.
	tierSlack = 100 * time.Millisecond

	// tierShare is which part of MaxInFlight and MaxInFlightBytes each tier has for what waits there, and awakeShare which part all of them have
	// for what has left its tier: so neither keeps new messages from coming, and what is retried soon does not hold up what waits behind it.
	tierShare, awakeShare = 32, 4
)

// tiersFor returns the tiers that a subscription moves its retries through, nil if none. A message is held by the member that reads the tier for
// as long as the tier is, and after that by its handler: within one lease.
func (b *Broker) tiersFor(s *Subscription) []time.Duration {
	if !b.caps.Tiers || !b.caps.Redelivery || b.caps.RetryIn == Forever || s.Group == Broadcast || s.Order == OrderStrict {
		return nil
	}
	return slices.DeleteFunc(Tiers(), func(t time.Duration) bool { return t > b.caps.LeaseMax/2 })
}

// tierRoom is how many messages may wait in each tier, and how much all that came from it may be.
func (c *Consumer) tierRoom() (messages int, bytes int64) {
	return max(c.sub.MaxInFlight/tierShare, 1), max(c.sub.MaxInFlightBytes/tierShare, 1)
}

// awakeRoom is how many messages that have left their tiers may be held before the tiers are read on.
func (c *Consumer) awakeRoom() int { return max(c.sub.MaxInFlight/awakeShare, 1) }

// roomBesideTiers is how much is left of the bounds for the topic itself: at least what keeps all handlers busy.
func (c *Consumer) roomBesideTiers() (messages int, bytes int64) {
	n, size := c.tierRoom()
	return max(c.sub.MaxInFlight-len(c.tiers)*n-c.awakeRoom(), c.sub.Concurrency), max(c.sub.MaxInFlightBytes-int64(len(c.tiers))*size, 1)
}

// roomTogether is what the topic and the tiers may share, 0 where their own parts alone are more than MaxInFlight.
func (c *Consumer) roomTogether() int {
	main, _ := c.roomBesideTiers()
	tier, _ := c.tierRoom()
	if len(c.tiers) == 0 || main+len(c.tiers)*tier+c.awakeRoom() > c.sub.MaxInFlight {
		return 0
	}
	return c.sub.MaxInFlight
}

// freeInTier is how many messages may be read from a tier. mu is held.
func (f *feed) freeInTier() int {
	awake := 0
	for _, o := range f.c.feeds {
		if o.place.Tier > 0 {
			awake += o.held - o.sleeping
		}
	}
	if awake >= f.c.awakeRoom() {
		return 0
	}
	return f.limit - f.sleeping
}

// tierOf returns the tier for a message that is to wait for d, 0 if it is to be held.
func (c *Consumer) tierOf(d time.Duration) (tier time.Duration) {
	for _, t := range c.tiers {
		if t <= d+tierSlack {
			tier = t
		}
	}
	return tier
}

// hop begins to put a copy of an item into a tier. The original is settled when the copy is confirmed, see hopped: a crash between the two
// leaves both. ctx bounds the wait for room. mu is held, and released while the copy is handed over.
func (c *Consumer) hop(ctx context.Context, it *item, tier time.Duration) {
	now := time.Now()
	m := c.retryCopy(it, now.Add(tier))
	it.state, it.due = itemMoving, now
	it.lane.running++
	c.moving++
	c.mu.Unlock()
	to := Place{Topic: c.sub.Topic, Group: c.sub.Group, Kind: PlaceRetry, Tier: tier}
	// the token is this copy's own: by one that it shares with another copy of its message the broker would take it for that one
	if err := c.b.moves.sendAsync(ctx, to, m, Dedup{}, func(_ Receipt, err error) { c.hopped(it, err) }); err != nil {
		c.hopped(it, err)
	}
	c.mu.Lock()
}

// hopped is told that the copy is stored, or why not.
func (c *Consumer) hopped(it *item, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.moving--
	it.lane.running--
	switch {
	case it.takenAway():
		c.drop(it)
	case err == nil:
		c.pasts.keep(it)
		c.settle(it, Settlement{As: SettleAck})
		c.flushIdle()
	case c.draining || it.lane.losing != nil:
		c.settle(it, Settlement{As: SettleRelease, Failed: it.failed})
	default:
		c.log.Warn("a message cannot be moved and waits here for its retry", "id", it.rec.Msg.ID, "until", it.until, "err", err)
		it.feed.noteFailure(it)
		again := backoff.Backoff{Initial: 500 * time.Millisecond, Max: 5 * time.Second}
		for range it.tries {
			again.Next()
		}
		it.tries++
		c.wait(it, max(min(again.Next(), time.Until(it.until)), 0))
	}
	c.settled(it)
}

// unsaved says whether an item that is handed back would lose failures that a copy can keep. mu is held.
func (c *Consumer) unsaved(it *item) bool {
	return len(c.tiers) > 0 && c.b.caps.StoresAttempts != StoresAll && it.failed > it.rec.Failed && it.job == taskHandle &&
		it.feed.place.Kind != PlaceQuarantine && !c.keepsOrder(it)
}

// save puts what waits for a retry here into the shortest tier before it is handed back, all or that of a lane, where its failures would be
// forgotten otherwise. mu is held, and released meanwhile.
func (f *feed) save(ctx context.Context, ln *lane) {
	c := f.c
	var items []*item
	for it := f.oldest; it != nil; it = it.after {
		if (ln == nil || it.lane == ln) && (it.state == itemWaiting || it.state == itemReady) && c.unsaved(it) {
			items = append(items, it)
		}
	}
	for _, it := range items {
		switch {
		case !c.unsaved(it): // another's meanwhile
		case it.state == itemWaiting:
			if it.until.IsZero() {
				it.until = it.due
			}
			c.stopWaiting(it)
			c.hop(ctx, it, c.tiers[0])
		case it.state == itemReady:
			it.until = time.Now()
			c.hop(ctx, it, c.tiers[0])
		}
	}
}

// waitInTier lets an item wait that has come from a tier. mu is held.
func (c *Consumer) waitInTier(it *item, now time.Time) {
	it.rec.Failed = it.failed // the copy keeps them
	if it.until.IsZero() {    // it does not say, so it is due
		it.until = now
	}
	leaves := it.until
	if it.due.Before(leaves) {
		leaves = it.due
	}
	it.sleeps = true
	it.feed.sleeping++
	// A clock that is ahead of ours must not keep the others waiting.
	c.wait(it, max(min(leaves.Sub(now), it.feed.place.Tier), 0))
}

// onward goes on with an item whose time has come: to another tier, to the handler, or to wait for the rest here. mu is held, and may be
// released meanwhile.
func (c *Consumer) onward(it *item) {
	now := time.Now()
	left := it.until.Sub(now)
	tier := c.tierOf(left)
	switch {
	case tier > 0:
		c.hop(c.base, it, tier)
		return
	case left > 0:
		c.wait(it, left)
		return
	}
	it.until = time.Time{}
	if it.feed.place.Tier > 0 {
		if it.ends > 0 && now.UnixNano() > it.ends {
			it.job = taskExpire
		}
		c.admit(it)
	}
	c.enqueue(it) // it has no key yet, or let it go when it began to wait
}

// retryCopy is the message as it came, with what the engine has to know when it comes from a tier.
func (c *Consumer) retryCopy(it *item, leaves time.Time) Message {
	m := *it.rec.Msg
	pos := "-"
	if it.rec.Pos != (Position{}) {
		pos = it.rec.Pos.String()
	}
	m.Headers = append(slices.Clip(m.Headers),
		Header{Name: headerAttempts, Value: strconv.Itoa(int(it.failed))},
		Header{Name: headerRetry, Value: strings.Join([]string{
			it.until.UTC().Format(time.RFC3339Nano), leaves.UTC().Format(time.RFC3339Nano), url.QueryEscape(it.rec.Topic), pos,
			m.Delay.String(), strconv.Itoa(int(m.Priority))}, " ")})
	if it.ends > 0 {
		m.Headers = append(m.Headers, Header{Name: headerExpires, Value: strconv.FormatInt(it.ends, 10) + " " + m.TTL.String()})
	}
	m.Delay, m.Priority = 0, 0
	return m
}

// unpackRetry reads what retryCopy has written. Of what is not ours it takes nothing.
func (it *item) unpackRetry(m *Message, text string) {
	f := strings.Split(text, " ")
	if len(f) != 6 {
		return
	}
	topic, err := url.QueryUnescape(f[2]) // of somebody else's message any text, of one that was sent to a group a pattern
	until, err1 := time.Parse(time.RFC3339Nano, f[0])
	leaves, err2 := time.Parse(time.RFC3339Nano, f[1])
	delay, err3 := time.ParseDuration(f[4])
	priority, err4 := strconv.ParseUint(f[5], 10, 8)
	var pos Position
	if f[3] != "-" && pos.UnmarshalText([]byte(f[3])) != nil || err != nil || err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		return
	}
	it.until, it.due = until, leaves
	it.rec.Topic, it.rec.Pos = topic, pos
	m.Delay, m.Priority = delay, uint8(priority)
}
