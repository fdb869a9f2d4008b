package pubsub

import "context"

// A Delivery is one message handed to a handler. It is never recycled: keeping one is safe (Clone the
// Message to keep it for long). Payload and Headers belong to the delivery: read them, do not write into them.
// A plain value such as &Delivery{Message: m} works in a unit test.
type Delivery struct {
	Message             // what the publisher sent, as the middleware left it
	Topic      string   // the topic it came from (with a pattern: the concrete one)
	Group      string   // of the subscription; Broadcast, or a group's name
	Attempt    int      // 1 + the failures recorded for this group, on every broker
	Deliveries int      // the broker's own count, hand-backs and crashes included; 0 = unknown
	Position   Position // where it is in the topic

	ctx  context.Context
	item *item // nil in a unit test
	use  uint64
	raw  *Message
	late bool // its outcome comes from a batch or a Receive loop
}

// As stores the broker's own message in target, see the function As. It is there until the message is settled.
func (d *Delivery) As(target any) bool { return d.item != nil && d.item.as(d.use, target) }

// Context returns the context of this message as the middleware left it: in a Handler the same as ctx,
// in a batch and a Receive loop the only way to it.
func (d *Delivery) Context() context.Context {
	if d.ctx == nil {
		return context.Background()
	}
	return d.ctx
}

// Deferred says that the outcome comes later, from a batch or a Receive loop, and not from a call that the middleware waits for: a layer
// that waits here for what another message holds would wait for ever.
func (d *Delivery) Deferred() bool { return d.late }

// Raw returns the message as it came from the broker, before any middleware.
func (d *Delivery) Raw() Message {
	if d.raw != nil {
		return *d.raw
	}
	return d.Message
}
