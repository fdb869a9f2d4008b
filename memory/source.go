package memory

import (
	"context"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A source is a member of a group. Its fields are guarded by the server's mu.
type source struct {
	d         *driver
	s         *Server
	g         *group
	spec      pubsub.SourceSpec
	ready     chan struct{} // one token: look again
	dead      error
	events    []pubsub.LaneEvent
	unsettled int
	quiet     bool
	from      int // the lane to begin with, so that all get their turn
}

func (m *source) wake() {
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

func (m *source) tell(ev pubsub.LaneEvent) {
	m.events = append(m.events, ev)
	m.wake()
}

// die ends the session from the broker's side.
func (m *source) die(err error) {
	if m.dead != nil {
		return
	}
	m.dead = err
	delete(m.d.sources, m)
	m.g.leave(m)
	if m.spec.From.Group == pubsub.Broadcast {
		m.g.remove()
	}
	m.wake()
}

// Recv implements pubsub.Source.
func (m *source) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	for {
		if err := m.s.enter(ctx); err != nil {
			return 0, nil, err
		}
		if m.dead != nil {
			err := m.dead
			m.s.mu.Unlock()
			return 0, nil, err
		}
		events := m.events
		m.events = nil
		n := 0
		if !m.quiet && ctx.Err() == nil {
			n = m.fill(buf, maxBytes)
		}
		m.s.mu.Unlock()
		if n > 0 || len(events) > 0 {
			return n, events, nil
		}
		select {
		case <-m.ready:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// fill hands out what there is: lane by lane, beginning with another one each time, but while messages with a priority are ready, the most urgent.
func (m *source) fill(buf []pubsub.Record, maxBytes int64) (n int) {
	g := m.g
	var lease time.Time
	var until time.Duration
	if m.from++; m.from >= len(g.lanes) {
		m.from = 0
	}
	i := m.from
	for dry := 0; dry < len(g.lanes) && n < len(buf) && m.unsettled < m.spec.MaxInFlight && (n == 0 || maxBytes > 0); {
		ln := g.lanes[i]
		if g.urgent > 0 {
			if u := m.mostUrgent(); u != nil {
				ln = u
			}
		}
		var off int64
		var e *entry
		var f *flight
		if m.reads(ln) {
			off, e, f = ln.pick()
		}
		if e == nil {
			dry++
			if i++; i == len(g.lanes) {
				i = 0
			}
			continue
		}
		if lease.IsZero() {
			lease = time.Now().Add(g.ackWait)
			until = lease.Sub(g.s.start)
			g.alarm(lease)
		}
		m.s.stamp++
		f.state, f.owner, f.stamp, f.lease = flightOut, m, m.s.stamp, until
		f.deliveries++
		m.unsettled++
		maxBytes -= e.size
		r := &buf[n]
		r.Msg, r.Topic, r.Pos, r.Bad = e.msg, ln.part.topic, ln.part.position(off), nil
		t := &r.Token // one by one: a literal would be built elsewhere first, and this is where the time goes
		t.Lane, t.Gen, t.A, t.B, t.Ref = ln.id, 0, uint64(off), m.s.stamp, nil
		r.Deliveries, r.Failed, r.LeaseUntil = f.deliveries, f.failed, lease
		n++
	}
	return n
}

// reads says whether the member may have messages of a lane now.
func (m *source) reads(ln *lane) bool {
	return ln != nil && (!m.g.exclusive || ln.owner == m && !ln.losing)
}

// mostUrgent is the lane with the message of the highest priority that the member may have, nil if none has any.
func (m *source) mostUrgent() (best *lane) {
	for i := range m.g.lanes {
		ln := m.g.lanes[(m.from+i)%len(m.g.lanes)]
		if m.reads(ln) && len(ln.ready) > 0 && ln.ready[0].priority > 0 && (best == nil || ln.ready[0].priority > best.ready[0].priority) {
			best = ln
		}
	}
	return best
}

// find returns what a token names, if m still has it.
func (m *source) find(t *pubsub.Token) (*lane, *flight) {
	if t.Lane < 0 || int(t.Lane) >= len(m.g.lanes) {
		return nil, nil
	}
	ln := m.g.lanes[t.Lane]
	if ln == nil {
		return nil, nil
	}
	f := ln.flight(int64(t.A))
	if f == nil || f.state != flightOut || f.owner != m || f.stamp != t.B {
		return nil, nil
	}
	return ln, f
}

// Settle implements pubsub.Source.
func (m *source) Settle(ctx context.Context, list []pubsub.Settlement, errs []error) error {
	if err := m.s.enter(ctx); err != nil {
		return err
	}
	defer m.s.mu.Unlock()
	if m.dead != nil {
		return m.dead
	}
	full := m.unsettled >= m.spec.MaxInFlight
	for i := range list {
		st := &list[i]
		ln, f := m.find(&st.Token)
		if f == nil {
			errs[i] = errStale
			continue
		}
		m.unsettled--
		switch st.As {
		case pubsub.SettleAck:
			ln.settled(int64(st.Token.A), f)
		case pubsub.SettleRelease:
			f.deliveries-- // a hand-back costs nothing
			f.failed = st.Failed
			ln.back(int64(st.Token.A))
			ln.wake()
		case pubsub.SettleRetryIn:
			if st.Failed == f.failed {
				f.deliveries-- // put off, not failed: that costs nothing either
			}
			f.failed = st.Failed
			ln.postpone(dueAt{time.Now().Add(st.Delay), int64(st.Token.A), true})
		}
	}
	if full {
		m.wake()
	}
	return nil
}

// Renew implements pubsub.Source.
func (m *source) Renew(ctx context.Context, list []pubsub.Renewal, errs []error) error {
	if err := m.s.enter(ctx); err != nil {
		return err
	}
	defer m.s.mu.Unlock()
	if m.dead != nil {
		return m.dead
	}
	lease := time.Since(m.s.start) + m.g.ackWait
	for i := range list {
		if _, f := m.find(&list[i].Token); f != nil {
			f.lease, f.failed = lease, list[i].Failed
		} else {
			errs[i] = errStale
		}
	}
	return nil
}

// Sync implements pubsub.Source: settlements are stored when Settle returns.
func (m *source) Sync(ctx context.Context) error {
	if err := m.s.enter(ctx); err != nil {
		return err
	}
	defer m.s.mu.Unlock()
	return m.dead
}

// Quiesce implements pubsub.Source.
func (m *source) Quiesce(ctx context.Context) error {
	if err := m.s.enter(ctx); err != nil {
		return err
	}
	m.quiet = true
	m.s.mu.Unlock()
	return nil
}

// LaneDone implements pubsub.Source.
func (m *source) LaneDone(ctx context.Context, losing pubsub.LaneEvent) error {
	if err := m.s.enter(ctx); err != nil {
		return err
	}
	defer m.s.mu.Unlock()
	if lane := losing.Lane; lane >= 0 && int(lane) < len(m.g.lanes) {
		if ln := m.g.lanes[lane]; ln != nil && ln.owner == m && ln.losing && ln.gen == losing.Gen {
			m.g.done(ln)
		}
	}
	return m.dead
}

// Close implements pubsub.Source.
func (m *source) Close(context.Context) error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.die(errGone)
	return nil
}
