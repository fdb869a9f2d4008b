package pubsub

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errDrained is the cause of a handler's context that ended because the drain's time was over: what the handler then returns is no failure.
var errDrained = errors.New("the consumer is being closed")

// cancelGrace is how long a cancelled handler may take to return before it is named.
const cancelGrace = time.Second

// finish handles what is on its way where nobody takes it back: it leaves the groups, goes on until all has come and nothing is left to do, or ctx
// ends. A message that waits for longer than that is not waited for.
func (c *Consumer) finish(ctx context.Context) error {
	c.mu.Lock()
	idle := c.paused || c.pulls // nobody handles anything
	c.closing = !idle
	c.mu.Unlock()
	if idle {
		return nil
	}
	var errs []error
	for _, f := range c.feeds {
		err := f.quiesce(ctx)
		if err == nil || ctx.Err() != nil || c.life.Err() != nil {
			continue
		}
		errs = append(errs, c.b.fail(ctx, "drain", c.sub.Topic, err))
	}
	left := make(chan struct{})
	c.mu.Lock()
	c.last, _ = ctx.Deadline()
	c.left = left
	c.nothingLeft()
	c.mu.Unlock()
	select {
	case <-left:
	case <-ctx.Done():
	case <-c.life.Done():
	}
	return errors.Join(errs...)
}

// isClosing says whether the consumer handles what it has, and wants no more.
func (c *Consumer) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// nothingLeft tells finish that there is nothing more to do in time. mu is held.
func (c *Consumer) nothingLeft() {
	if c.left == nil || c.running+c.moving+c.ready.n > 0 || len(c.waiting) > 0 && (c.last.IsZero() || c.waiting[0].due.Before(c.last)) {
		return
	}
	close(c.left)
	c.left = nil
}

// drain ends the consumer. Nothing is fetched any more when it is called, because life has ended.
//
// Running handlers, and copies on their way, get until ctx ends; then they are cancelled. What nobody has begun with goes
// back to the broker at once, so that another member can have it.
func (c *Consumer) drain(ctx context.Context) error {
	var errs []error
	for _, f := range c.feeds {
		<-f.fetched
	}
	c.mu.Lock()
	c.draining = true
	for _, f := range c.feeds {
		f.save(ctx, nil)
	}
	quiet := make(chan struct{})
	for _, f := range c.feeds {
		for it := f.oldest; it != nil; {
			after := it.after
			if it.state != itemRunning && it.state != itemMoving {
				c.settle(it, Settlement{As: SettleRelease, Failed: it.failed})
			}
			it = after
		}
		f.kickSettler()
	}
	if c.running == 0 && c.moving == 0 {
		close(quiet)
	} else {
		c.quiet = quiet
	}
	c.cond.Broadcast()
	c.mu.Unlock()

	for _, f := range c.feeds {
		if !c.b.caps.Redelivery {
			break // finish has done it
		}
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace) // also when the drain's time is over already
		err := f.quiesce(back)
		cancel()
		if err != nil { // the session is dead: what it held goes back by itself
			c.log.Warn("a session ended during the drain", "err", err)
			c.mu.Lock()
			f.down = err
			c.mu.Unlock()
		}
	}
	select {
	case <-quiet:
	case <-ctx.Done():
		errs = append(errs, c.cancelRunning(quiet))
	}
	c.mu.Lock()
	c.stopped = true
	c.alarm.stop()
	c.watch.stop()
	c.cond.Broadcast()
	c.mu.Unlock()
	for _, f := range c.feeds {
		if err := f.end(); err != nil {
			errs = append(errs, c.b.fail(context.Background(), "drain", c.sub.Topic, err))
		}
	}
	c.mu.Lock()
	if c.gone > 0 {
		errs = append(errs, &Error{Op: "drain", Broker: c.b.name, Topic: c.sub.Topic, Code: ErrTimeout,
			Err:  fmt.Errorf("group %q: %d messages were not handled to their end and are lost", c.sub.Group, c.gone),
			Hint: "this broker takes nothing back"})
	}
	c.mu.Unlock()
	return errors.Join(errs...)
}

// cancelRunning ends the handlers' contexts, and names those that go on all the same: they are left alone, and settle nothing.
func (c *Consumer) cancelRunning(quiet chan struct{}) error {
	c.mu.Lock()
	c.aborted = true
	for _, f := range c.feeds {
		for it := f.oldest; it != nil; it = it.after {
			if it.run != nil {
				it.run.end(errDrained)
			}
			if it.cancel != nil {
				it.cancel(errDrained)
			}
		}
	}
	c.mu.Unlock()
	timer := time.NewTimer(cancelGrace)
	defer timer.Stop()
	select {
	case <-quiet:
		return nil
	case <-timer.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, f := range c.feeds {
		for it := f.oldest; it != nil; {
			after := it.after
			what := "a lease of the Receive loop"
			switch {
			case it.state == itemMoving:
				what = "a copy that is not confirmed"
			case it.run != nil:
				what = fmt.Sprintf("a handler that ignores its context and has run for %v", time.Since(it.run.since).Round(time.Millisecond))
			}
			errs = append(errs, &Error{Op: "drain", Broker: c.b.name, Topic: it.rec.Topic, Code: ErrTimeout,
				Err:  fmt.Errorf("group %q, message %s: %s", c.sub.Group, it.rec.Msg.ID, what),
				Hint: "the message goes back to the broker; handlers should return when their context ends"})
			it.lost = true
			if it.state == itemMoving { // its copy may be stored: the original comes again
				f.settles = append(f.settles, Settlement{Token: it.rec.Token, As: SettleRelease, Failed: it.failed})
			}
			it = after
		}
	}
	return errors.Join(errs...)
}

// quiesce stops the arrival of records at the session, if there is one.
func (f *feed) quiesce(ctx context.Context) error {
	f.c.mu.Lock()
	src, using := f.src, f.using
	if src == nil {
		f.c.mu.Unlock()
		return nil
	}
	using.Add(1)
	f.c.mu.Unlock()
	defer using.Done()
	return src.Quiesce(ctx)
}

// end flushes and closes the session.
func (f *feed) end() error {
	c := f.c
	c.mu.Lock()
	src, using, settler := f.src, f.using, f.settler
	f.lease.stop()
	f.flush.stop()
	if src != nil && f.leave != nil {
		close(f.leave) // when it has told what it is telling; what it has not begun with is flushed below
	}
	c.mu.Unlock()
	if src == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { f.cut(ctx.Err()) })() // a broker that does not answer
	<-settler
	if ctx.Err() == nil && f.ctx.Err() != nil {
		c.mu.Lock()
		f.down = context.Cause(f.ctx)
		c.mu.Unlock()
	}
	c.mu.Lock()
	err := f.lostAcks()
	alive := f.down == nil
	c.mu.Unlock()
	if alive {
		if err = f.flushNow(ctx, src); err == nil {
			err = src.Sync(ctx)
		}
	}
	c.mu.Lock()
	f.src = nil // handlers that were left alone settle nothing
	for it := f.oldest; it != nil; {
		after := it.after
		it.lost = true
		c.drop(it)
		it = after
	}
	c.mu.Unlock()
	f.cut(nil)
	using.Wait()
	if closed := src.Close(ctx); alive {
		err = errors.Join(err, closed)
	}
	return err
}

// lostAcks is an error if the session died before the broker was told of all acks: those messages will come again. mu is held.
func (f *feed) lostAcks() error {
	n := 0
	for _, s := range f.settles {
		if s.As == SettleAck {
			n++
		}
	}
	if f.down == nil || n == 0 {
		return nil
	}
	return fmt.Errorf("%d acked messages will be delivered again: %w", n, f.down)
}
