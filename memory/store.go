package memory

import (
	"hash/maphash"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// placeOf finds where a message is to go, and the group whose it is alone; t is its topic, nil if there is none of that name. mu is held.
func (s *Server) placeOf(to *pubsub.Place, t *topic) (*place, *group, error) {
	if to.Kind == pubsub.PlaceMain {
		if t == nil {
			return nil, nil, says(pubsub.ErrUnroutable, true, "there is no topic %q", to.Topic)
		}
		return &t.place, nil, nil
	}
	g := s.groups[pubsub.Place{Topic: to.Topic, Group: to.Group}]
	if g == nil {
		return nil, nil, says(pubsub.ErrUnroutable, true, "there is no group %q of %q", to.Group, to.Topic)
	}
	if to.Kind == pubsub.PlaceRetry && to.Tier == 0 {
		return g.own, g, nil
	}
	return s.privatePlace(*to), nil, nil
}

// store puts a message where it is to go. mu is held.
func (s *Server) store(t *topic, o *pubsub.Out, now time.Time) (pubsub.Position, error) {
	size := o.Msg.Size()
	if size-pubsub.Headroom > s.cfg.MaxMessage {
		return pubsub.Position{}, says(pubsub.ErrTooLarge, true, "%d bytes, at most %d more than %d", size, pubsub.Headroom, s.cfg.MaxMessage)
	}
	size += entryCost
	to, only, err := s.placeOf(&o.To, t)
	if err != nil {
		return pubsub.Position{}, err
	}
	// Most messages are never sent again, and then say so. Whoever moves one to a group's place does not know what a process before it did.
	if (o.Again || o.To.Kind != pubsub.PlaceMain) && o.Dedup != (pubsub.Dedup{}) {
		if pos, dup := to.sent.find(to.logs, only, o.Dedup, now); dup {
			return pos, nil
		}
	}
	part := s.choose(to.logs, o.Msg.Key)
	if part.t != nil {
		if part.t.spec.Retention > 0 {
			part.retain(now)
		}
		if limit := part.t.spec.MaxBytes; limit > 0 {
			if err := roomFor(size, "the topic", part.t.logs, &part.t.bytes, limit); err != nil {
				return pubsub.Position{}, err
			}
		}
	}
	if err := roomFor(size, "the broker", s.logs, &s.bytes, s.cfg.MaxBytes); err != nil {
		return pubsub.Position{}, err
	}
	return part.append(o, only, size), nil
}

// choose finds the log of a key.
func (s *Server) choose(logs []*partition, key string) *partition {
	n := len(logs)
	switch {
	case n == 1:
		return logs[0]
	case key != "":
		return logs[maphash.String(s.seed, key)%uint64(n)]
	}
	s.rr++
	return logs[s.rr%n]
}

// roomFor makes room for size more bytes, and a little more, so that a full broker does not look for the oldest history at each message.
func roomFor(size int64, where string, logs []*partition, bytes *int64, limit int64) error {
	if *bytes+size <= limit {
		return nil
	}
	if size > limit {
		return says(pubsub.ErrTooLarge, true, "it counts %d bytes, and %s has %d in all", size, where, limit)
	}
	if makeRoom(logs, bytes, limit-limit/64-size); *bytes+size <= limit {
		return nil
	}
	return says(pubsub.ErrExhausted, true, "%d of the %d bytes that %s has are stored, all of them still needed", *bytes, limit, where)
}
