package nats

import (
	"context"
	"slices"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/pubsub"
)

// The members of a group know each other: each tells its name every second, and at once to one that is new. Of the lanes of an exclusive
// group each member takes its fair share, and gives up what it has beyond that when others come.

// meet is told of a member, or asked whether there is one.
func (s *source) meet(m *client.Msg) {
	if m.Reply != "" {
		_ = m.Respond(nil) // whoever asks does without an answer from a connection that breaks
		return
	}
	name := string(m.Data)
	if name == s.spec.Member {
		return
	}
	s.mu.Lock()
	_, known := s.peers[name]
	s.peers[name] = time.Now()
	s.mu.Unlock()
	if !known {
		s.greet()
		s.look()
	}
}

func (s *source) greet() {
	if s.group != "" {
		_ = s.nc.Publish(s.group, []byte(s.spec.Member)) // the next one follows in a second
	}
}

// lanes counts those that are ours, and stay. mu is held.
func (s *source) lanes() (n int) {
	for _, ln := range s.legs {
		if ln.exclusive && ln.gained && ln.losing.IsZero() {
			n++
		}
	}
	return n
}

// fair is how many lanes each member is to have. mu is held.
func (s *source) fair(now time.Time) int {
	members, lanes := 1, 0
	for name, seen := range s.peers {
		if now.Sub(seen) > 3*pinCheck {
			delete(s.peers, name)
		} else {
			members++
		}
	}
	for _, ln := range s.legs {
		if ln.exclusive {
			lanes++
		}
	}
	return (lanes + members - 1) / members
}

// balance begins to give up the lanes that are too many, and ends what has taken too long. mu is held.
func (s *source) balance(now time.Time) {
	if s.spec.From.Kind == pubsub.PlaceMain && now.Sub(s.greeted) > pinCheck {
		s.greeted = now
		s.greet()
	}
	surplus := s.lanes() - s.fair(now)
	for _, ln := range slices.Backward(s.legs) {
		switch {
		case !ln.gained || !ln.exclusive:
		case !ln.losing.IsZero() && now.After(ln.losing):
			ln.lose(false)
		case surplus > 0 && ln.losing.IsZero():
			surplus--
			ln.losing = now.Add(s.spec.AckWait)
			s.release(func(f *flight) bool {
				return (f.leg == ln || f.leg.retry && f.leg.lane == ln.lane) && f.state == flightHere
			})
			s.events = append(s.events, pubsub.LaneEvent{Lane: ln.lane, Gen: ln.gen, Kind: pubsub.LaneLosing, Deadline: ln.losing})
			s.wake()
		}
	}
}

// LaneDone implements pubsub.Source.
func (s *source) LaneDone(_ context.Context, losing pubsub.LaneEvent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ln := range s.legs {
		if ln.exclusive && ln.lane == losing.Lane && ln.gen == losing.Gen && !ln.losing.IsZero() {
			ln.lose(true)
		}
	}
	return s.dead
}
