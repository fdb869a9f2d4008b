package memory

import (
	"container/heap"
	"iter"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A group reads the partitions of its topic, or of all topics that its pattern covers.
type group struct {
	s         *Server
	at        pubsub.Place
	exclusive bool
	ackWait   time.Duration
	start     pubsub.Start
	lanes     []*lane // by id; nil = its topic was deleted
	members   []*source
	urgent    int    // messages with a priority that are ready, in all lanes
	own       *place // what is sent to it alone
	timer     *time.Timer
	timerAt   time.Time
}

func (g *group) covers(topic string) bool {
	return g.at.Topic == topic || pubsub.IsPattern(g.at.Topic) && pubsub.MatchPattern(g.at.Topic, topic)
}

func (g *group) addTopic(t *topic) {
	for _, p := range t.logs {
		g.addLane(p)
	}
}

func (g *group) addLane(p *partition) {
	p.retain(time.Now())
	ln := newLane(g, int32(len(g.lanes)), p, p.offsetOf(g.start))
	g.lanes = append(g.lanes, ln)
	p.lanes = append(p.lanes, ln)
	for off := ln.start; off < p.end; off++ {
		ln.admit(off)
	}
	if !g.exclusive {
		for _, m := range g.members {
			m.tell(pubsub.LaneEvent{Lane: ln.id, Kind: pubsub.LaneGained})
		}
	}
}

// lose takes a lane from the group, with all that its members have of it.
func (g *group) lose(ln *lane) {
	ln.take(nil)
	for _, m := range g.members {
		if !g.exclusive || ln.owner == m {
			m.tell(pubsub.LaneEvent{Lane: ln.id, Kind: pubsub.LaneLost})
		}
	}
	g.free(ln)
	ln.release()
	ln.part.detach(ln)
	g.lanes[ln.id] = nil
}

// remove ends a group that has no members.
func (g *group) remove() {
	for _, ln := range g.lanes {
		if ln != nil {
			g.lose(ln)
		}
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	delete(g.s.groups, g.at)
	if p := (pubsub.Place{Topic: g.at.Topic, Group: g.at.Group, Kind: pubsub.PlaceRetry}); g.s.private[p] != nil && g.at.Kind == pubsub.PlaceMain {
		g.s.discard(g.own.logs[0])
		delete(g.s.private, p)
	}
}

// seek begins again at to. The group has no members.
func (g *group) seek(to pubsub.Start) {
	for i, ln := range g.lanes {
		if ln != nil && ln.part.t != nil { // not what was sent to a pattern's group alone
			ln.part.retain(time.Now())
			g.lanes[i] = ln.moved(ln.part.offsetOf(to))
			ln.release()
			ln.part.detach(ln)
			ln.part.lanes = append(ln.part.lanes, g.lanes[i])
		}
	}
}

func (g *group) join(m *source) {
	g.members = append(g.members, m)
	if !g.exclusive {
		for ln := range g.each {
			m.tell(pubsub.LaneEvent{Lane: ln.id, Kind: pubsub.LaneGained})
		}
		return
	}
	g.rebalance()
}

// leave takes what m holds back.
func (g *group) leave(m *source) {
	g.members = slices.DeleteFunc(g.members, func(o *source) bool { return o == m })
	for ln := range g.each {
		ln.take(m)
		if ln.owner == m {
			g.free(ln)
		}
		ln.wake()
	}
	g.rebalance()
}

// rebalance gives each lane of an exclusive group to the member that is to have it: they go round, so that with one partition the
// second member has nothing and stands by.
func (g *group) rebalance() {
	if !g.exclusive || len(g.members) == 0 {
		return
	}
	i := 0
	for ln := range g.each {
		want := g.members[i%len(g.members)]
		i++
		switch {
		case ln.owner == nil:
			ln.owner = want
			ln.gen++
			want.tell(pubsub.LaneEvent{Lane: ln.id, Gen: ln.gen, Kind: pubsub.LaneGained})
		case ln.owner != want && !ln.losing:
			ln.losing = true
			ln.owner.tell(pubsub.LaneEvent{Lane: ln.id, Gen: ln.gen, Kind: pubsub.LaneLosing, Deadline: time.Now().Add(g.ackWait)})
			owner, gen := ln.owner, ln.gen
			ln.limit = time.AfterFunc(g.ackWait, func() {
				g.s.mu.Lock()
				defer g.s.mu.Unlock()
				if ln.losing && ln.gen == gen {
					owner.tell(pubsub.LaneEvent{Lane: ln.id, Gen: gen, Kind: pubsub.LaneLost})
					g.done(ln)
				}
			})
		}
	}
}

func (g *group) free(ln *lane) {
	ln.owner, ln.losing = nil, false
	if ln.limit != nil {
		ln.limit.Stop()
		ln.limit = nil
	}
}

// done hands a lane on, with all that is not settled.
func (g *group) done(ln *lane) {
	ln.take(ln.owner)
	ln.owner.wake() // it may have been full
	g.free(ln)
	g.rebalance()
}

// alarm sees to it that ring is called at that time.
func (g *group) alarm(at time.Time) {
	if !g.timerAt.IsZero() && !at.Before(g.timerAt) {
		return
	}
	g.timerAt = at
	if g.timer == nil {
		g.timer = time.AfterFunc(time.Until(at), g.ring)
		return
	}
	g.timer.Reset(time.Until(at))
}

// ring lets go what is due, and takes back what has no lease any more.
func (g *group) ring() {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	g.timerAt = time.Time{}
	now := time.Now()
	var next time.Time
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for ln := range g.each {
		woken := false
		for len(ln.due) > 0 && !ln.due[0].at.After(now) {
			ln.back(heap.Pop(&ln.due).(dueAt).off)
			woken = true
		}
		if len(ln.due) > 0 {
			sooner(ln.due[0].at)
		}
		for off, f := range ln.out() {
			if at := g.s.start.Add(f.lease); at.After(now) {
				sooner(at)
				continue
			}
			f.owner.unsettled--
			f.owner.wake() // it may have been full
			ln.back(off)
			woken = true
		}
		if woken {
			ln.wake()
		}
	}
	if !next.IsZero() {
		g.alarm(next)
	}
}

// each yields the lanes that there are.
func (g *group) each(yield func(*lane) bool) {
	for _, ln := range g.lanes {
		if ln != nil && !yield(ln) {
			return
		}
	}
}

// lanesOf yields the lanes of a group and of the tiers in which its retries wait.
func (s *Server) lanesOf(g *group) iter.Seq[*lane] {
	return func(yield func(*lane) bool) {
		places := []pubsub.Place{g.at}
		for _, tier := range pubsub.Tiers() {
			places = append(places, pubsub.Place{Topic: g.at.Topic, Group: g.at.Group, Kind: pubsub.PlaceRetry, Tier: tier})
		}
		for _, at := range places {
			if g := s.groups[at]; g != nil {
				for ln := range g.each {
					if !yield(ln) {
						return
					}
				}
			}
		}
	}
}
