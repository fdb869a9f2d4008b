package pubsub

import (
	"context"
	"errors"
)

// Resend sends a message to a place as it is: one that Browse has shown, or what was made of it. No middleware sees it, for it has passed
// them when it was published, and none of its headers is refused. To is a topic (PlaceMain), one group alone (PlaceRetry, whose Topic may be a
// pattern, as the group's is), or what a group keeps: its dead letters (PlaceDead), and what became of them (PlaceState).
//
// A token other than zero names this sending: where the broker has Dedup, a message that is sent again to the same place with the same token
// within that window is accepted and not stored twice, whoever sends it.
//
// done is called exactly once, with what Publisher.PublishAsync says of it; from within Resend if the message was refused before it was handed
// over. ctx bounds only the wait for room. Messages go in the order of the calls, but one that a broker refuses for a while may follow later ones:
// who needs the order of a key waits for done.
func (b *Broker) Resend(ctx context.Context, to Place, msg Message, token Dedup, done func(Receipt, error)) {
	err := b.usable("publish", to.Topic)
	if err == nil {
		err = b.checkResend(to)
	}
	if err == nil {
		err = b.moves.sendAsync(ctx, to, msg, token, done)
	}
	if err != nil {
		done(Receipt{Topic: to.Topic, ID: msg.ID, Key: msg.Key}, err)
	}
}

func (b *Broker) checkResend(to Place) error {
	var err error
	switch {
	case to.Tier != 0:
		err = errors.New("a message is not sent to a tier: that is where the engine lets retries wait")
	case to.Kind == PlaceMain:
		err = checkTopic(to.Topic)
	case to.Kind == PlaceRetry, to.Kind == PlaceDead, to.Kind == PlaceState:
		if err = checkFilter(to.Topic); err == nil {
			err = checkGroup(to.Group)
		}
	default:
		err = errors.New("a message is sent again to a topic, to a group, or to what it keeps")
	}
	if err != nil {
		return invalidOn(b, "publish", to.Topic, err, namesHint)
	}
	return nil
}
