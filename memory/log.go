package memory

import (
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

const chunkSize = 256

type entry struct {
	msg   *pubsub.Message // the engine's own, never changed
	dedup pubsub.Dedup
	at    time.Time
	size  int64
}

// A partition is a log: entries by offset, in chunks that are never moved.
type partition struct {
	topic     string
	index     int32
	t         *topic // nil of a private log
	private   bool   // of one group: what is settled is dropped at once
	keep      bool   // dead letters: never dropped
	base, end int64
	first     int64 // offset of chunks[0][0]
	chunks    []*[chunkSize]entry
	bytes     int64
	lanes     []*lane // of the groups that read it
}

func (p *partition) at(off int64) *entry {
	i := off - p.first
	return &p.chunks[i/chunkSize][i%chunkSize]
}

func (p *partition) position(off int64) pubsub.Position {
	return pubsub.NewPosition(positionKind, off, 0, p.index)
}

func (p *partition) append(e entry) pubsub.Position {
	if p.end-p.first == int64(len(p.chunks))*chunkSize {
		p.chunks = append(p.chunks, new([chunkSize]entry))
	}
	off := p.end
	*p.at(off) = e
	p.end++
	p.bytes += e.size
	for _, ln := range p.lanes {
		ln.arrived(off, e.msg)
	}
	return p.position(off)
}

// needed is the lowest offset that a group has not settled.
func (p *partition) needed() int64 {
	low := p.end
	for _, ln := range p.lanes {
		low = min(low, ln.low)
	}
	return low
}

// dropOldest forgets the oldest entry, unless a group needs it.
func (p *partition) dropOldest(s *Server) bool {
	if p.keep || p.base == p.end || p.base >= p.needed() {
		return false
	}
	e := p.at(p.base)
	s.bytes -= e.size
	p.bytes -= e.size
	*e = entry{}
	p.base++
	if p.base-p.first == chunkSize {
		p.chunks[0] = nil
		p.chunks = p.chunks[1:]
		p.first += chunkSize
	}
	return true
}

// retain keeps a topic within its own bounds, and a private log without what is settled.
func (p *partition) retain(s *Server, now time.Time) {
	if p.t == nil {
		return
	}
	for limit := p.t.spec.MaxBytes; limit > 0 && p.bytes > limit && p.dropOldest(s); {
	}
	for keep := p.t.spec.Retention; keep > 0 && p.base < p.end && now.Sub(p.at(p.base).at) > keep && p.dropOldest(s); {
	}
}

// offsetOf finds where a group starts to read.
func (p *partition) offsetOf(start pubsub.Start) int64 {
	kind, at, pos := start.Parts()
	switch kind {
	case pubsub.StartEarliest:
		return p.base
	case pubsub.StartTime:
		for off := p.base; off < p.end; off++ {
			if !p.at(off).at.Before(at) {
				return off
			}
		}
	case pubsub.StartPosition:
		if k, off, _, index := pos.Parts(); k == positionKind && index == p.index {
			return min(max(off, p.base), p.end)
		}
		return p.base // a position names one partition; of the others nothing is skipped
	}
	return p.end
}
