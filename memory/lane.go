package memory

import (
	"container/heap"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A lane is a partition as one group sees it. Everything below low is settled, everything from high on has not been looked at; between
// them each message has a flight.
type lane struct {
	g       *group
	id      int32
	part    *partition
	private bool
	low     int64
	high    int64
	flights []flight // of low … high
	redo    offsets  // came back, or are to go first: before high
	due     dues     // wait for their time
	stirred bool     // to be woken when the publisher has its answer
	prio    bool     // messages with a priority lie beyond high

	owner  *source // of an exclusive group
	gen    uint32  // of owner
	losing bool
	limit  *time.Timer // of losing
}

type flight struct {
	state      flightState
	deliveries int32
	failed     int32
	owner      *source
	stamp      uint64
	lease      time.Time
}

type flightState uint8

const (
	flightReady   flightState = iota // in redo
	flightOut                        // with its owner
	flightWaiting                    // in due
	flightSettled
)

func (ln *lane) flight(off int64) *flight {
	if off < ln.low || off >= ln.high {
		return nil
	}
	return &ln.flights[off-ln.low]
}

// arrived is told of each new entry.
func (ln *lane) arrived(_ int64, m *pubsub.Message) {
	if m.Priority > 0 {
		ln.prio = true
	}
	if !ln.stirred {
		ln.stirred = true
		ln.g.s.stirred = append(ln.g.s.stirred, ln)
	}
}

func (ln *lane) wake() {
	if ln.g.exclusive {
		if ln.owner != nil {
			ln.owner.wake()
		}
		return
	}
	for _, m := range ln.g.members {
		m.wake()
	}
}

// look takes the message at high into the flights; now or later is its time. It says whether it can go out at once.
func (ln *lane) look(now time.Time) (int64, bool) {
	off := ln.high
	ln.high++
	ln.flights = append(ln.flights, flight{})
	e := ln.part.at(off)
	if d := e.msg.Delay; d > 0 && e.at.Add(d).After(now) {
		ln.postpone(off, e.at.Add(d))
		return off, false
	}
	return off, true
}

func (ln *lane) postpone(off int64, at time.Time) {
	ln.flight(off).state = flightWaiting
	heap.Push(&ln.due, dueAt{at, off})
	ln.g.alarm(at)
}

// pick chooses the next message to go out: what came back first, by priority, then by its place in the log.
func (ln *lane) pick(now time.Time) (int64, bool) {
	if ln.prio { // they may lie anywhere: all of them compete
		for ln.high < ln.part.end {
			if off, ok := ln.look(now); ok {
				ln.back(off)
			}
		}
		ln.prio = false
	}
	if len(ln.redo.list) > 0 {
		return heap.Pop(&ln.redo).(int64), true
	}
	for ln.high < ln.part.end {
		if off, ok := ln.look(now); ok {
			return off, true
		}
	}
	return 0, false
}

func (ln *lane) back(off int64) {
	f := ln.flight(off)
	f.state, f.owner = flightReady, nil
	ln.redo.part = ln.part
	heap.Push(&ln.redo, off)
}

// settled moves low past what is settled.
func (ln *lane) settled(f *flight) {
	f.state, f.owner = flightSettled, nil
	n := 0
	for n < len(ln.flights) && ln.flights[n].state == flightSettled {
		n++
	}
	if n == 0 {
		return
	}
	ln.low += int64(n)
	ln.flights = ln.flights[n:]
	if ln.part.private && !ln.part.keep {
		for ln.part.dropOldest(ln.g.s) {
		}
	}
}

// take brings back what m (nil: anyone) has out.
func (ln *lane) take(m *source) {
	for off := ln.low; off < ln.high; off++ {
		if f := ln.flight(off); f.state == flightOut && (m == nil || f.owner == m) {
			f.owner.unsettled--
			ln.back(off)
		}
	}
}

func (ln *lane) unsettledCount() (n int64, oldest time.Time) {
	for off := ln.low; off < ln.part.end; off++ {
		if f := ln.flight(off); f == nil || f.state != flightSettled {
			n++
			if oldest.IsZero() {
				oldest = ln.part.at(off).at
			}
		}
	}
	return n, oldest
}

// offsets is a heap: higher priority first, then the log's order.
type offsets struct {
	part *partition
	list []int64
}

func (h offsets) Len() int { return len(h.list) }
func (h offsets) Less(i, j int) bool {
	a, b := h.part.at(h.list[i]).msg.Priority, h.part.at(h.list[j]).msg.Priority
	return a > b || a == b && h.list[i] < h.list[j]
}
func (h offsets) Swap(i, j int) { h.list[i], h.list[j] = h.list[j], h.list[i] }
func (h *offsets) Push(x any)   { h.list = append(h.list, x.(int64)) }
func (h *offsets) Pop() any {
	x := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	return x
}

type dueAt struct {
	at  time.Time
	off int64
}

type dues []dueAt

func (h dues) Len() int           { return len(h) }
func (h dues) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dues) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dues) Push(x any)        { *h = append(*h, x.(dueAt)) }
func (h *dues) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}

// A group reads the partitions of its topic, or of all topics that its pattern covers.
type group struct {
	s         *Server
	place     pubsub.Place
	exclusive bool
	ackWait   time.Duration
	start     pubsub.Start
	created   time.Time
	lanes     []*lane
	members   []*source
	timer     *time.Timer
	timerAt   time.Time
}

func (g *group) covers(topic string) bool {
	return g.place.Topic == topic || pubsub.IsPattern(g.place.Topic) && pubsub.MatchPattern(g.place.Topic, topic)
}

func (g *group) addTopic(t *topic) {
	for _, p := range t.parts {
		g.addLane(p, false)
	}
}

func (g *group) addLane(p *partition, private bool) {
	off := p.offsetOf(g.start)
	ln := &lane{g: g, id: int32(len(g.lanes)), part: p, private: private, low: off, high: off}
	g.lanes = append(g.lanes, ln)
	p.lanes = append(p.lanes, ln)
	for ; off < p.end; off++ {
		ln.prio = ln.prio || p.at(off).msg.Priority > 0
	}
	if !g.exclusive {
		for _, m := range g.members {
			m.tell(pubsub.LaneEvent{Lane: ln.id, Kind: pubsub.LaneGained})
		}
	}
}

// remove takes a group out of the partitions it reads.
func (g *group) remove() {
	for _, ln := range g.lanes {
		ln.part.lanes = slices.DeleteFunc(ln.part.lanes, func(o *lane) bool { return o == ln })
	}
	if g.timer != nil {
		g.timer.Stop()
	}
	delete(g.s.groups, g.place)
}

func (g *group) join(m *source) {
	g.members = append(g.members, m)
	if !g.exclusive {
		for _, ln := range g.lanes {
			m.tell(pubsub.LaneEvent{Lane: ln.id, Kind: pubsub.LaneGained})
		}
		return
	}
	g.rebalance()
}

// leave takes what m holds back.
func (g *group) leave(m *source) {
	g.members = slices.DeleteFunc(g.members, func(o *source) bool { return o == m })
	for _, ln := range g.lanes {
		ln.take(m)
		if ln.owner == m {
			g.free(ln)
		}
		ln.wake()
	}
	g.rebalance()
}

// rebalance gives each lane of an exclusive group to the member that is to have it: first they go round, then the private ones
// to the oldest member, so that with one partition the second member has nothing and stands by.
func (g *group) rebalance() {
	if !g.exclusive || len(g.members) == 0 {
		return
	}
	i := 0
	for _, ln := range g.lanes {
		want := g.members[0]
		if !ln.private {
			want = g.members[i%len(g.members)]
			i++
		}
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
					owner.tell(pubsub.LaneEvent{Lane: ln.id, Gen: ln.gen, Kind: pubsub.LaneLost})
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
	for _, ln := range g.lanes {
		woken := false
		for len(ln.due) > 0 && !ln.due[0].at.After(now) {
			ln.back(heap.Pop(&ln.due).(dueAt).off)
			woken = true
		}
		if len(ln.due) > 0 {
			sooner(ln.due[0].at)
		}
		for off := ln.low; off < ln.high; off++ {
			f := ln.flight(off)
			if f.state != flightOut {
				continue
			}
			if f.lease.After(now) {
				sooner(f.lease)
				continue
			}
			f.owner.unsettled--
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
