package kafka

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A memberKey names a member: the topic and the group, and the consumer, whose places share one membership.
type memberKey struct{ topic, group, name string }

// A member is one consumer's part of a consumer group, over which its sources have their partitions. It speaks the protocol of groups itself: the
// client's own gives partitions up all at once, forgets the metadata of commits, and cannot keep a partition of the topic together with that of
// what is sent to the group alone.
//
// Rebalances are cooperative: a member joins at once, with what it has, and goes on with it. What the plan takes from it, it first brings to an
// end; then it joins again, and the partition goes to its next owner. A handler that does not end holds up its own partition only, until Deadline.
//
// The goroutines: run joins and sends heartbeats; store commits; locate finds leaders; one fetcher for each broker and class. mu guards all
// that is below it, and the tracks.
type member struct {
	d       *driver
	key     memberKey
	place   pubsub.Place // Topic and Group
	group   string
	def     *group
	solo    bool            // a live tail: no group at all, all partitions, no commits
	life    context.Context //nolint:containedctx // the member's own lifetime
	stop    context.CancelFunc
	working sync.WaitGroup
	joined  chan struct{} // closed when it has its first partitions, or is dead
	whole   chan struct{} // closed when it has all that are to be its own at first, or is dead
	look    chan struct{} // for run: join again
	dirty   chan struct{} // for store
	lost    chan struct{} // for locate
	asking  sync.Mutex    // of quick
	quick   *conn         // to the coordinator, for what is answered at once
	slow    *conn         // for joining
	missing time.Time     // since when a topic of the group is not there; only run uses it

	mu          sync.Mutex
	id          string
	generation  int32
	coordinator string
	heard       time.Time // of the coordinator
	lanes       map[unit]*lane
	giving      []*lane // given up, but for a commit
	sources     map[pubsub.Place]*source
	dead        error
	fenced      bool
	joining     bool // the group may have a generation already that we have not heard of
	rejoin      bool
	hurry       bool          // store is not to wait for more
	news        chan struct{} // closed when something was committed, or the member is dead
	fetchers    map[fetcherKey]*fetcher
	lastLane    int32
	lastGen     uint32
	planned     int            // units that the last plan has shared, -1 = another member looks whether there are more
	plain       bool           // commits have no metadata: the broker allows too little
	left        map[unit]stood // where a live tail stood that has lost a partition
}

// A lane is a unit that is ours.
type lane struct {
	id     int32
	gen    uint32
	unit   unit
	place  pubsub.Place
	src    *source // nil while nobody reads it
	logs   []*plog
	losing bool
	gone   bool
	limit  *time.Timer // of losing
}

// A stood is where a live tail stood in a partition, and in which topic of that name.
type stood struct {
	id     sarama.Uuid
	offset int64
}

// member returns the membership of a consumer, and makes it if there is none.
func (d *driver) member(key memberKey, place pubsub.Place, def *group, s *source) (*member, error) {
	for {
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			return nil, errGone
		}
		for k, m := range d.members {
			if k != key && m.isOver() {
				delete(d.members, k)
			}
		}
		m := d.members[key]
		if m == nil || m.isDead() {
			m = d.newMember(key, place, def, m)
			d.members[key] = m
			m.mu.Lock()
			m.working.Add(3)
			go m.run()
			go m.store()
			go m.locate()
		} else {
			m.mu.Lock()
		}
		ok := m.dead == nil
		if ok {
			m.attach(s)
		}
		m.mu.Unlock()
		d.mu.Unlock()
		if ok {
			return m, nil
		}
	}
}

// newMember makes the membership of a consumer, after another one that is dead, or nil.
func (d *driver) newMember(key memberKey, place pubsub.Place, def *group, old *member) *member {
	m := &member{
		d: d, key: key, place: place, group: groupID(place), def: def, solo: place.Group == pubsub.Broadcast,
		joined: make(chan struct{}), whole: make(chan struct{}), look: make(chan struct{}, 1), dirty: make(chan struct{}, 1), lost: make(chan struct{}, 1), heard: time.Now(),
		lanes: map[unit]*lane{}, sources: map[pubsub.Place]*source{}, news: make(chan struct{}), fetchers: map[fetcherKey]*fetcher{}, generation: -1, left: map[unit]stood{},
	}
	if old != nil { // the broker knows us still
		m.id = old.identity()
		def.grows = def.grows || old.def.grows // the engine asks for nothing to be made when it opens a session again
	}
	m.life, m.stop = context.WithCancel(d.life)
	return m
}

func (m *member) isDead() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead != nil
}

// isOver says that the group does without this member, and that it does not come back.
func (m *member) isOver() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead != nil && len(m.sources) == 0 && time.Since(m.heard) > 2*m.d.cfg.SessionTimeout
}

func (m *member) identity() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fenced {
		return ""
	}
	return m.id
}

// attach lets a source have the lanes of its place. mu is held.
func (m *member) attach(s *source) {
	s.m = m
	m.sources[s.place] = s
	for _, ln := range m.lanes {
		if ln.place == s.place && !ln.losing && ln.src == nil && ln.logs[0].claimed {
			m.gain(ln, s)
		}
	}
}

// gain tells a source of a lane. mu is held.
func (m *member) gain(ln *lane, s *source) {
	m.lastGen++
	ln.src, ln.gen = s, m.lastGen
	s.mine = append(s.mine, ln)
	s.tell(pubsub.LaneEvent{Lane: ln.id, Gen: ln.gen, Kind: pubsub.LaneGained})
	m.find()
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// find lets locate look. mu is held.
func (m *member) find() {
	poke(m.lost)
	for _, f := range m.fetchers {
		poke(f.kick)
	}
}

// run joins the group and stays in it until it is told to end, or it cannot.
func (m *member) run() {
	defer m.working.Done()
	var err error
	if m.solo {
		err = m.watchAlone()
	} else {
		for err == nil {
			if err = m.join(); err == nil {
				err = m.beat()
			}
		}
	}
	m.die(err)
}

// die ends all sessions of the member. What it has goes back when they are closed.
func (m *member) die(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead != nil {
		return
	}
	m.dead = err
	m.fenced = m.fenced || errors.Is(err, errFenced)
	for _, s := range m.sources {
		s.dead = err
		s.wake()
	}
	shut(m.joined)
	shut(m.whole)
	m.tidings()
	m.stop()
}

// tidings lets everybody look who waits for commits. mu is held.
func (m *member) tidings() {
	close(m.news)
	m.news = make(chan struct{})
}
