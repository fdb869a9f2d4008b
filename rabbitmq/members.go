package rabbitmq

import (
	"context"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
)

// The members of an exclusive group. Each is a consumer of each of its queues; of a queue one is active, the others stand in line, and neither they nor the
// broker say who is. Who gets a message is the active one. So that members know how many they are, each is also a consumer of a queue into which nobody
// puts anything but a call to look again: its consumers can be counted.

const (
	memberCheck = time.Second
	meetingOver = time.Minute // of a queue whose last member has gone
)

// meet joins the members. Their queue is a quorum queue, as those of the group are: while its node is away a classic one would neither be counted nor
// declared, and hold up a member that comes. Of several lanes it lets the others know: a queue deals its messages out, so as many as there are members reach each of them.
func (s *source) meet(ctx context.Context) (err error) {
	name := s.meeting()
	s.members, err = call(ctx, func() (*amqp.Channel, error) {
		ch, err := s.conn.Channel()
		if err != nil {
			return nil, err
		}
		args := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, amqp.QueueTTLArg: meetingOver.Milliseconds()}
		if _, err = ch.QueueDeclare(name, true, false, false, false, args); err == nil {
			s.called, err = ch.Consume(name, "", true, false, false, false, nil)
		}
		return ch, err
	}, func(ch *amqp.Channel) { _ = ch.Close() })
	if err != nil {
		return err
	}
	members, err := s.look(ctx)
	if err != nil || members == 1 || len(s.lanes) == 1 {
		return err
	}
	out, err := s.d.out.connected(ctx)
	if err != nil {
		return err
	}
	if gate, _ := out.gate(); gate != nil {
		return nil // they look by themselves, too
	}
	return out.with(ctx, func(ch *amqp.Channel) error {
		for range members {
			if err := ch.PublishWithContext(ctx, "", name, false, false, amqp.Publishing{}); err != nil {
				return err
			}
		}
		return nil
	})
}

// meeting is the queue by which members are counted.
func (s *source) meeting() string { return s.d.names.own("members." + of(s.spec.From)) }

// look counts the members. One that is alone has all lanes; one that has more than its share begins to give some up.
func (s *source) look(ctx context.Context) (members int, err error) {
	q, err := call(ctx, func() (amqp.Queue, error) {
		return s.members.QueueDeclarePassive(s.meeting(), true, false, false, false, nil)
	}, nil)
	if err != nil {
		return 0, err
	}
	for again := true; again; {
		again = false
		for _, ln := range s.share(q.Consumers, time.Now()) {
			if err := ln.leave(ctx, false); err != nil {
				return 0, err
			}
			again = true // who is alone has it at once
		}
	}
	return q.Consumers, nil
}

// share does what so many members mean for the lanes, and returns those that are to go: they have taken too long, or are to begin anew. The latter would be another
// member's then, so it is left to who is alone.
func (s *source) share(members int, now time.Time) (late []*lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stay := 0
	for _, ln := range s.lanes {
		if !ln.gained && !ln.away && members == 1 {
			ln.gain()
		}
		if ln.gained && ln.losing.IsZero() {
			stay++
		}
	}
	members = max(members, 1)
	fair := (len(s.lanes) + members - 1) / members
	for _, ln := range slices.Backward(s.lanes) {
		switch {
		case !ln.losing.IsZero() && now.After(ln.losing):
			late = append(late, ln)
		case ln.gained && members == 1 && ln.idle(now):
			ln.losing = now
			late = append(late, ln)
		case ln.gained && ln.idle(now):
			ln.heard = now
		case ln.gained && ln.losing.IsZero() && stay > fair && !s.quiet && s.dead == nil:
			stay--
			ln.losing = now.Add(s.spec.AckWait) // a handler that is stuck holds it up no longer
			for _, dl := range ln.buf {
				dl.state = deliveryBack
			}
			ln.buf = nil
			s.events = append(s.events, pubsub.LaneEvent{Lane: ln.id, Gen: ln.gen, Kind: pubsub.LaneLosing, Deadline: ln.losing})
			poke(s.ready)
		}
	}
	return late
}

// tend looks again and again: at several lanes, which are to be shared, and at one until it is ours, and when it is to begin anew.
func (s *source) tend(life context.Context) {
	tick := time.NewTicker(memberCheck)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case _, ok := <-s.called:
			if !ok {
				s.die(errCanceled)
				return
			}
		case <-life.Done():
			return
		}
		s.mu.Lock()
		settled := len(s.lanes) == 1 && s.lanes[0].gained && !s.lanes[0].idle(time.Now())
		s.mu.Unlock()
		if settled {
			continue
		}
		ctx, cancel := context.WithTimeout(life, dialTimeout)
		_, err := s.look(ctx)
		cancel()
		if err != nil && life.Err() == nil {
			s.die(err)
			return
		}
	}
}
