package kafka

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/IBM/sarama"
)

// A track follows what was delivered of one partition and is not settled up to a point: acks come in any order, and what is committed is the offset
// up to which all is settled, with the runs beyond it that are settled too. Delivered messages are counted: of a log that has gaps (control
// records, compaction) that is denser than offsets. They lie in chunks; one that is settled as a whole keeps the offsets of its ends only.
type track struct {
	first  uint64 // number of chunks[0]'s first message
	next   uint64 // number of the next message
	chunks []chunk
	front  uint64 // the first that is not settled, or next
	out    int    // with the engine
}

const chunkSize = 64

type chunk struct {
	from, to int64 // the offsets of its first and its last message
	open     int   // not settled
	list     *[chunkSize]flight
}

// A flight is a message that was delivered.
type flight struct {
	rec    *sarama.Record
	time   time.Time
	offset int64
	failed int32
	state  flightState
	kept   bool // rec shares no memory with others
}

// keep lets go of the response in which the message came: it will wait, and that may be large.
func (f *flight) keep() {
	if f.kept || f.rec == nil {
		return
	}
	f.kept = true
	r := *f.rec
	r.Key = bytes.Clone(r.Key)
	if len(r.Value) <= smallPayload { // a larger one is shared with the Message
		r.Value = bytes.Clone(r.Value)
	}
	r.Headers = make([]*sarama.RecordHeader, len(f.rec.Headers))
	for i, h := range f.rec.Headers {
		r.Headers[i] = &sarama.RecordHeader{Key: bytes.Clone(h.Key), Value: bytes.Clone(h.Value)}
	}
	f.rec = &r
}

type flightState uint8

const (
	flightNone flightState = iota
	flightOut              // with the engine
	flightBack             // handed back, to be delivered again
	flightDone
)

// add takes a message in, in the order of offsets.
func (t *track) add(f flight) (number uint64) {
	number = t.next
	i := (number - t.first) / chunkSize
	if i == uint64(len(t.chunks)) {
		t.chunks = append(t.chunks, chunk{from: f.offset, list: new([chunkSize]flight)})
	}
	c := &t.chunks[i]
	c.list[number%chunkSize] = f
	c.to = f.offset
	t.next++
	switch f.state {
	case flightDone:
		t.closed(i)
		t.advance()
	case flightOut:
		c.open++
		t.out++
	default:
		c.open++
	}
	return number
}

// at returns a flight, nil if it is settled and gone.
func (t *track) at(number uint64) *flight {
	if number < t.first || number >= t.next {
		return nil
	}
	c := &t.chunks[(number-t.first)/chunkSize]
	if c.list == nil {
		return nil
	}
	return &c.list[number%chunkSize]
}

// done settles a flight.
func (t *track) done(number uint64) {
	f := t.at(number)
	if f.state == flightOut {
		t.out--
	}
	*f = flight{offset: f.offset, state: flightDone}
	i := (number - t.first) / chunkSize
	t.chunks[i].open--
	t.closed(i)
	if number == t.front {
		t.advance()
	}
}

// closed lets the messages of a chunk go that is full and settled.
func (t *track) closed(i uint64) {
	c := &t.chunks[i]
	if c.open == 0 && t.first+(i+1)*chunkSize <= t.next {
		c.list = nil
	}
}

// advance moves front to the next message that is not settled, and forgets the chunks before it.
func (t *track) advance() {
	for t.front < t.next {
		c := &t.chunks[(t.front-t.first)/chunkSize]
		if c.list == nil {
			t.front += chunkSize - t.front%chunkSize
			continue
		}
		if c.list[t.front%chunkSize].state != flightDone {
			break
		}
		t.front++
	}
	if n := (t.front - t.first) / chunkSize; n > 0 {
		clear(t.chunks[:n])
		t.chunks = t.chunks[n:]
		t.first += n * chunkSize
	}
}

// head is the first message that is not settled, nil if there is none.
func (t *track) head() *flight {
	if t.front == t.next {
		return nil
	}
	return t.at(t.front)
}

// last is the offset of the last message that was delivered, -1 if there is none.
func (t *track) last() int64 {
	if len(t.chunks) == 0 {
		return -1
	}
	return t.chunks[len(t.chunks)-1].to
}

// each calls f with the messages that are not settled, in their order, until it returns false.
func (t *track) each(f func(number uint64, x *flight) bool) {
	for i := range t.chunks {
		c := &t.chunks[i]
		if c.list == nil || c.open == 0 {
			continue
		}
		begin := t.first + uint64(i)*chunkSize
		for k := range c.list {
			if s := c.list[k].state; (s == flightOut || s == flightBack) && !f(begin+uint64(k), &c.list[k]) {
				return
			}
		}
	}
}

// A run is a stretch of offsets that are settled, both ends included.
type run struct{ from, to int64 }

// settled are the runs behind the first message that is not settled.
func (t *track) settled() (runs []run) {
	open := true // the run before is over
	extend := func(from, to int64) {
		if open {
			runs = append(runs, run{from, to})
			open = false
			return
		}
		runs[len(runs)-1].to = to
	}
	for i := range t.chunks {
		c := &t.chunks[i]
		begin := t.first + uint64(i)*chunkSize
		if c.list == nil {
			if begin >= t.front {
				extend(c.from, c.to)
			}
			continue
		}
		for k := range c.list {
			switch number := begin + uint64(k); {
			case number < t.front || number >= t.next:
			case c.list[k].state == flightDone:
				extend(c.list[k].offset, c.list[k].offset)
			default:
				open = true
			}
		}
	}
	return runs
}

// A mark is what is committed beside an offset, as its metadata: text of at most 4096 bytes.
type mark struct {
	starts int32           // how often the message at the offset was begun with
	failed map[int64]int32 // failures of messages that are not settled, by offset
	runs   []run           // settled ones beyond the offset
}

const (
	markPrefix = "omnibus1:"
	maxMark    = 3000 // bytes before they are written as text
)

// text writes what fits, the nearest first: what is left out comes again, or forgets its failures.
func (m *mark) text(offset int64, failed []failure) string {
	if m.starts == 0 && len(failed) == 0 && len(m.runs) == 0 {
		return ""
	}
	b := binary.AppendUvarint(nil, uint64(m.starts))
	n := min(len(failed), 100)
	b = binary.AppendUvarint(b, uint64(n))
	at := offset
	for _, f := range failed[:n] {
		b = binary.AppendUvarint(b, uint64(f.offset-at))
		b = binary.AppendUvarint(b, uint64(f.failed))
		at = f.offset
	}
	at = offset
	for _, r := range m.runs {
		if len(b) > maxMark-2*binary.MaxVarintLen64 {
			break
		}
		b = binary.AppendUvarint(b, uint64(r.from-at))
		b = binary.AppendUvarint(b, uint64(r.to-r.from))
		at = r.to
	}
	return markPrefix + base64.RawStdEncoding.EncodeToString(b)
}

type failure struct {
	offset int64
	failed int32
}

// parseMark reads what text wrote. What cannot be read means that nothing is known.
func parseMark(offset int64, text string) (m mark) {
	rest, ours := strings.CutPrefix(text, markPrefix)
	b, err := base64.RawStdEncoding.DecodeString(rest)
	if !ours || err != nil {
		return m
	}
	bad := false
	next := func() int64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<62 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return int64(v)
	}
	starts := next()
	n := next()
	if bad || starts > 1<<30 || n > 1<<12 {
		return m
	}
	m.failed = map[int64]int32{}
	at := offset
	for range n {
		at += next()
		m.failed[at] = int32(min(next(), 1<<30))
	}
	at = offset
	for !bad && len(b) > 0 {
		from := at + next()
		to := from + next()
		if from < at || to < from {
			bad = true
			break
		}
		m.runs = append(m.runs, run{from, to})
		at = to
	}
	if bad {
		return mark{}
	}
	m.starts = int32(starts)
	return m
}
