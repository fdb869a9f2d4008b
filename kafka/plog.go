package kafka

import (
	"time"

	"github.com/IBM/sarama"
)

// A plog is a partition that is ours: what was fetched and not yet delivered, and the track of what was.
//
// How often the message at its head was begun with is committed before it is delivered for the first time: a process that it takes down cannot say so.
// In the quarantine that is done for each message.
type plog struct {
	ln        *lane
	topic     string
	partition int32
	store     int64       // of its positions
	id        sarama.Uuid // of its topic when it was claimed
	each      bool        // of the quarantine

	claimed   bool      // its offset is known
	offset    int64     // of the next fetch
	leader    int32     // -1 = to be found
	failing   time.Time // since when fetches fail
	again     time.Time // its leader is not looked for before
	missing   time.Time
	alone     bool      // the next fetch asks for nothing else
	broken    time.Time // when what it sends could not be read: it is asked again after brokenEvery
	pending   []entry
	bytes     int64
	back      []uint64 // handed back, in their order
	track     track
	starts    int32 // before us, of the message at startsAt
	startsAt  int64
	counted   int64 // the offset whose start is committed; -1 = none
	free      bool  // what is fetched may be delivered
	failed    map[int64]int32
	skip      []run  // settled before us
	acked     int    // and not committed
	version   uint64 // of what is to be committed
	stored    uint64 // of what is
	committed int64  // offset
	fetched   bool   // a fetch has come since it is ours
}

// prefix is the offset up to which all is settled.
func (l *plog) prefix() int64 {
	if f := l.track.head(); f != nil {
		return f.offset
	}
	if len(l.pending) > 0 {
		return l.pending[0].offset
	}
	return l.offset
}

// mark is what is committed with the prefix, and whether it counts the start of the head.
func (l *plog) mark(plain bool) (text string, counts bool) {
	at := l.prefix()
	var m mark
	if at == l.startsAt {
		m.starts = l.starts
	}
	f := l.track.head()
	if counts = l.mustCount(); counts || f != nil && f.state == flightOut {
		m.starts++
	}
	if plain {
		return "", counts
	}
	var failed []failure
	l.track.each(func(_ uint64, x *flight) bool {
		if x.failed > 0 {
			failed = append(failed, failure{x.offset, x.failed})
		}
		return len(failed) < 100
	})
	if f == nil { // nobody has been given any of these
		for _, e := range l.pending {
			if n := l.failed[e.offset]; n > 0 && len(failed) < 100 {
				failed = append(failed, failure{e.offset, n})
			}
			if len(failed) == len(l.failed) {
				break
			}
		}
	}
	m.runs = l.track.settled()
	for _, r := range l.skip { // what is delivered of these is in the track
		if r.from = max(r.from, l.track.last()+1, at); r.from <= r.to {
			m.runs = append(m.runs, r)
		}
	}
	return m.text(at, failed), counts
}

// mustCount says that the head is to be delivered once its start is committed.
func (l *plog) mustCount() bool {
	return !l.free && len(l.pending) > 0 && l.track.head() == nil && l.counted != l.pending[0].offset
}

// ready says whether there is something to deliver.
func (l *plog) ready() bool {
	return len(l.back) > 0 || len(l.pending) > 0 && (l.free || l.counted == l.pending[0].offset)
}

// begin sets where a log is read from; -1 is its beginning.
func (l *plog) begin(offset int64, m mark, counts bool) {
	l.claimed, l.offset, l.free = true, max(offset, 0), !counts
	l.starts, l.startsAt, l.failed, l.skip = m.starts, offset, m.failed, m.runs
}

// skips says whether a message was settled before us.
func (l *plog) skips(offset int64) bool {
	for len(l.skip) > 0 && l.skip[0].to < offset {
		l.skip = l.skip[1:]
	}
	return len(l.skip) > 0 && l.skip[0].from <= offset && offset <= l.skip[0].to
}

// within cuts what is said to be settled at the log's end: what comes later cannot be.
func (l *plog) within(end int64) {
	for i := range l.skip {
		if l.skip[i].to >= end {
			l.skip = l.skip[:i]
			return
		}
	}
}
