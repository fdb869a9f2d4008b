package pubsub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A verdict is what becomes of a message after an attempt.
type verdict struct {
	kind     verdictKind
	delay    time.Duration
	err      error
	counts   bool   // it is a failure
	reason   Reason // of a dead letter
	category string
	policy   string   // by which it is retried, or was given up
	failure  *failure // where it counts
	took     time.Duration
	expired  bool
}

type verdictKind uint8

const (
	verdictAck verdictKind = iota
	verdictRetry
	verdictDead
	verdictQuarantine
	verdictPause
	verdictRelease
)

// A Reason says in a dead letter why the message was given up, from a closed set.
type Reason string

const (
	ReasonPermanent     Reason = "permanent"      // the handler said so
	ReasonMaxAttempts   Reason = "max-attempts"   // of its policy
	ReasonMaxElapsed    Reason = "max-elapsed"    // of its policy
	ReasonUndecodable   Reason = "undecodable"    // its bytes are not what they are said to be
	ReasonVerification  Reason = "verification"   // it is not from whom it says it is
	ReasonValidation    Reason = "validation"     // it can be read, and is wrong
	ReasonNoHandler     Reason = "no-handler"     // for its type
	ReasonPoison        Reason = "poison"         // it fails the same way again and again
	ReasonProcessKiller Reason = "process-killer" // its handler takes the process down
	ReasonHang          Reason = "hang"           // its handler does not end in time
	ReasonParkedFull    Reason = "parked-full"    // too many messages wait behind it
	ReasonOperator      Reason = "operator"       // somebody did not want to wait for its retry, see Broker.DeadLetterNow
	ReasonKeyBlocked    Reason = "key-blocked"    // an earlier message of its key is a dead letter, see BlockKey
)

// decide turns what a handler returned into a verdict. ctx is the handler's.
func (c *Consumer) decide(ctx context.Context, it *item, err error) verdict {
	if err == nil {
		return verdict{kind: verdictAck}
	}
	err = walkable(err)
	v := c.judge(ctx, it, err)
	if v.counts {
		v.failure = newFailure(int(it.failed)+1, v.err)
	}
	return v
}

// walkable is err, or the panic of one that cannot be unwrapped, as a nil pointer with methods cannot: it is walked through again and again, also
// where nobody recovers.
func walkable(err error) (safe error) {
	defer func() {
		if r := recover(); r != nil {
			safe = newPanic(r)
		}
	}()
	errorTypes(nil, err)
	_ = classified(err)
	return err
}

// judge decides about a handler that returned an error.
func (c *Consumer) judge(ctx context.Context, it *item, err error) (v verdict) {
	if HandedBack(ctx) {
		return verdict{kind: verdictRelease, err: err}
	}
	cause := context.Cause(ctx)
	hung := errors.Is(cause, ErrTimeout)
	if hung && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	v = verdict{err: err, counts: true}
	o := classified(err)
	policy, category := c.policyFor(err)
	switch {
	case o != nil && o.category != "": // a layer was nearer to the handler than the subscription
		category = o.category
	case category != "":
		v.err = &outcome{err: err, category: category} // for CategoryOf
	}
	v.category = category
	if o != nil {
		switch o.kind {
		case OutcomePermanent:
			v.kind, v.reason = verdictDead, o.reason
			return v
		case OutcomeSnooze:
			v.kind, v.delay, v.counts = verdictRetry, min(o.after, longestDelay), false
			return v
		case OutcomePause:
			v.kind, v.delay, v.counts = verdictPause, min(o.after, longestDelay), false
			return v
		}
		if o.policy != nil {
			policy = *o.policy
		} else { // RetryAfter: its delay, within the policy's attempts
			policy.Immediate, policy.Delays = 0, []time.Duration{o.after}
		}
	}
	failures := int(it.failed) + 1
	v.kind, v.policy = verdictRetry, policy.Name
	v.delay = policy.delay(failures)
	switch {
	case policy.MaxAttempts != Unlimited && failures >= policy.MaxAttempts:
		v.kind, v.reason = verdictDead, ReasonMaxAttempts
		if hung {
			v.reason = ReasonHang
		}
	case policy.MaxElapsed > 0 && time.Since(it.first)+v.delay > policy.MaxElapsed:
		v.kind, v.reason = verdictDead, ReasonMaxElapsed
	}
	return v
}

// policyFor finds the subscription's policy for a failure. A rule that panics does not match.
func (c *Consumer) policyFor(err error) (_ Policy, category string) {
	for i := range c.sub.Rules {
		if r := &c.sub.Rules[i]; matches(r, err) {
			return r.Retry, r.Category
		}
	}
	return c.sub.Retry, ""
}

func matches(r *Rule, err error) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return r.When(err)
}

// conclude carries a verdict out. mu is held, but not while a copy is handed to another place.
func (c *Consumer) conclude(it *item, v verdict, now time.Time) {
	c.running--
	it.lane.running--
	if !it.lost && it.leaseOver(now) {
		c.loseLease(it)
	}
	if it.takenAway() {
		c.drop(it) // the broker gives it to someone, or to us again
		c.settled(it)
		return
	}
	if v.counts {
		it.failed++
		it.why = v
		it.failedAgain(v.failure)
	}
	told := v.kind == verdictAck && !v.expired && c.resolves(it)
	switch v.kind {
	case verdictAck:
		if told {
			c.resolve(it, v)
			break
		}
		c.settle(it, Settlement{As: SettleAck})
		kind := EventSettled
		if v.expired {
			kind = EventExpired
		}
		if len(c.observe) > 0 {
			c.report(c.event(it, kind, v))
		}
	case verdictRelease:
		c.settle(it, Settlement{As: SettleRelease, Failed: it.failed})
	case verdictPause:
		if until := time.Now().Add(v.delay); until.After(c.until) {
			c.until, c.why = until, v.err
			c.alarm.set(until)
		}
		c.log.Info("paused by a handler", "for", v.delay, "err", v.err)
		c.again(it)
	case verdictRetry:
		ev := c.event(it, EventRetried, v)
		c.retry(it, v)
		c.report(ev)
	case verdictDead, verdictQuarantine:
		c.move(it, v)
	}
	c.settled(it)
	if it.state == itemGone && v.kind == verdictAck && !told { // who tells may hold it still
		it.feed.reuse(it)
	}
}

// event is what observers are told of an item.
func (c *Consumer) event(it *item, kind EventKind, v verdict) Event {
	return Event{Kind: kind, Count: 1, Bytes: int64(len(it.rec.Msg.Payload)), Attempt: it.d.Attempt, Policy: v.policy, Duration: v.took, Err: v.err}
}

// report tells observers, after the fact. mu is released meanwhile: an observer may look at State.
func (c *Consumer) report(ev Event) {
	if len(c.observe) == 0 {
		return
	}
	c.mu.Unlock()
	c.emit(ev)
	c.mu.Lock()
}

// again puts an item that was taken out back to the front. mu is held.
func (c *Consumer) again(it *item) {
	if c.draining || it.lane.losing != nil {
		c.settle(it, Settlement{As: SettleRelease, Failed: it.failed})
		return
	}
	it.state = itemReady
	c.ready.pushFront(it)
	c.wakeWorkers()
}

// retry delivers an item again after v.delay: at the broker or through tiers where order allows it and the broker can, else held here. mu is held.
func (c *Consumer) retry(it *item, v verdict) {
	ordered := c.keepsOrder(it)
	leaving := c.draining || it.lane.losing != nil
	kind := it.feed.place.Kind
	native := !ordered && v.delay > 0 && v.delay <= c.b.caps.RetryIn && (kind == PlaceMain || kind == PlaceQuarantine && leaving)
	tier := time.Duration(0)
	if !ordered && kind != PlaceQuarantine {
		tier = c.tierOf(v.delay)
	}
	limit := c.b.longestHold()
	switch {
	case it.state == itemGone: // lost while observers were told
	case native:
		c.settle(it, Settlement{As: SettleRetryIn, Delay: v.delay, Failed: it.failed})
	case tier > 0:
		it.until = time.Now().Add(v.delay)
		c.hop(c.base, it, tier)
	case leaving && c.unsaved(it):
		it.until = time.Now().Add(v.delay)
		c.hop(c.base, it, c.tiers[0])
	case leaving:
		c.settle(it, Settlement{As: SettleRelease, Failed: it.failed})
	case v.delay == 0:
		it.feed.noteFailure(it)
		c.again(it)
	default:
		if v.delay > limit {
			c.log.Warn("a retry delay is cut to the longest lease", "delay", v.delay, "lease", limit)
			v.delay = limit
		}
		it.feed.noteFailure(it)
		c.wait(it, v.delay)
		c.checkParked(it)
	}
}

// keepsOrder says whether later messages must not overtake an item, so that its retry is held. mu is held.
func (c *Consumer) keepsOrder(it *item) bool { return it.key != nil && c.sub.Order != OrderByKeyLoose }

// checkParked makes room, where the subscription wants that, by giving up the message that waits. mu is held.
func (c *Consumer) checkParked(it *item) {
	if c.sub.OnParkedFull != ParkDeadLetter || c.parking() < c.sub.MaxParked {
		return
	}
	for _, w := range c.waiting { // the one that holds up most
		if w.key != nil && (it == nil || it.state != itemWaiting || it.key == nil || w.key.n > it.key.n) {
			it = w
		}
	}
	if it == nil || it.state != itemWaiting || it.job != taskHandle {
		return
	}
	c.stopWaiting(it)
	it.job = taskDeadLetter
	it.why.reason = ReasonParkedFull
	it.state = itemReady
	c.ready.pushFront(it)
	c.wakeWorkers()
}

// settled tells a drain that waits for it that nothing runs any more, and the settler that a lane may be given up. mu is held.
func (c *Consumer) settled(it *item) {
	if it.lane.losing != nil && it.lane.running == 0 {
		it.feed.kickSettler()
	}
	c.nothingLeft()
	if c.draining && c.running == 0 && c.moving == 0 && c.quiet != nil {
		close(c.quiet)
		c.quiet = nil
	}
}

// unpack takes the engine's own headers off a message.
func (it *item) unpack(now time.Time) {
	own := false
	for i := range it.rec.Msg.Headers {
		switch it.rec.Msg.Headers[i].Name {
		case headerReplayOf:
			it.replay = true
		case headerExpires, headerAttempts, headerRetry, headerTopic: // see ownHeader
			own = true
		}
	}
	if !own {
		return
	}
	m := new(Message)
	*m = *it.rec.Msg
	it.rec.Msg = m
	for i := range m.Headers {
		h := &m.Headers[i]
		switch h.Name {
		case headerExpires:
			at, ttl, _ := strings.Cut(h.Value, " ")
			n, err := strconv.ParseInt(at, 10, 64)
			if err != nil {
				continue // somebody else's: it says nothing that we understand
			}
			m.TTL, _ = time.ParseDuration(ttl)
			it.ends = n
			if it.feed.place.Kind == PlaceMain && now.UnixNano() > n {
				it.job = taskExpire
			}
		case headerAttempts:
			if n, err := strconv.ParseInt(h.Value, 10, 32); err == nil && n > 0 && it.feed.place.Kind != PlaceMain {
				it.failed = max(it.failed, int32(n))
			}
		case headerRetry:
			if it.feed.place.Tier > 0 {
				it.unpackRetry(m, h.Value)
			}
		case headerTopic:
			// Of what was published the broker knows the topic, and who may write to one of a pattern's may not pass it off as another's.
			if it.rec.Topic == it.feed.c.sub.Topic {
				it.rec.Topic = h.Value
			}
		}
	}
	m.Headers.delFunc(ownHeader)
	if len(m.Headers) == 0 {
		m.Headers = nil
	}
}

// ownHeader says whether a header is the engine's and nobody else is to see it.
func ownHeader(name string) bool {
	return name == headerExpires || name == headerAttempts || name == headerRetry || name == headerTopic
}
