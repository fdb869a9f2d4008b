package pubsub

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"
)

const (
	bufRecords    = 128
	slabItems     = 58               // as many deliveries as fit into a block of 16 KiB
	notFoundGrace = 30 * time.Second // a topic that vanished may be on its way to another node
	authGrace     = time.Minute      // credentials may be in rotation
)

// A feed fetches the records of one place and settles them, through one Source session after the other. Its fields below
// the line are guarded by the consumer's mu.
type feed struct {
	c       *Consumer
	place   Place
	limit   int   // messages held
	most    int64 // bytes of them
	salt    uint64
	buf     []Record // received into; only fetch uses it
	slab    []Delivery
	kick    chan struct{}
	fetched chan struct{} // closed when fetch is over

	src         Source // nil while there is no session
	using       *sync.WaitGroup
	ctx         context.Context // of the session
	cut         context.CancelCauseFunc
	leave       chan struct{} // closed to let the session's settler finish what it does, and leave
	settler     chan struct{} // closed when it has
	down        error
	lanes       map[int32]*lane
	oldest      *item
	newest      *item
	held        int
	sleeping    int // of held: in the tier
	bytes       int64
	settles     []Settlement
	spare       []Settlement
	unflushed   int64     // bytes of what is settled here, but not yet at the broker: there it is in flight still
	flushing    int64     // the same, while the broker is told
	notes       []Renewal // failures for the broker to keep
	flush       alarm
	lease       alarm
	suspect     suspect // of the quarantine: the message that was delivered last
	sightings   int32   // how often, to this process
	free        []*item // to be used again
	renewing    int     // renewals on their way: they know their items, so none is used again
	wantsRoom   bool
	foundRoom   context.CancelFunc // ends a Recv that waits for it
	lowestWater int
}

func newFeed(c *Consumer, place Place) *feed {
	f := &feed{
		c: c, place: place, limit: c.sub.MaxInFlight, most: c.sub.MaxInFlightBytes, salt: maphash.Comparable(keySeed, place),
		kick: make(chan struct{}, 1), fetched: make(chan struct{}), lanes: map[int32]*lane{},
	}
	switch {
	case place.Kind == PlaceQuarantine:
		f.limit = 1 // so that a process killer is known by its name
	case place.Tier > 0:
		f.limit, f.most = c.tierRoom()
		f.salt = maphash.Comparable(keySeed, Place{Topic: place.Topic, Group: place.Group}) // its messages have the same keys
	case len(c.tiers) > 0:
		f.limit, f.most = c.roomBesideTiers()
	}
	f.lowestWater = f.limit - max(f.limit/4, 1)
	f.flush.f, f.lease.f = f.flushDue, f.renew
	return f
}

func (f *feed) spec() SourceSpec {
	s := &f.c.sub
	start := s.Start
	if f.place.Kind != PlaceMain {
		start = FromEarliest()
	}
	limit, all := f.limit, f.c.roomTogether()
	switch {
	case f.place.Tier > 0:
		limit += f.c.awakeRoom()
	case f.place.Kind == PlaceQuarantine:
		all = 0
	}
	return SourceSpec{
		From: f.place, Start: start, Order: s.Order, AckWait: s.AckWait, MaxInFlight: limit,
		MaxInFlightBytes: f.most, AllInFlight: all, Member: f.c.member, Manage: f.c.b.opts.Manage,
	}
}

// start begins to fetch from the source that was opened.
func (f *feed) start() {
	f.c.mu.Lock()
	f.attach(f.src)
	f.c.mu.Unlock()
	go f.run()
}

// attach makes src the session. mu is held.
func (f *feed) attach(src Source) {
	f.src, f.using, f.leave, f.settler = src, new(sync.WaitGroup), make(chan struct{}), make(chan struct{})
	f.ctx, f.cut = context.WithCancelCause(f.c.base)
	go f.settleLoop(f.ctx, src, f.leave, f.settler)
}

// run fetches until the consumer ends, over as many sessions as that takes.
func (f *feed) run() {
	defer close(f.fetched)
	for {
		err := f.fetch()
		if err == nil {
			return
		}
		f.detach(err)
		f.c.log.Warn("a session ended", "err", err)
		f.c.emit(Event{Kind: EventDisconnected, Err: err})
		src := f.reopen(err)
		if src == nil {
			return
		}
		f.c.mu.Lock()
		f.down = nil
		f.attach(src)
		f.c.mu.Unlock()
		f.c.emit(Event{Kind: EventReconnected})
	}
}

// fetch receives until the session dies; nil means that the consumer fetches no more.
func (f *feed) fetch() error {
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	defer context.AfterFunc(f.c.life, cancel)()
	for {
		n, maxBytes := f.freeRoom()
		err := f.receive(ctx, n, maxBytes)
		switch {
		case err == nil:
		case f.c.life.Err() != nil:
			return nil
		case f.ctx.Err() != nil:
			return context.Cause(f.ctx)
		default:
			return err
		}
	}
}

// receive takes up to n records in. Where there is no room it waits for room, and for lanes that come and go: those do not wait.
func (f *feed) receive(session context.Context, n int, maxBytes int64) error {
	ctx, full := session, n == 0
	if full {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(session)
		defer cancel()
		f.c.mu.Lock()
		if f.wantsRoom {
			f.foundRoom = cancel
		} else { // since freeRoom looked
			cancel()
		}
		f.c.mu.Unlock()
	}
	if f.buf == nil {
		f.buf = make([]Record, min(bufRecords, f.limit))
	}
	buf := f.buf[:min(n, len(f.buf))]
	n, events, err := f.src.Recv(ctx, buf, maxBytes)
	blind, back := false, false
	if err == nil && f.looks(events, buf[:n]) {
		err = f.c.look(session)
		blind = err != nil
		if back = blind && session.Err() == nil && f.c.b.caps.FreeRelease; back {
			f.handBack(buf[:n])
		}
	}
	defer clear(buf[:n]) // a consumer that waits keeps nothing alive
	switch {
	case !full || session.Err() != nil:
	case err == nil && n == 0 && len(events) == 0:
		<-ctx.Done() // a driver that does not wait for events must not keep us busy
	case isContextError(err) && ctx.Err() != nil && !blind:
		err = nil // there is room
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	for _, ev := range events {
		f.laneEvent(ev)
	}
	switch {
	case n == 0 || back || err != nil && session.Err() == nil:
	case blind: // nobody knows which of their keys are blocked
		f.returns(buf[:n])
	default:
		f.arrive(buf[:n])
	}
	return err
}

// freeRoom returns how much may be fetched. Where nearly all that may be held is held, that is nothing until a quarter is free or the
// workers run dry: fetching one message at a time would be slow.
func (f *feed) freeRoom() (int, int64) {
	c := f.c
	c.mu.Lock()
	defer c.mu.Unlock()
	n, bytes := f.limit-f.held, f.most-f.bytes-f.unflushed-f.flushing
	dry := f.held <= f.lowestWater || c.ready.n == 0
	if f.place.Tier > 0 {
		n, dry = f.freeInTier(), true
	}
	if n > 0 && bytes > 0 && dry && !c.parkedFull() && !c.isPaused() {
		return n, bytes
	}
	f.wantsRoom = true
	if bytes <= 0 && f.unflushed > 0 {
		f.kickSettler()
	}
	return 0, 0
}

// signalRoom lets fetch look again, if it waits for that. mu is held.
func (f *feed) signalRoom() {
	f.wantsRoom = false
	if f.foundRoom != nil {
		f.foundRoom()
		f.foundRoom = nil
	}
}

// arrive takes records in. mu is held.
func (f *feed) arrive(recs []Record) {
	now := time.Now()
	var ln *lane
	for i := range recs {
		rec := &recs[i]
		if ln == nil || ln.id != rec.Token.Lane {
			ln = f.laneOf(rec.Token.Lane)
		}
		it := f.newItem(len(recs) - i)
		it.rec, it.lane, it.state, it.failed, it.size, it.got = *rec, ln, itemReady, rec.Failed, rec.Msg.Size(), now
		it.unpack(now)
		if own := f.c.sub.Topic; it.rec.Topic != own && !MatchPattern(own, it.rec.Topic) {
			it.rec.Topic = own // a copy says where it is from: somebody could have a message of another topic taken for one of this
		}
		if !rec.LeaseUntil.IsZero() && f.lease.at.IsZero() {
			f.lease.set(now.Add(f.c.sub.AckWait / 3))
		}
		f.c.pasts.recall(it)
		it.newDelivery()
		f.hold(it)
		if f.place.Tier > 0 {
			f.c.waitInTier(it, now)
			continue
		}
		f.c.admit(it)
		f.c.enqueue(it)
	}
	f.c.checkParked(nil)
	f.c.wakeWorkers()
}

// newItem takes an item to be used again, or makes some: no more than are needed now. mu is held.
func (f *feed) newItem(needed int) *item {
	if len(f.free) == 0 {
		items := make([]item, min(needed, slabItems))
		for i := range items {
			items[i].feed = f
			f.free = append(f.free, &items[i])
		}
	}
	last := len(f.free) - 1
	it := f.free[last]
	f.free = f.free[:last]
	it.use++
	return it
}

// reuse takes back an item that nobody knows any more: it was taken from the ready queue, was the first of its key, and is settled. One with a
// coroutine stays as it is: its lease may be settled again, its middleware may call next once more. mu is held.
func (f *feed) reuse(it *item) {
	if f.renewing == 0 && it.co == nil {
		it.held = held{state: itemGone}
		f.free = append(f.free, it)
	}
}

// newDelivery makes what the next attempt's handler gets: nobody else's memory, so that it can be kept. mu is held.
func (it *item) newDelivery() {
	f := it.feed
	if len(f.slab) == 0 {
		f.slab = make([]Delivery, min(slabItems, f.limit))
	}
	d := &f.slab[0]
	f.slab = f.slab[1:]
	d.Message, d.Topic, d.Group = *it.rec.Msg, it.rec.Topic, f.c.sub.Group
	d.Attempt, d.Deliveries, d.Position = int(it.failed)+1, int(it.rec.Deliveries), it.rec.Pos
	d.raw, d.item, d.use = it.rec.Msg, it, it.use
	it.d = d
}

// admit decides whether the handler is called at all.
func (c *Consumer) admit(it *item) {
	attempts := int32(min(c.sub.Retry.MaxAttempts, 1<<30))
	started := it.rec.Deliveries
	if it.feed.place.Tier > 0 {
		started += it.failed // each of those was a delivery of another copy
	}
	switch {
	case it.job != taskHandle:
	case it.rec.Bad != nil:
		it.job, it.why = taskDeadLetter, verdict{reason: ReasonUndecodable, err: it.rec.Bad}
	case attempts == Unlimited || it.rec.Deliveries == 0:
	case it.feed.place.Kind == PlaceQuarantine && it.rec.Deliveries-it.feed.survived(&it.rec) > 1+it.rec.Failed:
		it.job, it.why = taskDeadLetter, verdict{reason: ReasonProcessKiller, err: killedError{}}
	case it.feed.place.Kind != PlaceQuarantine && started > attempts && it.failed < attempts && c.quarantines():
		it.job = taskQuarantine
	}
}

// A suspect names a message in the quarantine. Where the broker gives no positions that is its ID; a retry of it is another copy, with deliveries of its own.
type suspect struct {
	pos    Position
	id     string
	failed int32
}

// survived tells how often the quarantine has delivered this message to this process before: it lives, so the message did not end it, whatever
// else brought it back. Only the last message is remembered, since one at a time is in flight; one that has no name is always new. mu is held.
func (f *feed) survived(r *Record) int32 {
	s := suspect{pos: r.Pos}
	if r.Pos == (Position{}) {
		s.id, s.failed = r.Msg.ID, r.Failed
	}
	if f.suspect != s || s == (suspect{failed: s.failed}) {
		f.suspect, f.sightings = s, 0
	}
	f.sightings++
	return f.sightings - 1
}

func (f *feed) hold(it *item) {
	f.held++
	f.bytes += it.size
	if it.prev = f.newest; it.prev == nil {
		f.oldest = it
	} else {
		it.prev.after = it
	}
	f.newest = it
}

func (f *feed) unhold(it *item) {
	f.held--
	f.bytes -= it.size
	if it.prev == nil {
		f.oldest = it.after
	} else {
		it.prev.after = it.after
	}
	if it.after == nil {
		f.newest = it.prev
	} else {
		it.after.prev = it.prev
	}
	it.prev, it.after = nil, nil
	switch {
	case f.place.Tier > 0: // they share what has left them
		for _, o := range f.c.feeds {
			if o.place.Tier > 0 {
				o.signalRoom()
			}
		}
	case f.held <= f.lowestWater || f.c.ready.n == 0:
		f.signalRoom()
	}
}

// loseRunning ends the lease of an item whose handler runs, or whose copy is on its way. mu is held.
func (c *Consumer) loseRunning(it *item) {
	it.lost = true
	err := &Error{Op: "handle", Broker: c.b.name, Topic: it.rec.Topic, Code: ErrLeaseLost}
	if it.run != nil {
		it.run.end(err)
	}
	if it.cancel != nil {
		it.cancel(err)
	}
}

// detach ends the session: nothing that it delivered can be settled any more. What nobody else will get is handled all the same.
func (f *feed) detach(err error) {
	c := f.c
	c.mu.Lock()
	src, using, settler := f.src, f.using, f.settler
	f.src, f.down = nil, err
	for it := f.oldest; it != nil; {
		after := it.after
		switch {
		case !c.b.caps.Redelivery:
		case it.state == itemRunning || it.state == itemMoving:
			c.loseRunning(it)
		default:
			c.drop(it)
		}
		it = after
	}
	f.settles, f.notes, f.unflushed, f.flushing = f.settles[:0], f.notes[:0], 0, 0
	clear(f.lanes)
	f.cut(err)
	c.mu.Unlock()
	<-settler
	using.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	if err := src.Close(ctx); err != nil {
		c.log.Debug("closing a source", "err", err)
	}
}

// reopen opens the next session. nil means that there will be none, because the consumer ends.
func (f *feed) reopen(cause error) Source {
	c, down, delays := f.c, time.Now(), retryDelays()
	var since time.Time // of the first error of the kind that has a grace
	var kind Code
	for {
		code, final := c.b.drv.Classify(cause)
		if isContextError(cause) {
			code, final = ErrUnavailable, false
		}
		if code != kind {
			kind, since = code, time.Now()
		}
		grace := time.Duration(0)
		switch code {
		case ErrNotFound:
			grace = notFoundGrace
		case ErrUnauthenticated, ErrDenied:
			grace = authGrace
		default:
			if !final {
				grace = Forever
			}
		}
		limit := c.b.opts.MaxDowntime
		switch {
		case time.Since(since) >= grace:
			err := c.b.fail(c.life, "consume", c.sub.Topic, cause)
			if e, ok := errors.AsType[*Error](err); ok && code == ErrNotFound && e.Hint == "" {
				e.Hint = "it vanished; it is not created again, because what was in it is gone"
			}
			c.stop(err)
			return nil
		case limit > 0 && time.Since(down) >= limit:
			c.stop(&Error{Op: "consume", Broker: c.b.name, Topic: c.sub.Topic, Code: ErrUnavailable, Err: cause,
				Hint: fmt.Sprintf("not reachable for Options.MaxDowntime of %v", limit)})
			return nil
		}
		if delays.Wait(c.life) != nil || c.isClosing() {
			return nil
		}
		src, err := f.openAgain()
		if err == nil {
			return src
		}
		if c.life.Err() != nil {
			return nil
		}
		cause = err
		c.mu.Lock()
		f.down = err
		c.mu.Unlock()
	}
}

// openAgain opens a session without creating anything: a topic that vanished took its messages with it.
func (f *feed) openAgain() (Source, error) {
	ctx, cancel := context.WithTimeout(f.c.life, openTimeout)
	defer cancel()
	if f.c.blocks != nil { // what is received and cannot be taken in counts as a delivery
		if err := f.c.mayLook(ctx); err != nil {
			return nil, err
		}
	}
	spec := f.spec()
	if spec.Manage == Create {
		spec.Manage = Verify
	}
	return f.c.b.drv.OpenSource(ctx, spec)
}
