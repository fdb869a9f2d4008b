package dlq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/omnibus-go/omnibus/internal/aside"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Processes take turns as members of an exclusive group of a topic that nothing is published to: who is active replays, the others stand by. The
// broker lets another one be active when the process that was dies, or loses its connection.
const (
	turnOpen = 10 * time.Second // for an answer of the broker, as Subscribe's
	turnWait = 5 * time.Second  // for a place that nobody has any more: brokers notice after a while
	turnLook = 20 * time.Millisecond
	turnLast = 500 * time.Millisecond // for giving it back, and for why it was lost
)

// takeTurn waits for our turn, if turns are taken. mine says whether it is still ours, leave gives it back.
func (p *Plan) takeTurn(ctx context.Context) (mine func() error, leave func(), err error) {
	if p.opts.Turn == "" {
		return func() error { return nil }, func() {}, nil
	}
	c, leave, err := p.standInLine(ctx)
	if err != nil {
		return nil, nil, err
	}
	end := time.Now().Add(turnWait)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s := c.State()
		if s.Phase == pubsub.Running {
			break
		}
		if err := p.ended(c, s); err != nil || !time.Now().Before(end) {
			leave()
			if err == nil {
				err = p.elsewhere(s)
			}
			return nil, nil, err
		}
		timer.Reset(turnLook)
		select {
		case <-timer.C:
		case <-ctx.Done():
			leave()
			return nil, nil, p.q.fail("replay", pubsub.ErrCanceled, context.Cause(ctx), "")
		}
	}
	mine = func() error {
		s := c.State()
		if s.Phase == pubsub.Standby {
			return p.elsewhere(s)
		}
		return p.ended(c, s) // while it reconnects nobody knows
	}
	return mine, leave, nil
}

// standInLine makes us a member of the group. ctx ends that only until we are: then the turn is ours until leave, also while the last answers come.
func (p *Plan) standInLine(ctx context.Context) (c *pubsub.Consumer, leave func(), err error) {
	b, at := p.q.b, p.q.place
	line, cancel := context.WithCancel(aside.Context(context.WithoutCancel(ctx)))
	keep := context.AfterFunc(ctx, cancel)
	opening, opened := context.WithTimeout(line, turnOpen)
	turns := pubsub.TopicSpec{Name: p.opts.Turn}
	if b.Capabilities().Partitions {
		turns.Partitions = 1 // the members of a group share partitions
	}
	err = b.Ensure(opening, pubsub.Topology{Topics: []pubsub.TopicSpec{turns}})
	late := opening.Err() != nil
	opened()
	if err == nil {
		c, err = b.Subscribe(line, pubsub.Subscription{
			Topic: p.opts.Turn, Group: "replay-" + digest("turn", at.Topic, at.Group, fmt.Sprint(at.Kind)), Order: pubsub.OrderStrict,
			DeadLetter: pubsub.DeadLetter{Drop: true},
		}, func(context.Context, *pubsub.Delivery) error { return nil })
	}
	canceled := !keep()
	leave = func() {
		cancel() // it drains: there is nothing that could be lost
		timer := time.NewTimer(turnLast)
		defer timer.Stop()
		select {
		case <-c.Done():
		case <-timer.C:
		}
	}
	if err == nil && !canceled {
		return c, leave, nil
	}
	code := pubsub.CodeOf(err)
	switch {
	case err == nil:
		leave()
		fallthrough
	case canceled:
		code, err = pubsub.ErrCanceled, context.Cause(ctx)
	case late && code == pubsub.ErrCanceled: // by us
		code = pubsub.ErrUnavailable
	}
	cancel()
	return nil, nil, p.q.fail("replay", code, fmt.Errorf("Replay.Turn: %w", err), "")
}

// ended says why we are in the line no more; nil if we are.
func (p *Plan) ended(c *pubsub.Consumer, s pubsub.State) error {
	if s.Phase != pubsub.Stopped && s.Phase != pubsub.Draining {
		return nil
	}
	timer := time.NewTimer(turnLast)
	defer timer.Stop()
	select {
	case <-c.Done():
	case <-timer.C:
	}
	if err := c.Err(); err != nil {
		return p.q.fail("replay", pubsub.CodeOf(err), fmt.Errorf("Replay.Turn: %w", err), "nothing is lost: run the plan again")
	}
	return p.q.fail("replay", pubsub.ErrClosed, errors.New("the broker was closed"), "nothing is lost: run the plan again with another one")
}

// elsewhere says why the turn is not ours.
func (p *Plan) elsewhere(s pubsub.State) error {
	if s.Phase == pubsub.Standby {
		return p.q.fail("replay", pubsub.ErrConflict, errors.New("another process replays this queue"), "nothing is lost: run the plan again when that one has ended")
	}
	why := fmt.Errorf("Replay.Turn: it is %v", s.Phase)
	if s.Reason != nil {
		why = fmt.Errorf("%w: %w", why, s.Reason)
	}
	return p.q.fail("replay", pubsub.ErrUnavailable, why, "nothing is lost: run the plan again")
}
