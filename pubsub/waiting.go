package pubsub

import (
	"context"
	"errors"
	"hash/maphash"
	"iter"
	"strconv"
	"time"
)

// A Waiting is a message that waits at the broker for its retry.
type Waiting struct {
	Record Record    // the message as its next attempt will get it: Failed attempts lie behind it. Token tells the driver where it waits
	Due    time.Time // when that comes at the earliest, by the clock of whoever keeps it: the broker, or the member that moved it
}

// Attempt is the number of the attempt that it waits for, see Delivery.Attempt.
func (w *Waiting) Attempt() int { return int(w.Record.Failed) + 1 }

// Waiting lists the retries of a group that wait at the broker for their time, in no order that all brokers share. What a member holds until its retry, as an
// order by key demands, is not among them: nobody else knows of it. What becomes due while they are listed may be missing. Topic is that of the
// subscription, also where it is a pattern. Needs Capabilities.Waiting.
func (b *Broker) Waiting(ctx context.Context, topic, group string) iter.Seq2[Waiting, error] {
	return func(yield func(Waiting, error) bool) {
		const op = "list waiting"
		drv, ok := b.drv.(Waiter)
		if err := b.canWait(op, topic, group, "Waiting", ok && b.caps.Waiting >= WaitingListed); err != nil {
			yield(Waiting{}, err)
			return
		}
		seen := map[uint64]struct{}{} // hashes: there may be millions
		for w, err := range drv.Waiting(ctx, topic, group) {
			if err != nil {
				yield(Waiting{}, b.fail(ctx, op, topic, err))
				return
			}
			tiered := w.Due.IsZero()
			w.unpack(topic, tiered)
			if tiered {
				m := moved{w.Record.Topic, w.Record.Pos, w.Record.Msg.ID, w.Record.Failed}
				h := maphash.Comparable(keySeed, m)
				if _, twice := seen[h]; twice || !w.Due.After(time.Now()) { // on its way from one tier to the next, or due
					continue
				}
				seen[h] = struct{}{}
			}
			if !yield(w, nil) {
				return
			}
		}
	}
}

// A moved names one wait of a message in tiers, whichever of them it lies in.
type moved struct {
	topic  string
	pos    Position
	id     string
	failed int32
}

// unpack takes off what the engine has added; a copy in a tier says there what the driver cannot know.
func (w *Waiting) unpack(topic string, tiered bool) {
	place := Place{Topic: topic}
	if tiered {
		place = Place{Topic: topic, Kind: PlaceRetry, Tier: Tiers()[0]}
	}
	it := item{held: held{rec: w.Record, failed: w.Record.Failed}}
	it.feed = &feed{c: &Consumer{sub: Subscription{Topic: topic}}, place: place}
	it.unpack(time.Now())
	w.Record = it.rec
	if w.Record.Topic != topic && !MatchPattern(topic, w.Record.Topic) {
		w.Record.Topic = topic // as for who handles it: see feed.arrive
	}
	w.Record.Failed = it.failed
	if tiered {
		w.Due = it.until
	}
}

// RetryNow lets a message that Waiting has shown be retried at once instead of at its time. One that waits no more as it was shown (its retry has come, or somebody
// has changed it) is left alone: an ErrNotFound. Needs Capabilities.Waiting to be WaitingManaged; the zero Waiting is an ErrInvalid, so it asks whether the broker can.
func (b *Broker) RetryNow(ctx context.Context, topic, group string, w Waiting) error {
	const op = "retry now"
	drv, err := b.rescheduler(op, "RetryNow", topic, group, &w)
	if err == nil {
		_, err = drv.Reschedule(ctx, topic, group, w, 0)
	}
	return b.fail(ctx, op, topic, err)
}

// holdWaiting is for how long a retry is put off at least while its dead letter is stored: longer than a publish takes.
const holdWaiting = time.Minute

// DeadLetterNow moves a message that Waiting has shown into the group's own dead letters instead of having it retried, with the reason "operator" and why. It
// goes there also where the subscription names a topic or a Redact function: only its members know of these. The dead letter says how often the
// handler has failed; how, the member knows that has seen it.
//
// The retry is put off by a minute at least, the dead letter is stored and confirmed, and then the retry is removed. So nothing is lost: where that is cut off in
// between, the message is retried within a minute of its time, and may have a dead letter, too. One that waits no more as it was shown is left alone: an
// ErrNotFound. Needs Capabilities.Waiting to be WaitingManaged.
func (b *Broker) DeadLetterNow(ctx context.Context, topic, group string, w Waiting, why string) error {
	const op = "dead-letter now"
	drv, err := b.rescheduler(op, "DeadLetterNow", topic, group, &w)
	if err != nil {
		return err
	}
	held, err := drv.Reschedule(ctx, topic, group, w, max(time.Until(w.Due), holdWaiting))
	if err != nil {
		return b.fail(ctx, op, topic, err)
	}
	err = b.giveUp(ctx, Place{Topic: topic, Group: group, Kind: PlaceDead}, w, why)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), openTimeout) // what was begun is ended, although nobody waits for it any more
	defer cancel()
	if err != nil { // it waits for its retry as before; if that fails, too, for a minute longer at the most
		_, _ = drv.Reschedule(last, topic, group, held, max(time.Until(w.Due), 0))
		return b.fail(ctx, op, topic, err)
	}
	if err = b.fail(last, op, topic, drv.Withdraw(last, topic, group, held)); errors.Is(err, ErrNotFound) {
		return &Error{Op: op, Broker: b.name, Topic: topic, Code: ErrConflict, Err: errors.New(err.Error()), // it was not left alone, as ErrNotFound would say
			Hint: "its dead letter is stored, and it is retried as well"}
	}
	return err
}

// giveUp stores the dead letter of a retry, and returns when the broker has confirmed it.
func (b *Broker) giveUp(ctx context.Context, to Place, w Waiting, why string) error {
	c := &Consumer{b: b, sub: Subscription{Topic: to.Topic, Group: to.Group}}
	it := &item{held: held{rec: w.Record, failed: w.Record.Failed, why: verdict{reason: ReasonOperator, err: &operatorError{why}}}}
	var token Dedup
	if w.Record.Pos != (Position{}) && b.caps.Dedup > 0 {
		token = hashToken("give up", to, w.Record.Topic, w.Record.Pos.String(), w.Record.Msg.ID, strconv.FormatInt(w.Record.Msg.Time.UnixNano(), 10),
			strconv.Itoa(int(w.Record.Failed)))
	}
	whole := c.deadLetter(it)
	for step := uint8(0); ; step++ {
		m := whole
		m.Headers = append(Headers(nil), whole.Headers...)
		shed(&m, step)
		answer := make(chan error, 1)
		err := b.moves.sendAsync(ctx, to, m, token, func(_ Receipt, err error) { answer <- err })
		if err == nil {
			err = <-answer // within the time of a publish, also if ctx ends: who left before that would not know whether it is stored
		}
		if !errors.Is(err, ErrTooLarge) || step == lastShed {
			return err
		}
	}
}

// An operatorError is why a message was given up that nobody wanted to wait for.
type operatorError struct{ why string }

func (e *operatorError) Error() string {
	if e.why == "" {
		return "given up while it waited for its retry"
	}
	return "given up while it waited for its retry: " + e.why
}

// canWait refuses names that are none, and what the broker cannot do.
func (b *Broker) canWait(op, topic, group, feature string, can bool) error {
	if err := b.usable(op, topic); err != nil {
		return err
	}
	err := checkFilter(topic)
	if err == nil {
		err = checkGroup(group)
	}
	switch {
	case err != nil:
		return invalidOn(b, op, topic, err, namesHint)
	case !can:
		return &Error{Op: op, Broker: b.name, Topic: topic, Code: ErrUnsupported, Err: errors.New(feature)}
	}
	return nil
}

// rescheduler is the driver's, if it can and w is something that Waiting has shown.
func (b *Broker) rescheduler(op, feature, topic, group string, w *Waiting) (Rescheduler, error) {
	drv, ok := b.drv.(Rescheduler)
	err := b.canWait(op, topic, group, feature, ok && b.caps.Waiting >= WaitingManaged)
	if err == nil && (w.Record.Msg == nil || w.Due.IsZero()) {
		err = invalidOn(b, op, topic, errors.New("no message that waits"), "")
	}
	return drv, err
}
