package kafka

import (
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

// A fetcherKey says which fetcher reads a partition: one for each broker, and of these one for the topic and one for the group's private places,
// so that neither waits for the other.
type fetcherKey struct {
	broker int32
	own    bool
}

// fetchedBy says which one reads a log. What is sent to a group alone comes with a partition of the topic, but is empty most of the time: a fetch that waits
// for it must not hold up one for the topic.
func (l *plog) fetchedBy() fetcherKey { return fetcherKey{l.leader, l.store != 0} }

// A fetcher asks one broker for all partitions that have room. What has been fetched and not been delivered is at most one fetch for each.
type fetcher struct {
	m    *member
	key  fetcherKey
	kick chan struct{}
	conn *conn

	short time.Duration // how long a fetch waits at the broker while some partitions have no room
	gave  bool          // the last one has brought something
}

const (
	longWait  = 250 * time.Millisecond // how long a fetch that finds nothing waits at the broker
	shortWait = 5 * time.Millisecond   // the same at first while some partitions have no room: they may have soon; twice as long each time that nothing comes
	maxChunk  = 1 << 20                // bytes of one partition in one fetch
	minChunk  = 16 << 10

	brokenEvery = 5 * time.Second // how often a log is tried whose next batch cannot be read
)

// fetcher gives a log to the fetcher of its leader. mu is held.
func (m *member) fetcher(l *plog) {
	key := l.fetchedBy()
	f := m.fetchers[key]
	if f == nil {
		f = &fetcher{m: m, key: key, kick: make(chan struct{}, 1)}
		m.fetchers[key] = f
		if m.dead != nil {
			return
		}
		m.working.Add(1)
		go f.run()
	}
	poke(f.kick)
}

// hungry lets the fetcher of a log look whether it is to be fetched again. mu is held.
func (m *member) hungry(l *plog) {
	if l.bytes < chunkOf(l)/2 && l.leader >= 0 {
		if f := m.fetchers[l.fetchedBy()]; f != nil {
			poke(f.kick)
		}
	}
}

// chunkOf is how much of a log is fetched at once: together at most half of what may be held.
func chunkOf(l *plog) int64 {
	s := l.ln.src
	if s == nil {
		return minChunk
	}
	return min(max(s.spec.MaxInFlightBytes/int64(2*max(len(s.mine), 1)), minChunk), maxChunk)
}

func (f *fetcher) run() {
	m := f.m
	defer m.working.Done()
	defer func() {
		if f.conn != nil {
			f.conn.close()
		}
	}()
	for {
		req, logs := f.request()
		if len(logs) == 0 {
			select {
			case <-f.kick:
				continue
			case <-m.life.Done():
				return
			}
		}
		res, err := f.fetch(req)
		if m.life.Err() != nil {
			return
		}
		f.take(res, err, logs)
	}
}

// request asks for what has room.
func (f *fetcher) request() (*sarama.FetchRequest, map[*plog]int64) {
	m := f.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.short = min(2*f.short, longWait); f.gave || f.short == 0 {
		f.short = shortWait
	}
	f.gave = false
	logs := map[*plog]int64{}
	wait, alone := longWait, false
	m.eachLog(func(l *plog) {
		if l.fetchedBy() != f.key || time.Since(l.broken) < brokenEvery {
			return
		}
		switch s := l.ln.src; {
		case s.quiet:
		case alone:
		case l.bytes >= chunkOf(l)/2:
			wait = f.short
		case l.alone:
			clear(logs)
			logs[l] = chunkOf(l)
			alone, wait = true, shortWait
		default:
			logs[l] = chunkOf(l)
		}
	})
	req := m.d.fetchRequest(wait)
	for l, size := range logs {
		req.AddBlock(l.topic, l.partition, l.offset, int32(size), -1)
		logs[l] = l.offset
	}
	return req, logs
}

func (f *fetcher) fetch(req *sarama.FetchRequest) (*sarama.FetchResponse, error) {
	if f.conn == nil {
		address, err := f.m.d.addressOf(f.key.broker)
		if err != nil {
			return nil, err
		}
		if f.conn, err = f.m.d.dial(f.m.life, address, answerWithin); err != nil {
			f.conn = nil
			return nil, err
		}
	}
	res, err := call(f.m.life, f.conn, func(b *sarama.Broker) (*sarama.FetchResponse, error) { return b.Fetch(req) })
	if err != nil {
		if open, _ := f.conn.Connected(); open && f.m.life.Err() == nil { // the client closes it when it breaks, but not when an answer makes no sense
			err = &unreadable{err}
		}
		f.conn.close()
		f.conn = nil
	}
	return res, err
}

// unreadable is an answer in which the client finds something that it cannot parse or unpack.
type unreadable struct{ error }

func (e *unreadable) Unwrap() error { return e.error }

// isBroken lets a log wait whose next batch cannot be read, and nothing else: whoever has written it may remove it, or this program be another one soon.
// mu is held.
func (f *fetcher) isBroken(l *plog) {
	l.broken, l.alone = time.Now(), true
	time.AfterFunc(brokenEvery, func() { poke(f.kick) })
}

// take takes what came.
func (f *fetcher) take(res *sarama.FetchResponse, err error, logs map[*plog]int64) {
	m := f.m
	_, bad := errors.AsType[*unreadable](err)
	if bad && len(logs) > 1 { // one of them cannot be parsed: which?
		m.mu.Lock()
		for l := range logs {
			l.alone = true
		}
		m.mu.Unlock()
		return
	}
	var beyond []*plog // whose offset is not there
	m.mu.Lock()
	for l, from := range logs {
		if l.ln.gone || l.offset != from {
			continue
		}
		switch {
		case bad:
			f.isBroken(l)
		case err != nil:
			m.failed(l, err)
		default:
			if f.one(l, res.GetBlock(l.topic, l.partition)) {
				beyond = append(beyond, l)
			}
		}
	}
	m.mu.Unlock()
	for _, l := range beyond {
		m.jump(l)
	}
}

// failed looks for the leader again: at once, and then less and less often, since the broker that was it is named until the others have found that it is gone.
// It gives up when that has gone on for too long, and nothing else is read. mu is held.
func (m *member) failed(l *plog, err error) {
	l.leader = -1
	if now := time.Now(); l.failing.IsZero() {
		l.failing = now
	} else {
		l.again = now.Add(min(max(now.Sub(l.failing)/2, joinRetry), time.Second))
	}
	if time.Since(l.failing) > m.d.cfg.SessionTimeout && !m.readsSome() {
		go m.die(err)
		return
	}
	poke(m.lost)
}

// one takes what came of one log; true means that its offset is not there. mu is held.
func (f *fetcher) one(l *plog, b *sarama.FetchResponseBlock) (beyond bool) {
	m := f.m
	if b == nil {
		m.failed(l, sarama.ErrIncompleteResponse)
		return false
	}
	switch b.Err {
	case sarama.ErrNoError:
	case sarama.ErrOffsetOutOfRange:
		return true
	case sarama.ErrTopicAuthorizationFailed:
		go m.die(b.Err)
		return false
	default:
		m.failed(l, b.Err)
		return false
	}
	l.failing = time.Time{}
	if !l.fetched {
		l.fetched = true
		l.within(b.HighWaterMarkOffset)
	}
	all, next := parse(b, l.offset, !m.d.cfg.ReadAll)
	if next == l.offset {
		switch {
		case l.alone && (len(b.RecordsSet) > 0 || b.Partial): // the broker sends a whole batch, and it is not one
			f.isBroken(l)
		default: // other partitions may have filled the response
			l.alone = !l.alone && (len(b.RecordsSet) > 0 || b.Partial || b.LastStableOffset > l.offset)
		}
		return false
	}
	l.alone, l.broken, f.gave = false, time.Time{}, true
	l.offset = next
	for i := range all {
		l.bytes += all[i].bytes
	}
	if len(l.pending) == 0 {
		l.pending = all
	} else {
		l.pending = append(l.pending, all...)
	}
	if l.mustCount() {
		m.hurry = true
		if l.startsAt < l.pending[0].offset && l.startsAt >= 0 && l.track.next == 0 { // the head that was meant, behind a gap
			l.startsAt = l.pending[0].offset
		}
		poke(m.dirty)
	}
	if len(all) == 0 {
		m.touch(l)
	}
	if l.ln.src != nil {
		l.ln.src.wake()
	}
	return false
}

// jump goes on at the beginning of a log whose offset is not there: what was before has gone.
func (m *member) jump(l *plog) {
	info, ok, err := m.d.known(m.life, l.topic)
	var first []int64
	if err == nil && !ok {
		err = sarama.ErrUnknownTopicOrPartition
	}
	if err == nil {
		first, err = m.d.offsets(m.life, l.topic, info, sarama.OffsetOldest)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil:
		m.failed(l, fmt.Errorf("looking for the first offset of %s: %w", l.topic, err))
	case int(l.partition) < len(first):
		l.offset = first[l.partition]
		l.skip, l.failed = nil, nil
		m.touch(l)
		if f := m.fetchers[l.fetchedBy()]; f != nil {
			poke(f.kick)
		}
	}
}
