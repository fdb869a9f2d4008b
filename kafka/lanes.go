package kafka

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// touch says that there is something to commit. mu is held.
func (m *member) touch(l *plog) {
	if l.version++; !m.solo {
		poke(m.dirty)
	}
}

// apply takes the units that the group gives us. So many more are to come.
func (m *member) apply(units []unit, owed int) error {
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
	shut(m.joined)
	if owed == 0 {
		shut(m.whole)
	}
	return nil
}

// shut closes a channel that may be closed already. mu is held.
func shut(ch chan struct{}) {
	select {
	case <-ch:
	default:
		close(ch)
	}
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
	for {
		err := m.claimOnce(lanes)
		switch {
		case m.life.Err() != nil:
			return errGone
		case err == nil:
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

func (m *member) claimOnce(lanes []*lane) error {
	parts := map[string][]int32{}
	for _, ln := range lanes {
		for _, l := range ln.logs {
			parts[l.topic] = append(parts[l.topic], l.partition)
		}
	}
	ctx, cancel := context.WithTimeout(m.life, answerWithin)
	defer cancel()
	topics, err := m.d.describe(ctx, slices.Collect(maps.Keys(parts)))
	var at map[string]map[int32]*sarama.OffsetFetchResponseBlock
	if err == nil && !m.solo {
		at, err = m.offsets(parts)
	}
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ln := range lanes {
		for _, l := range ln.logs {
			l.id = topics[l.topic].id
			was, known := m.left[ln.unit]
			switch b := at[l.topic][l.partition]; {
			case b != nil && b.Offset >= 0:
				l.committed = b.Offset
				l.begin(b.Offset, parseMark(b.Offset, b.Metadata), true)
			case known && was.id == l.id:
				l.begin(was.offset, mark{}, false)
			default:
				l.begin(m.def.start(l.topic, l.id, l.partition), mark{}, !m.solo)
			}
		}
	}
	return nil
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
	if m.solo {
		m.left[ln.unit] = stood{ln.logs[0].id, ln.logs[0].prefix()}
	}
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
	m.roomy()
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
			if err := m.apply(classes[0], 0); err != nil {
				return err
			}
			m.hear()
		case !passes(err) || m.silent() && time.Since(began) > m.d.cfg.SessionTimeout:
			return err
		}
		next := every
		if !m.missing.IsZero() {
			next = joinRetry
		}
		if !pause(m.life, next) {
			return errGone
		}
	}
}

// locate finds the leaders of partitions.
func (m *member) locate() {
	defer m.working.Done()
	var since time.Time        // of the first failure in a row
	var again <-chan time.Time // when a partition may have been made
	for {
		select {
		case <-m.life.Done():
			return
		case <-m.lost:
		case <-again:
		}
		absent, err := m.locateOnce()
		again = nil
		if absent {
			again = time.After(unitsEvery)
		}
		searches := errors.Is(err, errSearch)
		switch {
		case m.life.Err() != nil:
			return
		case err == nil:
			since = time.Time{}
			continue
		case searches && m.reads(): // who has the others goes on
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		if !since.IsZero() && time.Since(since) > m.d.cfg.SessionTimeout || !passes(err) && !searches {
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

// locateOnce looks for the leaders that are not known. absent says that what is sent to the group alone has fewer partitions than the topic: what was
// added to that is read without them, and they are read when they are made.
func (m *member) locateOnce() (absent bool, err error) {
	var names []string
	now := time.Now()
	m.mu.Lock()
	m.eachLog(func(l *plog) {
		switch {
		case l.leader >= 0:
		case now.Before(l.again):
			err = errSearch
		default:
			names = append(names, l.topic)
		}
	})
	m.mu.Unlock()
	if len(names) == 0 {
		return false, err
	}
	ctx, cancel := context.WithTimeout(m.life, answerWithin)
	defer cancel()
	all, failed := m.d.describe(ctx, names)
	if failed != nil {
		return false, failed
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.eachLog(func(l *plog) {
		if l.leader >= 0 || now.Before(l.again) {
			return
		}
		info, ok := all[l.topic]
		there := ok && l.partition < info.n()
		switch {
		case ok && !there && l != l.ln.logs[0]:
			absent = true
		case !there && l.missing.IsZero():
			l.missing = time.Now()
			err = cmp.Or(err, errSearch)
		case !ok && time.Since(l.missing) < vanishes:
			err = cmp.Or(err, errSearch)
		case !there && pubsub.IsPattern(m.place.Topic) && l.ln.place.Kind == pubsub.PlaceMain && l.store == 0:
			m.vanish(l.ln)
		case !there:
			err = &brokerError{pubsub.ErrNotFound, false, "topic " + l.topic + " is not there any more"}
		case info.parts[l.partition].leader < 0:
			l.failing, err = time.Time{}, cmp.Or(err, errSearch) // nobody is there who could fail
		default:
			l.missing = time.Time{}
			l.leader = info.parts[l.partition].leader
			m.fetcher(l)
		}
	})
	return absent, err
}

// reads says whether some partitions of the topic are read: then it is no reason to end the session that others cannot be.
func (m *member) reads() (some bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.readsSome()
}

// readsSome is reads. mu is held.
func (m *member) readsSome() (some bool) {
	for _, ln := range m.lanes {
		l := ln.logs[0]
		some = some || ln.place.Kind == pubsub.PlaceMain && ln.src != nil && l.leader >= 0 && l.failing.IsZero()
	}
	return some
}

// vanish ends the lane of a topic that a pattern covered and that is gone. mu is held.
func (m *member) vanish(ln *lane) {
	ln.gone = true
	delete(m.lanes, ln.unit)
	if ln.src != nil {
		ln.src.tell(pubsub.LaneEvent{Lane: ln.id, Gen: ln.gen, Kind: pubsub.LaneLost})
	}
	m.detach(ln)
	m.tidings()
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
