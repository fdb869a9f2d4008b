package dlq

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Processes take turns as members of an exclusive group of a topic that nothing is published to: who is active replays, the others stand by. The
// broker lets another one be active when the process that was dies, or loses its connection.
const (
	turnWait = 5 * time.Second // for a place that nobody has any more: brokers notice after a while
	turnLook = 20 * time.Millisecond
	turnLast = time.Second // for giving it back
)

// takeTurn waits for our turn, if turns are taken. mine says whether it is still ours, leave gives it back.
func (p *Plan) takeTurn(ctx context.Context) (mine func() error, leave func(), err error) {
	if p.opts.Turn == "" {
		return func() error { return nil }, func() {}, nil
	}
	at := p.q.place
	c, err := p.q.b.Subscribe(context.WithoutCancel(ctx), pubsub.Subscription{
		Topic: p.opts.Turn, Group: "replay-" + digest("turn", at.Topic, at.Group, fmt.Sprint(at.Kind)), Order: pubsub.OrderStrict,
		DeadLetter: pubsub.DeadLetter{Drop: true},
	}, func(context.Context, *pubsub.Delivery) error { return nil })
	if err != nil {
		return nil, nil, p.q.fail("replay", pubsub.CodeOf(err), fmt.Errorf("Replay.Turn: %w", err), "")
	}
	leave = func() {
		ctx, cancel := context.WithTimeout(context.Background(), turnLast)
		defer cancel()
		_ = c.Drain(ctx) // there is nothing that could be lost
	}
	others := p.q.fail("replay", pubsub.ErrConflict, errors.New("another process replays this queue"), "nothing is lost: run the plan again when that one has ended")
	mine = func() error {
		switch c.State().Phase {
		case pubsub.Standby:
			return others
		case pubsub.Stopped, pubsub.Draining:
			return p.q.fail("replay", pubsub.ErrClosed, errors.New("the broker was closed"), "nothing is lost: run the plan again with another one")
		}
		return nil // while it reconnects nobody knows
	}
	end := time.Now().Add(turnWait)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for c.State().Phase != pubsub.Running {
		if !time.Now().Before(end) {
			leave()
			return nil, nil, others
		}
		timer.Reset(turnLook)
		select {
		case <-timer.C:
		case <-ctx.Done():
			leave()
			return nil, nil, p.q.fail("replay", pubsub.ErrCanceled, context.Cause(ctx), "")
		}
	}
	return mine, leave, nil
}
