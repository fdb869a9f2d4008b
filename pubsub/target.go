package pubsub

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A target is where the dead letters of a subscription go.

// targetBroker is the broker of DeadLetter.To, nil where that is somebody else's Publisher.
func (d *DeadLetter) targetBroker(own *Broker) *Broker {
	switch to := d.To.(type) {
	case nil:
		return own
	case *Broker:
		return to
	case *publisher:
		return to.b
	}
	return nil
}

// checkTarget looks at the target before anything is consumed: it makes the topic, or asks whether it is there, as Options.Manage of its broker says, and
// compares what fits. The group's own dead letters are made with the group. What is only away, or does not answer in time, will come back: until then what
// is given up is kept. ctx is the caller's.
func (c *Consumer) checkTarget(ctx context.Context, within time.Duration) error {
	d := &c.sub.DeadLetter
	to := d.targetBroker(c.b)
	if d.Topic == "" || to == nil {
		return nil
	}
	fail := func(code Code, err error, hint string) error {
		return &Error{Op: "subscribe", Broker: c.b.name, Topic: c.sub.Topic, Code: code, Err: fmt.Errorf("DeadLetter.Topic %q: %w", d.Topic, err), Hint: hint}
	}
	if most := to.caps.MaxMessage; to != c.b && most > 0 && (c.b.caps.MaxMessage == 0 || most < c.b.caps.MaxMessage) {
		if c.b.caps.MaxMessage > 0 {
			return fail(ErrTooLarge, fmt.Errorf("it takes messages of %d bytes, and those that may come have up to %d", most, c.b.caps.MaxMessage),
				"raise the limit of the broker of DeadLetter.To, or choose another")
		}
		c.log.Warn("dead letters may be too large for their target", "target", d.Topic, "at_most", most)
	}
	askCtx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := to.Ensure(askCtx, Topology{Topics: []TopicSpec{{Name: d.Topic}}})
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok:
		return fail(CodeOf(err), err, "")
	case e.Code == ErrUnavailable, e.Code == ErrCanceled && ctx.Err() == nil: // askCtx has ended, and nobody has cancelled
		c.log.Warn("the target of dead letters is not reached; what is given up is kept until it is", "target", d.Topic, "err", err)
		return nil
	}
	hint := e.Hint
	if e.Code == ErrNotFound && hint == "" {
		hint = "make it, or let Options.Manage be Create"
	}
	return fail(e.Code, err, hint)
}
