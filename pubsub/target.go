package pubsub

import (
	"context"
	"errors"
	"fmt"
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
// compares what fits. The group's own dead letters are made with the group. What is only away will come back: until then what is given up is kept.
func (c *Consumer) checkTarget(ctx context.Context) error {
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
	err := to.Ensure(ctx, Topology{Topics: []TopicSpec{{Name: d.Topic}}})
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok:
		return fail(CodeOf(err), err, "")
	case e.Code == ErrUnavailable:
		c.log.Warn("the target of dead letters is not reached; what is given up is kept until it is", "target", d.Topic, "err", err)
		return nil
	}
	hint := e.Hint
	if e.Code == ErrNotFound && hint == "" {
		hint = "make it, or let Options.Manage be Create"
	}
	return fail(e.Code, err, hint)
}
