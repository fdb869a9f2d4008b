package nats

import (
	"context"
	"errors"
	"iter"
	"maps"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	// asGoodAsDue is how long before its time a retry is left alone: clocks of members may be that far ahead, and whoever has the message in its handler
	// cannot be told from whoever has given it back until then.
	asGoodAsDue = 2 * time.Second

	// inHand is how far a copy is put off that nobody is to get before its original is gone: longer than a request may take.
	inHand = time.Minute
)

// Waiting implements pubsub.Waiter: what lies in the work stream until its time, in the order in which it came there, message by message: the stream has no room
// for a second reader. In the quarantine nothing waits for its time.
func (d *driver) Waiting(ctx context.Context, topic, group string) iter.Seq2[pubsub.Waiting, error] {
	return drivers.Walk(func(yield func(pubsub.Waiting) bool) error {
		if _, err := d.consumersOf(ctx, topic, group); err != nil {
			return err
		}
		subject := d.names.subject(pubsub.Place{Topic: topic, Group: group, Kind: pubsub.PlaceRetry}, "*")
		return d.walk(ctx, d.names.work(), subject, 1, func(m *jetstream.RawStreamMsg) bool {
			now := time.Now()
			left := dueIn(m.Header, now)
			if left <= 0 {
				return true
			}
			w := pubsub.Waiting{Due: now.Add(left).Round(0), Record: pubsub.Record{Topic: topic, Token: pubsub.Token{A: m.Sequence}}}
			readRetry(m.Header, &w.Record)
			w.Record.Msg = decode(&client.Msg{Header: m.Header, Data: m.Data})
			return yield(w)
		})
	})
}

// Reschedule implements pubsub.Rescheduler. The server keeps the time of what was given back to it, and lets nobody change that. So a copy takes the message's place:
// it is stored with a time at which nobody gets it yet, and whoever then removes the original has the copy to himself. Who finds the original gone
// removes his own copy. A process that dies in between leaves both, and the message is retried twice.
func (d *driver) Reschedule(ctx context.Context, _, _ string, w pubsub.Waiting, in time.Duration) (pubsub.Waiting, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	s, err := d.waits(ctx, &w)
	if err != nil {
		return w, err
	}
	original := w
	if err := d.copyWaiting(ctx, s, &w, max(in, inHand)); err != nil {
		return original, err
	}
	switch err := d.endWaiting(ctx, s, &original); {
	case errors.Is(err, errWaitsNoMore):
		return original, errors.Join(err, d.endWaiting(ctx, s, &w))
	case err != nil: // nobody knows; where both are there, both come
		return original, err
	case in >= inHand:
		return w, nil
	}
	held := w // in whose minute another operator may see it; then both get what they ask for, and it comes twice at worst
	if err := d.copyWaiting(ctx, s, &w, in); err != nil {
		return held, err
	}
	return w, d.endWaiting(ctx, s, &held)
}

// Withdraw implements pubsub.Rescheduler.
func (d *driver) Withdraw(ctx context.Context, _, _ string, w pubsub.Waiting) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	s, err := d.waits(ctx, &w)
	if err != nil {
		return err
	}
	return d.endWaiting(ctx, s, &w)
}

var (
	errWaitsNoMore = &brokerError{pubsub.ErrNotFound, true, "it waits no more for its retry, or is about to be retried"}
	errTooLate     = &brokerError{pubsub.ErrUnavailable, true, "the answer came when it was due: it may be retried as well"}
)

// waits finds the stream of what is far enough from its time. Who may not remove anything there is refused before he has stored a copy, which he could not remove.
func (d *driver) waits(ctx context.Context, w *pubsub.Waiting) (jetstream.Stream, error) {
	if time.Until(w.Due) < asGoodAsDue {
		return nil, errWaitsNoMore
	}
	if _, err := d.connected(ctx); err != nil {
		return nil, err
	}
	s, err := d.now().js.Stream(ctx, d.names.work())
	if err != nil {
		return nil, err
	}
	if s.CachedInfo().Config.DenyDelete {
		return nil, says(pubsub.ErrDenied, "the stream %q lets nobody remove messages (deny_delete)", d.names.work())
	}
	_, err = again(ctx, "right to remove", func(ctx context.Context) (struct{}, error) {
		err := s.DeleteMsg(ctx, s.CachedInfo().State.LastSeq+1<<32) // which there is not
		if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
			err = nil
		}
		return struct{}{}, err
	})
	return s, err
}

// copyWaiting stores a copy with another time, and lets w be that.
func (d *driver) copyWaiting(ctx context.Context, s jetstream.Stream, w *pubsub.Waiting, in time.Duration) error {
	raw, err := d.get(ctx, s.CachedInfo().Config.Name, wanted{Seq: w.Record.Token.A})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return errWaitsNoMore
	}
	if err != nil {
		return err
	}
	due := time.Now().Add(in).UTC().Round(0)
	m := &client.Msg{Subject: raw.Subject, Header: raw.Header, Data: raw.Data}
	maps.DeleteFunc(m.Header, func(name string, _ []string) bool { return strings.HasPrefix(name, "Nats-") }) // what the server says of the original
	m.Header.Set(hdrDue, due.Format(time.RFC3339Nano))
	m.Header.Set(client.MsgIdHdr, nuid.Next()) // so that it can be asked again
	ack, err := again(ctx, "copy of what waits", func(ctx context.Context) (*jetstream.PubAck, error) {
		return d.now().js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0), jetstream.WithExpectStream(s.CachedInfo().Config.Name))
	})
	if err != nil {
		return err
	}
	w.Due, w.Record.Token.A = due, ack.Sequence
	return nil
}

// endWaiting removes w. Where an answer was lost and it is gone, we have removed it: somebody else would have had to do so at the same time.
func (d *driver) endWaiting(ctx context.Context, s jetstream.Stream, w *pubsub.Waiting) error {
	seq, asked := w.Record.Token.A, false
	_, err := again(ctx, "removal of what waits", func(ctx context.Context) (struct{}, error) {
		err := s.DeleteMsg(ctx, seq)
		if !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
			asked = true
			return struct{}{}, err
		}
		switch _, there := d.get(ctx, s.CachedInfo().Config.Name, wanted{Seq: seq}); {
		case !errors.Is(there, jetstream.ErrMsgNotFound):
			return struct{}{}, client.ErrTimeout
		case asked:
			return struct{}{}, nil
		}
		return struct{}{}, errWaitsNoMore
	})
	if err == nil && time.Until(w.Due) < asGoodAsDue/2 { // a member's clock may be ahead
		return errTooLate
	}
	return err
}
