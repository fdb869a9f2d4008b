package kafka

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/IBM/sarama"
)

// Commits go their own way, so that no handler waits for them: store commits what has changed, at most every commitEvery unless somebody waits.
const commitEvery = 20 * time.Millisecond

// A stand is what is to be committed of a log.
type stand struct {
	l       *plog
	offset  int64
	text    string
	version uint64
	acked   int
	counts  bool
}

func (m *member) store() {
	defer m.working.Done()
	for {
		select {
		case <-m.life.Done():
			return
		case <-m.dirty:
		}
		m.await()
		err := m.commit()
		switch {
		case m.life.Err() != nil:
			return
		case err == nil:
			continue
		case errors.Is(err, errFenced), !passes(err) && !errors.Is(err, sarama.ErrRebalanceInProgress):
			m.die(err)
			return
		case m.silent():
			m.die(err)
			return
		}
		if !pause(m.life, commitEvery) {
			return
		}
		poke(m.dirty)
	}
}

// await lets more come, unless somebody waits.
func (m *member) await() {
	timer := time.NewTimer(commitEvery)
	defer timer.Stop()
	for {
		m.mu.Lock()
		hurry := m.hurry
		m.mu.Unlock()
		if hurry {
			return
		}
		select {
		case <-m.dirty:
		case <-timer.C:
			return
		case <-m.life.Done():
			return
		}
	}
}

// commit stores what has changed, all of it at once.
func (m *member) commit() error {
	m.mu.Lock()
	m.hurry = false
	var stands []stand
	add := func(ln *lane) {
		for _, l := range ln.logs {
			if !l.claimed || l.version == l.stored && !l.mustCount() {
				continue
			}
			s := stand{l: l, offset: l.prefix(), version: l.version, acked: l.acked}
			if s.text, s.counts = l.mark(m.plain); ln.gone && s.counts {
				s.counts = false // it will not be delivered here
			}
			stands = append(stands, s)
		}
	}
	for _, ln := range m.lanes {
		add(ln)
	}
	giving := m.giving
	for _, ln := range giving {
		add(ln)
	}
	req := sarama.NewOffsetCommitRequest(m.d.base, m.group)
	req.ConsumerGroupGeneration, req.ConsumerID, req.GroupInstanceId = m.generation, m.id, m.instance()
	m.mu.Unlock()
	if len(stands) > 0 {
		for _, s := range stands {
			req.AddBlockWithLeaderEpoch(s.l.topic, s.l.partition, s.offset, -1, 0, s.text)
		}
		res, err := ask(m, func(b *sarama.Broker) (*sarama.OffsetCommitResponse, error) { return b.CommitOffset(req) })
		if err == nil {
			err = m.refused(res, req.ConsumerGroupGeneration)
		}
		if err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range stands {
		l := s.l
		l.stored, l.committed = s.version, s.offset
		if s.counts && len(l.pending) > 0 && l.pending[0].offset == s.offset {
			if l.counted = s.offset; l.startsAt != s.offset {
				l.starts, l.startsAt = 0, s.offset
			}
			l.free = !l.each
		}
		if src := l.ln.src; src != nil {
			src.committed(l, s.acked)
			src.wake()
		}
		if l.version != l.stored || l.mustCount() {
			poke(m.dirty)
		}
	}
	m.roomy()
	if len(giving) > 0 {
		m.giving = m.giving[len(giving):]
		m.rejoin = true
		poke(m.look)
	}
	m.tidings()
	return nil
}

// refused reads the answer of a commit.
func (m *member) refused(res *sarama.OffsetCommitResponse, generation int32) error {
	for _, parts := range res.Errors {
		for _, e := range parts {
			switch e {
			case sarama.ErrNoError, sarama.ErrUnknownTopicOrPartition: // whoever fetches from it finds that out
			case sarama.ErrOffsetMetadataTooLarge:
				m.mu.Lock()
				m.plain = true
				m.mu.Unlock()
				return sarama.ErrRebalanceInProgress // again
			case sarama.ErrIllegalGeneration:
				return sarama.ErrRebalanceInProgress // it may have ended, and we are to hear of it: the heartbeat knows whether the group does without us
			case sarama.ErrUnknownMemberId:
				m.mu.Lock()
				moved := m.joining || m.generation != generation
				m.mu.Unlock()
				if moved {
					return sarama.ErrRebalanceInProgress
				}
				return errFenced
			default:
				if passes(e) {
					m.elsewhere(m.coordinatorNow())
				}
				return e
			}
		}
	}
	return nil
}

// settled waits until what is settled of some lanes now is committed.
func (m *member) settled(ctx context.Context, mine func(*lane) bool) error {
	if m.solo {
		return nil
	}
	m.mu.Lock()
	want := map[*plog]uint64{}
	for _, ln := range append(m.list(), m.giving...) {
		if mine(ln) {
			for _, l := range ln.logs {
				if l.claimed && l.version != l.stored {
					want[l] = l.version
				}
			}
		}
	}
	for {
		for l, version := range want {
			if l.stored >= version || l.ln.gone && !slices.Contains(m.giving, l.ln) { // of a topic that is gone, or its successor's
				delete(want, l)
			}
		}
		if len(want) == 0 || m.dead != nil {
			err := m.dead
			if len(want) == 0 {
				err = nil
			}
			m.mu.Unlock()
			return err
		}
		news := m.news
		m.hurry = true
		poke(m.dirty)
		m.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
		m.mu.Lock()
	}
}

// list is the lanes. mu is held.
func (m *member) list() (all []*lane) {
	for _, ln := range m.lanes {
		all = append(all, ln)
	}
	return all
}

// end commits what is settled, leaves the group and waits for all goroutines. err is what sessions that are open say from then on.
func (m *member) end(ctx context.Context, err error) {
	ctx, cancel := context.WithTimeout(ctx, endWithin)
	defer cancel()
	alive := !m.isDead()
	if alive {
		_ = m.settled(ctx, func(*lane) bool { return true }) // else it comes again
	}
	m.die(err)
	m.working.Wait()
	m.asking.Lock()
	if m.quick != nil {
		m.quick.close()
	}
	m.asking.Unlock()
	if m.slow != nil {
		m.slow.close()
	}
	d := m.d
	d.mu.Lock()
	current := d.members[m.key] == m
	if current && alive {
		delete(d.members, m.key)
	}
	d.mu.Unlock()
	m.mu.Lock()
	id := m.id
	m.mu.Unlock()
	if !alive || m.solo || id == "" || d.cfg.Instance != "" {
		return
	}
	address, err := m.where(ctx) // a request that was on its way when all ended has let it be forgotten
	if err != nil {
		return
	}
	req := &sarama.LeaveGroupRequest{Version: 3, GroupId: m.group, Members: []sarama.MemberIdentity{{MemberId: id}}}
	_, _ = at(ctx, d, address, func(b *sarama.Broker) (*sarama.LeaveGroupResponse, error) { return b.LeaveGroup(req) }) // else the group notices after SessionTimeout
}

// endWithin is how long leaving a group may take.
const endWithin = 2 * time.Second
