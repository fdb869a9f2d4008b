package pubsub

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/internal/deadevent"
)

const (
	watchEvery = time.Second      // and up to twice that: how often a consumer looks whether its blocked keys are open
	readEvery  = time.Minute      // how often it then reads all, for what was purged or has expired
	readShare  = 20               // of the time, one part at most goes into reading all
	looseEnds  = 5 * time.Second  // for so long a look need not show what is stored: servers follow each other
	lookPause  = 30 * time.Second // without an answer it has failed
	lookPage   = 256              // records that are taken in at once
)

// blocks are what a consumer with BlockKey knows of its group's dead letters, and how it learns of them.
//
// The broker has the truth: the dead letters, and beside them what became of them. Both are read before the first message of a lane is handled, behind whoever had
// the lane before. What this process stores it takes in by itself. While a key is blocked both are read again and again, since others free it.
type blocks struct {
	book     *book             // guarded by the consumer's mu
	reading  bool              // all is being read, guarded by mu
	missed   []deadevent.Event // that this process has told meanwhile, guarded by mu
	watching bool              // guarded by mu
	unseen   error             // why nobody can see whether keys are open, guarded by mu; nil = they can
	watchers sync.WaitGroup    // of what watches

	looking chan struct{} // who is in it looks, alone; what follows is his
	begun   time.Time     // when all was read; zero = never
	took    time.Duration // to read all
	state   Position      // up to where what became of dead letters was read
	dead    Position      // up to where the dead letters were
}

func (c *Consumer) newBlocks() *blocks {
	bl := &blocks{book: newBook(), looking: make(chan struct{}, 1)}
	bl.book.told = c.tellKey
	return bl
}

// tellKey logs that a key is blocked, or open again. mu is held.
func (c *Consumer) tellKey(l *letter, opened bool) {
	if opened {
		c.log.Info("a key is open again", "dead_letter", l.ID, "message", l.Message)
	} else {
		c.log.Warn("a key is blocked: its later messages follow to the dead letters", "dead_letter", l.ID, "message", l.Message)
	}
}

// places are where the dead letters of the group are, and what became of them.
func (c *Consumer) places() (state, dead Place) {
	at := Place{Topic: c.sub.Topic, Group: c.sub.Group, Kind: PlaceState}
	state, at.Kind = at, PlaceDead
	return state, at
}

// mayLook asks for one record of each place: who may not read them could not keep keys blocked.
func (c *Consumer) mayLook(ctx context.Context) error {
	state, dead := c.places()
	for _, at := range []Place{state, dead} {
		for _, err := range c.b.drv.(Browser).Browse(ctx, at, Position{}) {
			if err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// looks says whether the consumer has to look at the dead letters before it takes in what was received: a lane has come. The lanes tell that themselves; that its first
// record is of a lane that nobody has seen says the same.
func (f *feed) looks(events []LaneEvent, recs []Record) bool {
	if f.c.blocks == nil {
		return false
	}
	for i := range events {
		if events[i].Kind == LaneGained {
			return true
		}
	}
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	for i := range recs {
		if f.lanes[recs[i].Token.Lane] == nil {
			return true
		}
	}
	return false
}

// returns gives records back that nothing was done with. mu is held.
func (f *feed) returns(recs []Record) {
	for i := range recs {
		f.settles = append(f.settles, Settlement{Token: recs[i].Token, As: SettleRelease, Failed: recs[i].Failed})
	}
	f.kickSettler()
}

// handBack gives records back that nothing was done with, in a session that ends for that: with it alone each would count as delivered, and enough of that is a
// suspicion. The settler leaves first, since two may not settle.
func (f *feed) handBack(recs []Record) {
	f.c.mu.Lock()
	f.returns(recs)
	src, cut := f.src, f.cut // of this session, whenever the timer calls it
	close(f.leave)
	f.leave = nil // the consumer may end now, without another session
	f.c.mu.Unlock()
	ctx, cancel := context.WithTimeout(f.ctx, closeGrace)
	defer cancel()
	defer context.AfterFunc(ctx, func() { cut(ctx.Err()) })() // a broker that does not answer
	<-f.settler
	if err := f.flushNow(ctx, src); err != nil {
		f.c.log.Debug("handing back what was received", "err", err)
	}
}

// look takes in what was added to the dead letters since the last look, or all of them where that is a while ago. What was stored before it began is known when it
// returns nil. The error is the driver's.
func (c *Consumer) look(ctx context.Context) error {
	bl := c.blocks
	select {
	case bl.looking <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-bl.looking }()
	if bl.begun.IsZero() || time.Since(bl.begun) >= max(readEvery, readShare*bl.took) {
		return c.readAll(ctx)
	}
	begun := time.Now()
	err := c.readOn(ctx, &bl.state, &bl.dead, func(take func(*book)) {
		c.mu.Lock()
		defer c.mu.Unlock()
		take(bl.book)
		c.watchKeys()
	})
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		bl.book.missing(begun.Add(-looseEnds))
	}
	return err
}

// readAll makes a new book of all that is there, so that what is gone from there is gone here.
func (c *Consumer) readAll(ctx context.Context) error {
	bl := c.blocks
	begun, fresh := time.Now(), newBook()
	c.mu.Lock()
	bl.reading, bl.missed = true, nil
	c.mu.Unlock()
	var state, dead Position
	err := c.readOn(ctx, &state, &dead, func(take func(*book)) { take(fresh) })
	c.mu.Lock()
	defer c.mu.Unlock()
	bl.reading = false
	if err != nil {
		return err
	}
	for i := range bl.missed {
		fresh.note(&bl.missed[i])
	}
	for _, l := range bl.book.missing(begun.Add(-looseEnds)) {
		fresh.add(l)
	}
	fresh.told = bl.book.told
	for key, l := range bl.book.open {
		if fresh.open[key] == nil {
			fresh.told(l, true)
		}
	}
	if bl.begun.IsZero() {
		c.log.Info("the dead letters are read", "blocked_keys", len(fresh.open))
	} else {
		for key, l := range fresh.open {
			if bl.book.open[key] == nil {
				fresh.told(l, false)
			}
		}
	}
	bl.book, bl.begun, bl.took, bl.state, bl.dead = fresh, begun, time.Since(begun), state, dead
	c.watchKeys()
	return nil
}

// readOn reads both places from positions on and moves these. What became of dead letters is read first, since what failed again is a dead letter that was stored
// before its outcome was told, and counts last: an edited one is to be known before its original is done with. So no key is taken for open between the two.
func (c *Consumer) readOn(ctx context.Context, state, dead *Position, into func(take func(*book))) error {
	states, letters := c.places()
	var told []deadevent.Event
	read := *state
	err := c.readPlace(ctx, states, &read, func(take func(*book)) { take(nil) }, func(_ *book, m *Message) {
		if e, ok := deadevent.Decode(m.Type, m.Payload); ok {
			told = append(told, e)
		}
	})
	if err != nil {
		return err
	}
	err = c.readPlace(ctx, letters, dead, into, func(b *book, m *Message) {
		if l, ok := letterOf(m); ok {
			b.add(l)
		}
	})
	if err != nil {
		return err
	}
	into(func(b *book) {
		for i := range told {
			b.note(&told[i])
		}
	})
	*state = read
	return nil
}

// readPlace reads a place from a position on, and moves it with each page that is taken in. Where the broker tells no positions that is all, each time: what is known
// is taken in once more, which changes nothing in the end.
func (c *Consumer) readPlace(ctx context.Context, at Place, from *Position, into func(take func(*book)), each func(*book, *Message)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := time.AfterFunc(lookPause, cancel) // or nobody else could look
	defer stalled.Stop()
	page := make([]Record, 0, lookPage)
	take := func() {
		if len(page) == 0 {
			return
		}
		into(func(b *book) {
			for i := range page {
				each(b, page[i].Msg)
			}
		})
		*from = page[len(page)-1].Pos
		clear(page)
		page = page[:0]
	}
	seen := *from
	for r, err := range c.b.drv.(Browser).Browse(ctx, at, *from) {
		if err != nil {
			return err
		}
		stalled.Reset(lookPause)
		if r.Bad != nil || r.Pos == seen && seen != (Position{}) {
			continue
		}
		if page = append(page, r); len(page) == cap(page) {
			take()
		}
	}
	if err := ctx.Err(); err != nil { // a driver that has it all at hand may not look
		return err
	}
	take()
	return nil
}

// watchKeys sees to it that somebody looks while a key is blocked. mu is held.
func (c *Consumer) watchKeys() {
	bl := c.blocks
	if bl.watching || len(bl.book.open) == 0 || c.life.Err() != nil {
		return
	}
	bl.watching = true
	bl.watchers.Go(c.watchBlocks)
}

// watchBlocks looks again and again until no key is blocked or the consumer ends. A session that has its lanes does not look, and goes on where this fails: so this
// warns, once, and State says it, for its keys stay blocked.
func (c *Consumer) watchBlocks() {
	bl := c.blocks
	for {
		timer := time.NewTimer(watchEvery + rand.N(watchEvery))
		select {
		case <-timer.C:
		case <-c.life.Done(): // and so does the look
			timer.Stop()
		}
		err := c.look(c.life)
		c.mu.Lock()
		if c.life.Err() == nil {
			c.seen(err)
		}
		if c.life.Err() != nil || err == nil && len(bl.book.open) == 0 {
			bl.watching = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

// seen takes in whether a look of watchBlocks has failed. mu is held.
func (c *Consumer) seen(err error) {
	bl := c.blocks
	switch {
	case err != nil && bl.unseen == nil:
		c.log.Warn("nobody can look whether blocked keys are open: until then they stay blocked", "blocked_keys", len(bl.book.open), "err", err)
	case err == nil && bl.unseen != nil:
		c.log.Info("somebody can look again whether blocked keys are open", "blocked_keys", len(bl.book.open))
	}
	if bl.unseen = nil; err != nil {
		bl.unseen = fmt.Errorf("cannot look whether blocked keys are open: %w", err)
	}
}
