package pubsub

import (
	"context"
	"errors"
	"time"
)

const (
	flushCount = 256              // settlements that are flushed at once
	flushDelay = time.Millisecond // the longest that one waits for others
)

// settle queues a settlement and lets the item go. mu is held.
func (c *Consumer) settle(it *item, s Settlement) {
	f := it.feed
	if s.As == SettleAck {
		it.past = nil // nobody asks for it any more
	}
	if s.As == SettleRelease && !c.b.caps.Redelivery {
		c.gone++
	}
	if f.src != nil {
		s.Token = it.rec.Token
		f.settles = append(f.settles, s)
		f.unflushed += it.size
		switch len(f.settles) {
		case 1:
			f.flush.set(time.Now().Add(flushDelay))
		case flushCount:
			f.kickSettler()
		}
	}
	c.drop(it)
}

// noteFailure lets the broker keep the count of failures of an item that stays held, where it can. mu is held.
func (f *feed) noteFailure(it *item) {
	if f.c.b.caps.StoresAttempts == StoresNone || f.src == nil {
		return
	}
	f.notes = append(f.notes, Renewal{Token: it.rec.Token, Failed: it.failed})
	f.kickSettler()
}

func (f *feed) kickSettler() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

func (f *feed) flushDue() {
	f.c.mu.Lock()
	f.flush.at = time.Time{}
	if len(f.settles) > 0 {
		f.kickSettler()
	}
	f.c.mu.Unlock()
}

// settleLoop flushes settlements of one session, so that no worker waits for the broker.
func (f *feed) settleLoop(ctx context.Context, src Source, leave, ended chan struct{}) {
	defer close(ended)
	for {
		select {
		case <-f.kick:
		case <-leave:
			return
		case <-ctx.Done():
			return
		}
		if err := f.flushNow(ctx, src); err != nil {
			f.cut(err)
			return
		}
	}
}

// flushNow tells the broker what is queued, and gives up lanes that are asked for and done.
func (f *feed) flushNow(ctx context.Context, src Source) error {
	c := f.c
	c.mu.Lock()
	for len(f.settles) > 0 || len(f.notes) > 0 {
		batch, notes := f.settles, f.notes
		f.settles, f.notes, f.spare = f.spare[:0], nil, nil
		f.flushing, f.unflushed = f.unflushed, 0
		c.mu.Unlock()
		errs := make([]error, max(len(batch), len(notes)))
		var err error
		if len(notes) > 0 { // first: a settlement behind it may end the lease
			if err = src.Renew(ctx, notes, errs[:len(notes)]); err == nil {
				clear(errs)
			}
		}
		if err == nil && len(batch) > 0 {
			err = src.Settle(ctx, batch, errs[:len(batch)])
		}
		if err != nil {
			return err
		}
		if e := errors.Join(errs...); e != nil {
			c.log.Warn("messages could not be settled and will come again", "err", e)
		}
		clear(batch)
		c.mu.Lock()
		f.spare, f.flushing = batch[:0], 0
		f.signalRoom()
	}
	var finished []LaneEvent
	for _, ln := range f.lanes {
		if ln.losing != nil && !ln.told && ln.running == 0 {
			ln.told = true
			finished = append(finished, *ln.losing)
			delete(f.lanes, ln.id)
		}
	}
	c.mu.Unlock()
	for _, ev := range finished {
		if err := src.LaneDone(ctx, ev); err != nil {
			return err
		}
	}
	return nil
}

// renew prolongs the leases of all that is held, and ends those that are over.
func (f *feed) renew() {
	c := f.c
	c.mu.Lock()
	f.lease.at = time.Time{}
	src, using, ctx := f.src, f.using, f.ctx
	now := time.Now()
	var items []*item
	var renewals []Renewal
	for it := f.oldest; it != nil; {
		after := it.after
		switch {
		case it.rec.LeaseUntil.IsZero() || it.lost || it.state == itemGone:
		case it.leaseOver(now):
			c.loseLease(it)
			after = f.oldest // those behind it in its key are gone too; start again, this happens rarely
		case c.b.longestHold() == Forever || now.Sub(it.got) < c.b.caps.LeaseMax:
			items = append(items, it)
			renewals = append(renewals, Renewal{Token: it.rec.Token, Failed: it.failed})
		}
		it = after
	}
	if f.held > 0 {
		f.lease.set(now.Add(c.sub.AckWait / 3))
	}
	if src == nil || len(items) == 0 {
		c.mu.Unlock()
		return
	}
	using.Add(1)
	f.renewing++
	c.mu.Unlock()
	defer using.Done()

	ctx, cancel := context.WithTimeout(ctx, c.sub.AckWait/3)
	defer cancel()
	errs := make([]error, len(renewals))
	err := src.Renew(ctx, renewals, errs)
	c.mu.Lock()
	defer c.mu.Unlock()
	f.renewing--
	if err != nil { // a session that does not answer loses its leases by our own clock
		if !isContextError(err) {
			f.cut(err)
		}
		return
	}
	for i, it := range items {
		switch {
		case it.state == itemGone || it.lost:
		case errs[i] == nil:
			it.rec.LeaseUntil = now.Add(c.sub.AckWait)
		default:
			c.loseLease(it)
		}
	}
}

// loseLease gives up an item whose lease is over. Those behind it in its key go back: it will be delivered again, and they must not be handled
// before that. mu is held.
func (c *Consumer) loseLease(it *item) {
	c.log.Warn("a lease is lost", "id", it.rec.Msg.ID, "position", it.rec.Pos.String())
	if it.key != nil && c.sub.Order.ordered() {
		for n := it.next; n != nil; n = n.next {
			if n.state == itemParked {
				c.settle(n, Settlement{As: SettleRelease, Failed: n.failed})
			}
		}
	}
	if it.state == itemRunning || it.state == itemMoving {
		c.loseRunning(it)
		return
	}
	c.drop(it)
}
