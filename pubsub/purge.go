package pubsub

import (
	"context"
	"errors"
)

// Purge removes the oldest dead letters of a group for good, up to a position that Browse has shown, that one included. Where the broker cannot it is an
// ErrUnsupported: then dead letters stay until their retention is over. The zero position removes nothing and is an ErrInvalid, so it asks whether the broker can.
func (b *Broker) Purge(ctx context.Context, p Place, upTo Position) error {
	if err := b.usable("purge", p.Topic); err != nil {
		return err
	}
	err := checkFilter(p.Topic)
	if err == nil {
		err = checkGroup(p.Group)
	}
	switch {
	case err != nil:
	case p.Kind != PlaceDead || p.Tier != 0:
		err = errors.New("only dead letters of a group can be purged")
	}
	if err != nil {
		return invalidOn(b, "purge", p.Topic, err, "")
	}
	purger, ok := b.drv.(Purger)
	if !ok {
		return &Error{Op: "purge", Broker: b.name, Topic: p.Topic, Code: ErrUnsupported, Err: errors.New("Purge")}
	}
	if upTo == (Position{}) {
		return invalidOn(b, "purge", p.Topic, errors.New("no position"), "")
	}
	return b.fail(ctx, "purge", p.Topic, purger.Purge(ctx, p, upTo))
}
