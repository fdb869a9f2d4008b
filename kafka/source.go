package kafka

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A source reads the lanes of one place that its member has. Its fields are guarded by the member's mu.
type source struct {
	d     *driver
	m     *member
	place pubsub.Place
	spec  pubsub.SourceSpec
	ready chan struct{} // one token: look again

	dead      error
	closed    bool
	quiet     bool
	events    []pubsub.LaneEvent
	unsettled int
	acked     int     // and not committed
	short     bool    // there was more than room for it
	mine      []*lane // that it reads
	from      int     // of mine: the one to begin with, so that all get their turn

	raw    []entry // what Recv has handed out, to be decoded without the lock; only Recv uses it, and reader
	reader reader
}

// OpenSource implements pubsub.Driver.
func (d *driver) OpenSource(ctx context.Context, spec pubsub.SourceSpec) (pubsub.Source, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	place := spec.From
	if place.Kind == pubsub.PlaceRetry && tierIndex(place.Tier) < 0 || place.Kind == pubsub.PlaceDead || place.Kind == pubsub.PlaceState {
		return nil, says(pubsub.ErrUnsupported, "what is sent to a group alone comes with the group's other messages, and dead letters are browsed")
	}
	var def *group
	var err error
	if place.Group == pubsub.Broadcast {
		def, err = d.liveTail(ctx, spec)
	} else {
		def, err = d.ensureGroup(ctx, spec)
	}
	if err != nil {
		return nil, err
	}
	s := &source{d: d, place: place, spec: spec, ready: make(chan struct{}, 1), reader: reader{many: true}}
	key := memberKey{place.Topic, place.Group, spec.Member}
	m, err := d.member(key, pubsub.Place{Topic: place.Topic, Group: place.Group}, def, s)
	if err != nil {
		return nil, err
	}
	select {
	case <-m.joined:
		handover := time.NewTimer(handoverWithin)
		defer handover.Stop()
		select {
		case <-m.whole:
		case <-handover.C:
		case <-ctx.Done():
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	m.mu.Lock()
	if err == nil {
		err = s.dead
	}
	m.mu.Unlock()
	if err != nil {
		return nil, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// handoverWithin is how long a member that has joined waits for what others are to give up for it: they do so at once, but for what a handler holds up.
const handoverWithin = 3 * time.Second

// liveTail is a group that is no group: it begins now.
func (d *driver) liveTail(ctx context.Context, spec pubsub.SourceSpec) (*group, error) {
	g := &group{definition: &definition{AckWait: spec.AckWait}, topics: map[string]topicInfo{}}
	if pubsub.IsPattern(spec.From.Topic) {
		all, err := d.describe(ctx, nil)
		if err != nil {
			return nil, err
		}
		for name, info := range all {
			if pubsub.MatchPattern(spec.From.Topic, name) {
				g.topics[name] = info
			}
		}
	} else {
		m := spec.Manage
		if m == pubsub.Off {
			m = pubsub.Verify
		}
		info, err := d.ensureTopic(ctx, pubsub.TopicSpec{Name: spec.From.Topic}, m)
		if err != nil {
			return nil, err
		}
		g.topics[spec.From.Topic] = info
	}
	var err error
	g.Start, err = d.startOffsets(ctx, pubsub.FromNow(), g.topics)
	g.Topics = idsOf(g.Start, g.topics)
	return g, err
}

func (s *source) wake() { poke(s.ready) }

func (s *source) tell(ev pubsub.LaneEvent) {
	s.events = append(s.events, ev)
	s.wake()
}

// Recv implements pubsub.Source.
func (s *source) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	for {
		s.m.mu.Lock()
		if s.dead != nil {
			err := s.dead
			s.m.mu.Unlock()
			return 0, nil, err
		}
		events := s.events
		s.events = nil
		n := 0
		if !s.quiet && ctx.Err() == nil {
			n = s.fill(buf, maxBytes)
		}
		s.m.mu.Unlock()
		if n > 0 {
			for i := range n {
				buf[i].Msg = s.reader.message(&s.raw[i])
			}
			clear(s.raw[:n])
		}
		if n > 0 || len(events) > 0 {
			return n, events, nil
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// fill hands out what has come, a lane at a time. What is acked and not committed takes room: it comes again after a crash. Of several lanes one has
// two thirds of it at most, so that a handler which is stuck does not stop them all. mu is held.
func (s *source) fill(buf []pubsub.Record, maxBytes int64) (n int) {
	free, acked := s.room()
	if s.short = free <= 0; s.short && acked > 0 {
		s.m.hurry = true
		poke(s.m.dirty)
	}
	if len(s.raw) < len(buf) {
		s.raw = make([]entry, len(buf))
	}
	free = min(free, len(buf))
	for i := range s.mine {
		ln := s.mine[(s.from+i)%len(s.mine)]
		if ln.losing {
			continue
		}
		most := free
		if len(s.mine) > 1 {
			if share := n + (2*s.spec.MaxInFlight+2)/3 - ln.held(); share < most {
				most, s.short = share, true
			}
		}
		for _, l := range ln.logs {
			for n < most && (n == 0 || maxBytes > 0) && l.ready() {
				if size, ok := s.next(l, &buf[n], &s.raw[n]); ok {
					maxBytes -= size
					n++
				}
			}
			s.m.hungry(l)
		}
	}
	s.from++
	s.unsettled += n
	return n
}

// room is how many more messages the source may hand out, and how many have been acked in it and not committed. mu is held.
func (s *source) room() (free, acked int) {
	if s.spec.AllInFlight == 0 {
		return s.spec.MaxInFlight - s.unsettled - s.acked, s.acked
	}
	free = s.spec.AllInFlight
	for _, o := range s.m.sources {
		if o.spec.AllInFlight > 0 {
			free -= o.unsettled + o.acked
			acked += o.acked
		}
	}
	return free, acked
}

// roomy wakes those for which there was no room. mu is held.
func (m *member) roomy() {
	for _, s := range m.sources {
		if s.short {
			s.wake()
		}
	}
}

// ack counts one more that is to be committed. mu is held.
func (s *source) ack(l *plog) {
	if s.m.solo {
		return
	}
	l.acked++
	if s.acked++; s.acked >= max(s.spec.MaxInFlight, s.spec.AllInFlight)/4 {
		s.m.hurry = true
	}
}

// committed counts those that are. mu is held.
func (s *source) committed(l *plog, n int) {
	l.acked -= n
	s.acked -= n
}

// next hands out one message. It is decoded later, without the lock. mu is held.
func (s *source) next(l *plog, r *pubsub.Record, e *entry) (size int64, ok bool) {
	var number uint64
	var f *flight
	if len(l.back) > 0 {
		number = l.back[0]
		l.back = l.back[1:]
		if f = l.track.at(number); f == nil || f.state != flightBack {
			return 0, false
		}
		f.state = flightOut
		l.track.out++
		*e = entry{f.rec, f.time, f.offset, sizeOf(f.rec)}
	} else {
		*e = l.pending[0]
		l.pending[0] = entry{}
		l.pending = l.pending[1:]
		l.bytes -= e.bytes
		if l.skips(e.offset) || l.each && isDefinition(e.rec) {
			l.track.add(flight{offset: e.offset, state: flightDone})
			s.m.touch(l)
			return 0, false
		}
		number = l.track.add(flight{rec: e.rec, time: e.time, offset: e.offset, failed: l.failed[e.offset], state: flightOut})
		f = l.track.at(number)
	}
	*r = pubsub.Record{Topic: s.place.Topic, Failed: f.failed, Pos: pubsub.NewPosition(positionKind, f.offset, l.store, l.partition)}
	if l.store == 0 {
		r.Topic = l.topic
	}
	if f.offset == l.counted {
		r.Deliveries = l.starts + 1
	}
	r.Token = pubsub.Token{Lane: l.ln.id, Gen: l.ln.gen, A: uint64(f.offset), B: number, Ref: l}
	return e.bytes, true
}

// Settle implements pubsub.Source.
func (s *source) Settle(_ context.Context, list []pubsub.Settlement, errs []error) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.dead != nil {
		return s.dead
	}
	for i := range list {
		x := &list[i]
		l, f := s.find(&x.Token)
		switch {
		case f == nil:
			errs[i] = errStale
			continue
		case x.As == pubsub.SettleAck:
			l.track.done(x.Token.B)
			s.ack(l)
			s.m.touch(l)
		case x.As == pubsub.SettleRelease:
			f.state, f.failed = flightBack, x.Failed
			f.keep()
			l.track.out--
			l.giveBack(x.Token.B)
			s.m.touch(l)
		default:
			errs[i] = says(pubsub.ErrUnsupported, "Kafka delays nothing")
			continue
		}
		s.unsettled--
		if l.each {
			poke(s.m.dirty)
		}
	}
	s.m.roomy()
	return nil
}

// held is how many messages of a lane are with the engine. mu is held.
func (ln *lane) held() (n int) {
	for _, l := range ln.logs {
		n += l.track.out
	}
	return n
}

// giveBack lets a message be delivered again, in its place.
func (l *plog) giveBack(number uint64) {
	i := len(l.back)
	for i > 0 && l.back[i-1] > number {
		i--
	}
	l.back = append(l.back, 0)
	copy(l.back[i+1:], l.back[i:])
	l.back[i] = number
	if l.ln.src != nil {
		l.ln.src.wake()
	}
}

// find returns what a token names, if it is still ours. mu is held.
func (s *source) find(t *pubsub.Token) (*plog, *flight) {
	l, ok := t.Ref.(*plog)
	if !ok || l.ln.gone || l.ln.src != s || l.ln.gen != t.Gen {
		return nil, nil
	}
	f := l.track.at(t.B)
	if f == nil || f.state != flightOut || f.offset != int64(t.A) {
		return nil, nil
	}
	return l, f
}

// Renew implements pubsub.Source: there are no leases, and the failures of what waits are committed.
func (s *source) Renew(ctx context.Context, list []pubsub.Renewal, errs []error) error {
	s.m.mu.Lock()
	if s.dead != nil {
		defer s.m.mu.Unlock()
		return s.dead
	}
	head := false
	touched := map[*lane]bool{}
	for i := range list {
		l, f := s.find(&list[i].Token)
		if f == nil {
			errs[i] = errStale
			continue
		}
		if f.failed == list[i].Failed {
			continue
		}
		f.failed = list[i].Failed
		f.keep()
		s.m.touch(l)
		if f == l.track.head() {
			head = true
			touched[l.ln] = true
		}
	}
	s.m.mu.Unlock()
	if !head {
		return nil
	}
	return s.m.settled(ctx, func(ln *lane) bool { return touched[ln] })
}

// Sync implements pubsub.Source.
func (s *source) Sync(ctx context.Context) error {
	return s.m.settled(ctx, func(ln *lane) bool { return ln.place == s.place })
}

// Quiesce implements pubsub.Source. What was fetched and not delivered is the log's.
func (s *source) Quiesce(context.Context) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.quiet = true
	return s.dead
}

// LaneDone implements pubsub.Source.
func (s *source) LaneDone(_ context.Context, losing pubsub.LaneEvent) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	for _, ln := range s.m.lanes {
		if ln.id == losing.Lane && ln.gen == losing.Gen && ln.losing && ln.src == s {
			s.m.drop(ln)
		}
	}
	return s.dead
}

// Close implements pubsub.Source. The last source of a member that is closed leaves the group.
func (s *source) Close(ctx context.Context) error {
	m := s.m
	m.mu.Lock()
	if s.closed {
		m.mu.Unlock()
		return nil
	}
	s.closed = true
	if s.dead == nil {
		s.dead = errGone
	}
	for _, ln := range slices.Clone(s.mine) {
		m.release(ln)
	}
	if m.sources[s.place] == s {
		delete(m.sources, s.place)
	}
	last := len(m.sources) == 0
	m.mu.Unlock()
	s.wake()
	if last {
		m.end(ctx, errGone)
	}
	return nil
}

// release lets a lane be as it was before it had a source, but for what is settled. mu is held.
func (m *member) release(ln *lane) {
	if ln.losing || m.dead != nil {
		m.drop(ln)
		return
	}
	next := m.newLane(ln.unit)
	for i, l := range ln.logs {
		n := next.logs[i]
		n.leader, n.committed, n.id = -1, l.committed, l.id
		at := l.prefix()
		text, counts := l.mark(false)
		k := parseMark(at, text)
		if counts {
			k.starts-- // it was not delivered
		}
		n.begin(at, k, !m.solo)
		m.touch(n)
	}
	m.detach(ln)
	ln.gone = true
	m.lanes[ln.unit] = next
	m.tidings()
}

// RecordAs implements pubsub.RecordAser: target may be a **sarama.ConsumerMessage.
func (s *source) RecordAs(t pubsub.Token, target any) bool {
	to, ok := target.(**sarama.ConsumerMessage)
	l, have := t.Ref.(*plog)
	if !ok || !have {
		return false
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	f := l.track.at(t.B)
	if f == nil || f.rec == nil {
		return false
	}
	*to = &sarama.ConsumerMessage{
		Headers: f.rec.Headers, Key: f.rec.Key, Value: f.rec.Value, Topic: l.topic, Partition: l.partition, Offset: f.offset, Timestamp: f.time,
	}
	return true
}
