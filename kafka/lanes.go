package kafka

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A plog is a partition that is ours: what was fetched and not yet delivered, and the track of what was.
//
// How often the message at its head was begun with is committed before it is delivered for the first time: a process that it takes down cannot say so.
// In the quarantine that is done for each message.
type plog struct {
	ln        *lane
	topic     string
	partition int32
	store     int64 // of its positions
	each      bool  // of the quarantine

	claimed   bool  // its offset is known
	offset    int64 // of the next fetch
	leader    int32 // -1 = to be found
	failing   time.Time
	missing   time.Time
	alone     bool // the next fetch asks for nothing else
	broken    error
	pending   []entry
	bytes     int64
	back      []uint64 // handed back, in their order
	track     track
	starts    int32 // before us, of the message at startsAt
	startsAt  int64
	counted   int64 // the offset whose start is committed; -1 = none
	free      bool  // what is fetched may be delivered
	failed    map[int64]int32
	skip      []run // settled before us
	paused    bool
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
		if r.from = max(r.from, l.track.last()+1); r.from <= r.to {
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

// touch says that there is something to commit. mu is held.
func (m *member) touch(l *plog) {
	if l.version++; !m.solo {
		poke(m.dirty)
	}
}

// apply takes the units that the group gives us.
func (m *member) apply(units []unit) error {
	m.mu.Lock()
	want := map[unit]struct{}{}
	var fresh []*lane
	for _, u := range units {
		want[u] = struct{}{}
		if m.lanes[u] != nil || m.isGiving(u) {
			continue
		}
		ln := m.newLane(u)
		fresh = append(fresh, ln)
	}
	for u, ln := range m.lanes {
		if _, ok := want[u]; !ok && !ln.losing {
			m.loseLane(ln)
		}
	}
	m.mu.Unlock()
	if err := m.claim(fresh); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead != nil {
		return m.dead
	}
	for _, ln := range fresh {
		m.lanes[ln.unit] = ln
		if s := m.sources[ln.place]; s != nil {
			m.gain(ln, s)
		}
	}
	select {
	case <-m.joined:
	default:
		close(m.joined)
	}
	return nil
}

func (m *member) isGiving(u unit) bool {
	for _, ln := range m.giving {
		if ln.unit == u {
			return true
		}
	}
	return false
}

// newLane makes the lane of a unit. mu is held.
func (m *member) newLane(u unit) *lane {
	m.lastLane++
	ln := &lane{id: m.lastLane, unit: u, place: pubsub.Place{Topic: m.place.Topic, Group: m.place.Group}}
	add := func(topic string, partition int32) {
		l := &plog{ln: ln, topic: topic, partition: partition, store: storeOf(ln.place), leader: -1, startsAt: -1, counted: -1, committed: -1}
		l.each = ln.place.Kind == pubsub.PlaceQuarantine
		ln.logs = append(ln.logs, l)
	}
	switch u.topic {
	case private(kindTiers, m.place):
		tiers := pubsub.Tiers()
		each := m.def.topics[u.topic].n() / int32(len(tiers))
		ln.place.Kind, ln.place.Tier = pubsub.PlaceRetry, tiers[min(int(u.partition/max(each, 1)), len(tiers)-1)]
		add(u.topic, u.partition)
	case private(kindQuarantine, m.place):
		ln.place.Kind = pubsub.PlaceQuarantine
		add(u.topic, u.partition)
	case private(kindRetry, m.place): // of a pattern
		add(u.topic, u.partition)
		ln.logs[0].store = storeOf(pubsub.Place{Kind: pubsub.PlaceRetry})
	default:
		add(u.topic, u.partition)
		if !m.solo && !pubsub.IsPattern(m.place.Topic) {
			add(private(kindRetry, m.place), u.partition)
			ln.logs[1].store = storeOf(pubsub.Place{Kind: pubsub.PlaceRetry})
		}
	}
	return ln
}

// claim finds where lanes are to be read from: what the group has committed.
func (m *member) claim(lanes []*lane) error {
	if len(lanes) == 0 {
		return nil
	}
	if m.solo {
		for _, ln := range lanes {
			for _, l := range ln.logs {
				l.begin(m.def.start(l.topic, l.partition), mark{}, false)
			}
		}
		return nil
	}
	parts := map[string][]int32{}
	for _, ln := range lanes {
		for _, l := range ln.logs {
			parts[l.topic] = append(parts[l.topic], l.partition)
		}
	}
	for {
		at, err := m.offsets(parts)
		switch {
		case m.life.Err() != nil:
			return errGone
		case err == nil:
			for _, ln := range lanes {
				for _, l := range ln.logs {
					b := at[l.topic][l.partition]
					if b == nil || b.Offset < 0 {
						l.begin(m.def.start(l.topic, l.partition), mark{}, true)
						continue
					}
					l.committed = b.Offset
					l.begin(b.Offset, parseMark(b.Offset, b.Metadata), true)
				}
			}
			return nil
		case passes(err), errors.Is(err, sarama.ErrUnknownTopicOrPartition):
			if m.silent() || !pause(m.life, joinRetry) {
				return err
			}
		default:
			return err
		}
	}
}

// offsets reads what the group has committed.
func (m *member) offsets(parts map[string][]int32) (map[string]map[int32]*sarama.OffsetFetchResponseBlock, error) {
	req := sarama.NewOffsetFetchRequest(m.d.base.Version, m.group, parts)
	res, err := ask(m, func(b *sarama.Broker) (*sarama.OffsetFetchResponse, error) { return b.FetchOffset(req) })
	if err != nil {
		return nil, err
	}
	at, err := offsetBlocks(res, m.group)
	if err != nil && passes(err) {
		m.elsewhere(m.coordinatorNow())
	}
	return at, err
}

func (m *member) coordinatorNow() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.coordinator
}

func offsetBlocks(res *sarama.OffsetFetchResponse, group string) (map[string]map[int32]*sarama.OffsetFetchResponseBlock, error) {
	blocks, err := res.Blocks, res.Err
	for _, g := range res.Groups {
		if g.GroupId == group {
			blocks, err = g.Blocks, g.Err
		}
	}
	if err != sarama.ErrNoError {
		return nil, err
	}
	for _, parts := range blocks {
		for _, b := range parts {
			if b.Err != sarama.ErrNoError { // also of a topic that a broker which has just started has not heard of yet: its offset is not known
				return nil, b.Err
			}
		}
	}
	return blocks, nil
}

// begin sets where a log is read from; -1 is its beginning.
func (l *plog) begin(offset int64, m mark, counts bool) {
	l.claimed, l.offset, l.free = true, max(offset, 0), !counts
	l.starts, l.startsAt, l.failed, l.skip = m.starts, offset, m.failed, m.runs
}

// loseLane begins to give a lane up. mu is held.
func (m *member) loseLane(ln *lane) {
	ln.losing = true
	if ln.src == nil {
		m.drop(ln)
		return
	}
	wait := min(m.def.AckWait, maxLosing)
	ln.src.tell(pubsub.LaneEvent{Lane: ln.id, Gen: ln.gen, Kind: pubsub.LaneLosing, Deadline: time.Now().Add(wait)})
	ln.limit = time.AfterFunc(wait, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !ln.gone {
			ln.src.tell(pubsub.LaneEvent{Lane: ln.id, Gen: ln.gen, Kind: pubsub.LaneLost})
			m.drop(ln)
		}
	})
}

// maxLosing is how long a handler may hold up a partition that another member is to have.
const maxLosing = 30 * time.Second

// drop ends a lane. The group gets it back when what is settled of it is committed. mu is held.
func (m *member) drop(ln *lane) {
	if ln.gone {
		return
	}
	ln.gone = true
	delete(m.lanes, ln.unit)
	m.detach(ln)
	if m.solo {
		return
	}
	m.giving = append(m.giving, ln)
	m.hurry = true
	for _, l := range ln.logs {
		l.version++ // also one that has nothing new is looked at once more
	}
	poke(m.dirty)
}

// detach lets the source of a lane go. mu is held.
func (m *member) detach(ln *lane) {
	if ln.limit != nil {
		ln.limit.Stop()
	}
	for _, l := range ln.logs {
		if ln.src != nil {
			ln.src.unsettled -= l.track.out
			ln.src.committed(l, l.acked)
		}
	}
	if s := ln.src; s != nil {
		s.mine = slices.DeleteFunc(s.mine, func(o *lane) bool { return o == ln })
		s.wake()
	}
	ln.src = nil
}

// watchAlone gives a live tail all partitions that there are.
func (m *member) watchAlone() error {
	every := unitsEvery
	if pubsub.IsPattern(m.place.Topic) {
		every = patternEvery
	}
	began := time.Now()
	for {
		classes, err := m.classes(m.life)
		switch {
		case m.life.Err() != nil:
			return errGone
		case err == nil:
			if err := m.apply(classes[0]); err != nil {
				return err
			}
			m.hear()
		case !passes(err) || m.silent() && time.Since(began) > m.d.cfg.SessionTimeout:
			return err
		}
		if !pause(m.life, every) {
			return errGone
		}
	}
}

// locate finds the leaders of partitions.
func (m *member) locate() {
	defer m.working.Done()
	var since time.Time // of the first failure in a row
	for {
		select {
		case <-m.life.Done():
			return
		case <-m.lost:
		}
		err := m.locateOnce()
		switch {
		case m.life.Err() != nil:
			return
		case err == nil:
			since = time.Time{}
			continue
		case since.IsZero():
			since = time.Now()
		}
		if time.Since(since) > m.d.cfg.SessionTimeout || !passes(err) && !errors.Is(err, errSearch) {
			m.die(err)
			return
		}
		if !pause(m.life, joinRetry) {
			return
		}
		poke(m.lost)
	}
}

// errSearch says that a partition has no leader yet.
var errSearch = errors.New("kafka: a partition has no leader")

// vanishes is how long a topic must be away to be gone: brokers hear of changes one after the other.
const vanishes = 2 * time.Second

func (m *member) locateOnce() error {
	var names []string
	m.mu.Lock()
	m.eachLog(func(l *plog) {
		if l.leader < 0 {
			names = append(names, l.topic)
		}
	})
	m.mu.Unlock()
	if len(names) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(m.life, answerWithin)
	defer cancel()
	all, err := m.d.describe(ctx, names)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.eachLog(func(l *plog) {
		if l.leader >= 0 {
			return
		}
		info, ok := all[l.topic]
		switch {
		case (!ok || l.partition >= info.n()) && l.missing.IsZero():
			l.missing = time.Now()
			err = errSearch
		case !ok && time.Since(l.missing) < vanishes:
			err = errSearch
		case !ok || l.partition >= info.n():
			err = &brokerError{pubsub.ErrNotFound, false, "topic " + l.topic + " is not there any more"}
			if pubsub.IsPattern(m.place.Topic) && l.ln.place.Kind == pubsub.PlaceMain && l.store == 0 {
				m.vanish(l.ln)
				err = nil
			}
		case info.parts[l.partition].leader < 0:
			err = errSearch
		default:
			l.missing = time.Time{}
			l.leader = info.parts[l.partition].leader
			m.fetcher(l)
		}
	})
	return err
}

// vanish ends the lane of a topic that a pattern covered and that is gone. mu is held.
func (m *member) vanish(ln *lane) {
	ln.gone = true
	delete(m.lanes, ln.unit)
	if ln.src != nil {
		ln.src.tell(pubsub.LaneEvent{Lane: ln.id, Gen: ln.gen, Kind: pubsub.LaneLost})
	}
	m.detach(ln)
	m.rejoin = true
	poke(m.look)
}

// eachLog calls f with the logs that somebody reads. mu is held.
func (m *member) eachLog(f func(*plog)) {
	for _, ln := range m.lanes {
		if ln.src == nil || ln.losing {
			continue
		}
		for _, l := range ln.logs {
			f(l)
		}
	}
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
