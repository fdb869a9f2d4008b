package memory

import (
	"container/heap"
	"iter"
	"time"
)

// A lane is a partition as one group sees it, from start on. What lies from high on has not been looked at, but for messages with a
// delay or a priority: those get a flight when they come. The others get theirs when they are picked.
//
// Flights come in chunks as entries do, and a chunk that is settled as a whole goes, whatever lies before it. Below high no flight
// means settled.
type lane struct {
	g       *group
	id      int32
	part    *partition
	start   int64
	high    int64
	first   int64 // of chunks[0]
	chunks  []*flights
	unused  *flights
	ready   ready // came back, or go first
	due     dues  // wait for their time
	pending int64 // not settled
	stirred bool  // to be woken when the publisher has its answer

	owner  *source // of an exclusive group
	gen    uint32  // of owner
	losing bool
	limit  *time.Timer // of losing
}

type flights struct {
	open int // not settled
	list [chunkSize]flight
}

type flight struct {
	state      flightState
	deliveries int32
	failed     int32
	owner      *source
	stamp      uint64
	lease      time.Duration // since the server started
}

type flightState uint8

const (
	flightNew     flightState = iota // nobody has looked at it
	flightReady                      // in ready
	flightOut                        // with its owner
	flightWaiting                    // in due
	flightSettled
)

func newLane(g *group, id int32, p *partition, start int64) *lane {
	return &lane{g: g, id: id, part: p, start: start, high: start, first: start - start%chunkSize}
}

// sees says whether an entry is there for this group.
func (ln *lane) sees(e *entry) bool {
	return e != nil && e.msg != nil && (e.only == nil || e.only == ln.g)
}

// flight returns a flight that there is.
func (ln *lane) flight(off int64) *flight {
	i := uint64(off-ln.first) / chunkSize
	if i >= uint64(len(ln.chunks)) || ln.chunks[i] == nil {
		return nil
	}
	return &ln.chunks[i].list[uint64(off)%chunkSize]
}

// touch returns a flight, and makes it if need be.
func (ln *lane) touch(off int64) *flight {
	if f := ln.flight(off); f != nil {
		return f
	}
	i := (off - ln.first) / chunkSize
	for int64(len(ln.chunks)) <= i {
		ln.chunks = append(ln.chunks, nil)
	}
	c := ln.unused
	if ln.unused = nil; c == nil {
		c = new(flights)
	}
	*c = flights{open: chunkSize}
	for k := range max(ln.start-ln.first-i*chunkSize, 0) {
		c.list[k].state = flightSettled
		c.open--
	}
	ln.chunks[i] = c
	return &c.list[off%chunkSize]
}

// admit takes an entry in that the group has to settle.
func (ln *lane) admit(off int64) {
	e := ln.part.at(off)
	if !ln.sees(e) {
		return
	}
	ln.part.need(off)
	ln.pending++
	if e.msg.Delay > 0 {
		now := time.Now()
		if wait := time.Duration(e.at-now.UnixNano()) + e.msg.Delay; wait > 0 {
			ln.postpone(dueAt{at: now.Add(wait), off: off})
			return
		}
	}
	if e.msg.Priority > 0 {
		ln.back(off)
	}
	ln.stir()
}

// stir has the lane woken when the publisher has its answer.
func (ln *lane) stir() {
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

func (ln *lane) postpone(d dueAt) {
	f := ln.touch(d.off)
	f.state, f.owner = flightWaiting, nil
	heap.Push(&ln.due, d)
	ln.g.alarm(d.at)
}

// back makes a message ready, out of its turn.
func (ln *lane) back(off int64) {
	f := ln.touch(off)
	f.state, f.owner = flightReady, nil
	x := readyAt{off, ln.part.at(off).msg.Priority}
	if x.priority > 0 {
		ln.g.urgent++
	}
	heap.Push(&ln.ready, x)
}

// pick chooses the next message to go out: by priority, then by its place in the log.
func (ln *lane) pick() (off int64, e *entry, f *flight) {
	for ; ln.high < ln.part.end; ln.pass() {
		e, f = ln.part.at(ln.high), ln.touch(ln.high)
		if f.state == flightNew {
			if ln.sees(e) {
				break
			}
			ln.end(ln.high, f) // for others, or gone
		}
	}
	if len(ln.ready) > 0 && (ln.ready[0].priority > 0 || ln.ready[0].off < ln.high || ln.high == ln.part.end) {
		x := heap.Pop(&ln.ready).(readyAt)
		if x.priority > 0 {
			ln.g.urgent--
		}
		return x.off, ln.part.at(x.off), ln.flight(x.off)
	}
	if ln.high == ln.part.end {
		return 0, nil, nil
	}
	off = ln.high
	ln.pass()
	return off, e, f
}

// pass moves high one on.
func (ln *lane) pass() {
	if ln.high++; ln.high%chunkSize == 0 {
		ln.reap((ln.high - 1 - ln.first) / chunkSize)
	}
}

// settled ends a message.
func (ln *lane) settled(off int64, f *flight) {
	ln.end(off, f)
	ln.pending--
	ln.part.unneed(off)
}

// end ends a flight.
func (ln *lane) end(off int64, f *flight) {
	f.state, f.owner = flightSettled, nil
	i := uint64(off-ln.first) / chunkSize
	if ln.chunks[i].open--; ln.chunks[i].open == 0 {
		ln.reap(int64(i))
	}
}

// reap lets a chunk go if it is settled and passed.
func (ln *lane) reap(i int64) {
	c := ln.chunks[i]
	if c == nil || c.open > 0 || ln.first+(i+1)*chunkSize > ln.high {
		return
	}
	ln.unused, ln.chunks[i] = c, nil
	for len(ln.chunks) > 0 && ln.chunks[0] == nil && ln.first+chunkSize <= ln.high {
		ln.chunks = ln.chunks[1:]
		ln.first += chunkSize
	}
}

// open yields the offsets that the group has not settled, in their order.
func (ln *lane) open() iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for off := max(ln.first, ln.start); off < ln.part.end; off++ {
			f := ln.flight(off)
			if f == nil && off < ln.high || f != nil && f.state == flightSettled || !ln.sees(ln.part.at(off)) {
				continue
			}
			if !yield(off) {
				return
			}
		}
	}
}

// out yields what is with a member.
func (ln *lane) out() iter.Seq2[int64, *flight] {
	return func(yield func(int64, *flight) bool) {
		for i, c := range ln.chunks {
			begin := ln.first + int64(i)*chunkSize
			if c == nil || c.open == 0 {
				continue
			}
			for k := range c.list {
				if c.list[k].state == flightOut && !yield(begin+int64(k), &c.list[k]) {
					return
				}
			}
		}
	}
}

// take brings back what m (nil: anyone) has out.
func (ln *lane) take(m *source) {
	for off, f := range ln.out() {
		if m == nil || f.owner == m {
			f.owner.unsettled--
			ln.back(off)
		}
	}
}

// release gives up all that the lane has to settle.
func (ln *lane) release() {
	for off := range ln.open() {
		ln.part.unneed(off)
	}
	for _, x := range ln.ready {
		if x.priority > 0 {
			ln.g.urgent--
		}
	}
}

// oldest is when the first message came that is not settled.
func (ln *lane) oldest() (at time.Time) {
	for off := range ln.open() {
		return time.Unix(0, ln.part.at(off).at)
	}
	return at
}

// moved is the lane as it is when the group begins again at to. What was sent to the group alone stays as it is: it is no part of the topic.
func (ln *lane) moved(to int64) *lane {
	var own []int64
	for off := range ln.open() {
		if ln.part.at(off).only != nil {
			own = append(own, off)
		}
	}
	begin := to
	if len(own) > 0 {
		begin = min(to, own[0])
	}
	n := newLane(ln.g, ln.id, ln.part, begin)
	for off := begin; off < ln.part.end; off++ {
		switch {
		case len(own) > 0 && off == own[0]:
			own = own[1:]
			n.inherit(off, ln)
		case off < to || !n.sees(ln.part.at(off)) || ln.part.at(off).only != nil:
			n.end(off, n.touch(off))
		default:
			n.admit(off)
		}
	}
	return n
}

// inherit takes a message over as it is in another lane.
func (ln *lane) inherit(off int64, from *lane) {
	f := from.flight(off)
	if f == nil || f.state == flightNew {
		ln.admit(off)
		return
	}
	ln.part.need(off)
	ln.pending++
	n := ln.touch(off)
	n.deliveries, n.failed = f.deliveries, f.failed
	if f.state == flightWaiting {
		for _, d := range from.due {
			if d.off == off {
				ln.postpone(d)
				return
			}
		}
	}
	ln.back(off)
}
