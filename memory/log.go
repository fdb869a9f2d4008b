package memory

import (
	"math"
	"slices"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

const chunkSize = 64 // small: one message that is held keeps its chunk

// An entry is a message in a log. What is dropped keeps its place and its token: offsets are stable, and a message that is sent
// again is recognised when its first copy is long gone.
type entry struct {
	msg   *pubsub.Message // the engine's own, never changed; nil = dropped
	only  *group          // the one group that it is for; nil = all
	dedup pubsub.Dedup
	at    int64 // when it came, in ns since 1970; no two entries of a server have the same, so it is their order over all logs
	size  int64 // what it counts
	needs int32 // groups that have not settled it
}

type chunk struct {
	live    int // entries that have a message
	entries [chunkSize]entry
}

// A partition is a log: entries by offset, in chunks that are never moved.
//
// An entry that nobody needs any more is history from swept on, as long as there is room, and gone below it. So history goes oldest
// first, around what is still needed. A chunk without messages is kept for its tokens from aged on, and gone below it.
type partition struct {
	s       *Server
	t       *topic // nil of a log that one group has for itself
	topic   string
	index   int32
	history bool // what nobody needs any more is kept until its room is needed
	forever bool // dead letters: nothing is dropped unless somebody purges it
	first   int64
	end     int64
	swept   int64
	aged    int64 // at the beginning of a chunk
	chunks  []*chunk
	spare   int   // messages that are history
	bytes   int64 // what it counts
	lanes   []*lane
}

// at returns an entry, nil if even its chunk is gone. No offset is negative.
func (p *partition) at(off int64) *entry {
	i := uint64(off-p.first) / chunkSize
	if i >= uint64(len(p.chunks)) || p.chunks[i] == nil {
		return nil
	}
	return &p.chunks[i].entries[uint64(off)%chunkSize]
}

func (p *partition) position(off int64) pubsub.Position {
	return pubsub.NewPosition(positionKind, off, 0, p.index)
}

const maxUnused = 1024 // chunks

// newChunk returns a chunk without messages; its entries may have been another's.
func (s *Server) newChunk() *chunk {
	n := len(s.unused)
	if n == 0 {
		return new(chunk)
	}
	c := s.unused[n-1]
	s.unused = s.unused[:n-1]
	return c
}

func (s *Server) reuse(c *chunk) {
	if len(s.unused) < maxUnused {
		s.unused = append(s.unused, c)
	}
}

// count says that this much more is stored. It is the only place where that is counted.
func (p *partition) count(bytes int64) {
	p.bytes += bytes
	p.s.bytes += bytes
	if p.t != nil {
		p.t.bytes += bytes
	}
}

// append stores a message; only is the group that it is for, nil = all.
func (p *partition) append(o *pubsub.Out, only *group, size int64) pubsub.Position {
	p.s.last++
	if p.end-p.first == int64(len(p.chunks))*chunkSize {
		p.forget(p.s.last-int64(dedupWindow), p.end)
		p.chunks = append(p.chunks, p.s.newChunk())
	}
	off := p.end
	p.end++
	c := p.chunks[len(p.chunks)-1]
	c.live++
	e := &c.entries[uint64(off)%chunkSize]
	e.msg, e.only, e.dedup, e.at, e.size, e.needs = o.Msg, only, o.Dedup, p.s.last, size, 0
	p.count(size)
	if p.forever {
		e.needs = 1
	} else if p.isHistory(off, e) {
		p.spare++
	}
	for _, ln := range p.lanes {
		ln.admit(off)
	}
	return p.position(off)
}

// need says that one more group has the entry to settle.
func (p *partition) need(off int64) {
	e := p.at(off)
	if e.needs++; e.needs == 1 && p.isHistory(off, e) {
		p.spare--
	}
}

// unneed says that one group less has it to settle.
func (p *partition) unneed(off int64) {
	e := p.at(off)
	if e.needs--; e.needs > 0 {
		return
	}
	if p.isHistory(off, e) {
		p.spare++
	} else {
		p.drop(off)
	}
}

func (p *partition) isHistory(off int64, e *entry) bool {
	return p.history && e.only == nil && off >= p.swept
}

// drop forgets a message.
func (p *partition) drop(off int64) {
	i := (off - p.first) / chunkSize
	c, e := p.chunks[i], p.at(off)
	p.count(tokenCost - e.size)
	e.msg, e.size = nil, tokenCost
	if c.live--; c.live == 0 && p.first+i*chunkSize < p.aged {
		p.release(i)
	}
}

// release forgets the tokens of a chunk, which has no messages.
func (p *partition) release(i int64) {
	p.count(-chunkSize * tokenCost)
	p.s.reuse(p.chunks[i])
	p.chunks[i] = nil
	for len(p.chunks) > 0 && p.chunks[0] == nil {
		p.chunks = p.chunks[1:]
		p.first += chunkSize
	}
}

// forget forgets the tokens of what came before that time and lies before upto, in whole chunks.
func (p *partition) forget(before, upto int64) {
	for p.aged+chunkSize <= upto && p.at(p.aged+chunkSize-1).at < before {
		i := (p.aged - p.first) / chunkSize
		p.aged += chunkSize
		if p.chunks[i].live == 0 {
			p.release(i)
		}
	}
}

// sweep moves swept one on: what it passes is no history any more.
func (p *partition) sweep() {
	e := p.at(p.swept)
	if e != nil && e.msg != nil && e.needs == 0 {
		p.spare--
		p.drop(p.swept)
	}
	p.swept++
}

// detach takes a lane off.
func (p *partition) detach(ln *lane) {
	p.lanes = slices.DeleteFunc(p.lanes, func(o *lane) bool { return o == ln })
}

// retain drops the history that is older than its topic keeps it.
func (p *partition) retain(now time.Time) {
	if p.t == nil || p.t.spec.Retention == 0 {
		return
	}
	for oldest := now.Add(-p.t.spec.Retention).UnixNano(); p.swept < p.end; p.sweep() {
		if e := p.at(p.swept); e != nil && e.at >= oldest {
			return
		}
	}
}

// offsetOf finds where a group starts to read.
func (p *partition) offsetOf(start pubsub.Start) int64 {
	kind, at, pos := start.Parts()
	switch kind {
	case pubsub.StartEarliest:
		return p.first
	case pubsub.StartTime:
		return p.since(at.UnixNano())
	case pubsub.StartPosition:
		if k, off, _, index := pos.Parts(); k == positionKind && index == p.index {
			return min(max(off, p.first), p.end)
		}
		return p.first // a position names one partition; of the others nothing is skipped
	}
	return p.end
}

// since is the first offset that came at that time or later.
func (p *partition) since(at int64) int64 {
	for off := p.first; off < p.end; off++ {
		if e := p.at(off); e != nil && e.at >= at {
			return off
		}
	}
	return p.end
}

// makeRoom drops history, and then tokens, from several logs, the oldest first, until no more than target bytes are counted.
func makeRoom(logs []*partition, bytes *int64, target int64) {
	for *bytes > target {
		var oldest *partition
		at := int64(math.MaxInt64)
		for _, p := range logs {
			if p.spare > 0 {
				began := int64(0)
				if e := p.at(p.swept); e != nil {
					began = e.at
				}
				if began < at {
					oldest, at = p, began
				}
			}
		}
		if oldest == nil {
			break
		}
		for oldest.spare > 0 && *bytes > target {
			if oldest.sweep(); oldest.swept%chunkSize == 0 {
				break
			}
		}
		oldest.forget(math.MaxInt64, oldest.swept)
	}
	for i := 0; i < len(logs) && *bytes > target; i++ {
		logs[i].forget(math.MaxInt64, logs[i].end)
	}
}
