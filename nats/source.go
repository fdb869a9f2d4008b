package nats

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A source reads the consumers of a place, each through a leg: the partitions, and the group's retries. It asks for no more than
// may be held: what is asked for, what lies here and what the engine has out are together at most MaxInFlight, but for what ask says.
type source struct {
	*link
	d     *driver
	spec  pubsub.SourceSpec
	group string               // where members of the group are told and asked of each other; "" = they are not
	here  *client.Subscription // to that
	ready chan struct{}        // one token: look again
	kick  chan struct{}        // the same for tend
	stop  context.CancelFunc
	ended chan struct{} // closed when tend has returned

	mu        sync.Mutex
	legs      []*leg
	events    []pubsub.LaneEvent
	dead      error
	quiet     bool
	peers     map[string]time.Time // other members, and when they were heard last
	greeted   time.Time
	oldest    *flight // all that is here and not settled, in the order of arrival
	newest    *flight
	unsettled int
	bytes     int64
	from      int                 // the leg to begin with, so that all get their turn
	acks      [recentAcks]sentAck // the last ones, a ring
	acked     int
	failed    map[uint64]int32 // failures of what waits, where no other member is
	reached   uint64           // of a live tail: the last message that has come
}

// A sentAck is one that the server may forget when it is killed.
type sentAck struct {
	to     string
	from   consumerName
	seq    uint64
	stored uint64 // when: a server that lost the end of its stream gives its numbers again
}

// A flight is a message that has come and is not settled.
type flight struct {
	leg        *leg
	gen        uint32
	msg        *client.Msg
	info       ackInfo
	lease      time.Time
	state      flightState
	prev, next *flight
}

type flightState uint8

const (
	flightHere flightState = iota // in its leg's buffer
	flightOut                     // with the engine
	flightDone
)

const recentAcks = 1024

var (
	bodyAck   = []byte("+ACK")
	bodyNak   = []byte("-NAK")
	bodyRenew = []byte("+WPI")
)

// OpenSource implements pubsub.Driver.
func (d *driver) OpenSource(ctx context.Context, spec pubsub.SourceSpec) (pubsub.Source, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if spec.Manage == pubsub.Off {
		spec.Manage = pubsub.Verify
	}
	at, err := d.connected(ctx)
	if err != nil {
		return nil, err
	}
	var names []consumerName
	broadcast := spec.From.Group == pubsub.Broadcast
	if broadcast {
		names, err = d.liveTail(ctx, spec)
	} else {
		names, err = d.ensureGroup(ctx, spec)
	}
	if err != nil {
		return nil, err
	}
	s := &source{
		link: at, d: d, spec: spec, peers: map[string]time.Time{}, failed: map[uint64]int32{}, ready: make(chan struct{}, 1), kick: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	var life context.Context
	life, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	if !broadcast && spec.From.Kind == pubsub.PlaceMain {
		s.group = d.names.member(spec.From)
		if s.here, err = at.nc.Subscribe(s.group, s.meet); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		ln := &leg{
			s: s, consumerName: name, live: broadcast, retry: spec.From.Kind == pubsub.PlaceMain && name.stream == d.names.work(),
			polls: spec.From.Kind == pubsub.PlaceQuarantine, drained: make(chan struct{}), finished: make(chan struct{}), done: d.doneBefore(name),
		}
		ln.exclusive = !broadcast && spec.From.Kind == pubsub.PlaceMain && !ln.retry && spec.Order.Exclusive()
		if err = ln.listen(); err != nil {
			break
		}
		s.legs = append(s.legs, ln)
	}
	if err == nil {
		err = d.add(at, s)
	}
	if err == nil {
		for _, ln := range s.legs {
			if ln.exclusive {
				err = errors.Join(err, ln.look(ctx))
			} else if !ln.retry {
				s.mu.Lock()
				err = errors.Join(err, ln.gain())
				s.mu.Unlock()
			}
		}
	}
	go s.tend(life)
	if err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	return s, nil
}

// liveTail makes a consumer of our own. It begins now, or where the session before stood that the same member had.
func (d *driver) liveTail(ctx context.Context, spec pubsub.SourceSpec) ([]consumerName, error) {
	info, err := d.ensureTopic(ctx, pubsub.TopicSpec{Name: spec.From.Topic}, spec.Manage)
	if err != nil {
		return nil, err
	}
	c := jetstream.ConsumerConfig{
		FilterSubjects: filters(spec.From.Topic, partsOf(info, spec.From.Topic)), AckPolicy: jetstream.AckExplicitPolicy, AckWait: spec.AckWait,
		MaxDeliver: -1, MaxAckPending: maxAckPending, MemoryStorage: true, InactiveThreshold: time.Minute,
	}
	c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, d.resume(spec.Member, info.State.LastSeq+1)
	made, err := d.now().js.CreateConsumer(ctx, d.names.stream, c)
	if err != nil {
		return nil, err
	}
	return []consumerName{{stream: d.names.stream, name: made.CachedInfo().Name}}, nil
}

// resume is where a live tail begins to read: at next, which is to come first, if it is new.
func (d *driver) resume(member string, next uint64) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, known := d.tails[member]; known {
		next = min(next, at) // a stream that was made anew has none of those
	}
	d.tails[member] = next
	return next
}

// stand remembers where a live tail stood whose session is broken: at the first message that is not settled. One that ends by itself is forgotten.
func (s *source) stand() {
	s.mu.Lock()
	broken, next := s.dead != nil, s.reached+1
	for f := s.oldest; f != nil; f = f.next {
		next = min(next, f.info.seq)
	}
	for seq := range s.failed { // what was given back and has not come again
		next = min(next, seq)
	}
	s.mu.Unlock()
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if !broken {
		delete(s.d.tails, s.spec.Member)
	} else if next > s.d.tails[s.spec.Member] {
		s.d.tails[s.spec.Member] = next
	}
}

func (s *source) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *source) look() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// die implements session: the connection is gone, or the consumer. There is nothing left to tend.
func (s *source) die(err error) {
	s.stop()
	s.mu.Lock()
	if s.dead == nil {
		s.dead = err
	}
	s.mu.Unlock()
	s.wake()
	s.look()
}

// owe tells the next link what this one could not: the last acks, once more, then who is to have the rest. A server that was killed has
// forgotten the acks of its last moments, and an exclusive group would wait for the leases of what is done. To a server that has not
// forgotten they say nothing; one that has forgotten the deliveries too delivers those again, and they are acked at once. The consumer of a live tail ends with
// its session.
func (s *source) owe() {
	if s.spec.From.Group == pubsub.Broadcast {
		return
	}
	var list []answer
	done := map[consumerName]map[uint64]uint64{}
	s.mu.Lock()
	for i := range s.acks {
		if f := s.acks[(s.acked+i)%len(s.acks)]; f.to != "" {
			list = append(list, answer{f.to, bodyAck})
			if done[f.from] == nil {
				done[f.from] = map[uint64]uint64{}
			}
			done[f.from][f.seq] = f.stored
		}
	}
	for f := s.oldest; f != nil; f = f.next {
		list = append(list, answer{f.msg.Reply, bodyNak})
	}
	s.mu.Unlock()
	s.d.owe(list, done)
}

// Recv implements pubsub.Source.
func (s *source) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	for {
		s.mu.Lock()
		if s.dead != nil {
			err := s.dead
			s.mu.Unlock()
			return 0, nil, err
		}
		events := s.events
		s.events = nil
		n := 0
		if ctx.Err() == nil {
			n = s.fill(buf, maxBytes)
		}
		s.ask()
		s.mu.Unlock()
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

// fill hands out what has come. mu is held.
func (s *source) fill(buf []pubsub.Record, maxBytes int64) (n int) {
	now := time.Now()
	for i := range s.legs {
		ln := s.legs[(s.from+i)%len(s.legs)]
		if ln.waits == waitsForPin || s.quiet {
			continue
		}
		for n < len(buf) && (n == 0 || maxBytes > 0) {
			f := ln.next()
			if f == nil {
				break
			}
			if !f.lease.After(now) { // it was not renewed in time: the server gives it to someone, behind what follows it here
				s.drop(f)
				if o := s.spec.Order; o != pubsub.OrderNone && o != pubsub.OrderByKeyLoose {
					s.dead = errLate
					return n
				}
				continue
			}
			r := &buf[n]
			*r = pubsub.Record{LeaseUntil: f.lease, Deliveries: int32(min(f.info.deliveries, 1<<30))}
			s.record(r, f)
			if ln.retry || !pubsub.IsPattern(s.spec.From.Topic) || pubsub.MatchPattern(s.spec.From.Topic, r.Topic) {
				f.state = flightOut
				maxBytes -= f.size()
				n++
				continue
			}
			s.drop(f) // the consumer's filters cannot tell it from what the pattern covers
			_ = s.nc.Publish(f.msg.Reply, bodyAck)
		}
	}
	s.from++
	return n
}

// record makes the engine's view of a flight.
func (s *source) record(r *pubsub.Record, f *flight) {
	r.Msg = decode(f.msg)
	store := int32(storeMain)
	r.Topic = topicOf(f.msg.Subject)
	if f.leg.stream == s.d.names.work() {
		store = storeWork
		r.Topic = s.spec.From.Topic
	}
	r.Pos = pubsub.NewPosition(positionKind, int64(f.info.seq), 0, store)
	if f.leg.retry {
		readRetry(f.msg.Header, r)
	}
	if n, ok := s.failed[f.info.seq]; ok {
		r.Failed = n
		delete(s.failed, f.info.seq)
	}
	r.Token = pubsub.Token{Lane: f.leg.lane, Gen: f.gen, A: f.info.seq, B: f.info.deliveries, Ref: f}
}

// hold adds a flight, drop removes it. mu is held.
func (s *source) hold(f *flight) {
	if f.prev = s.newest; f.prev == nil {
		s.oldest = f
	} else {
		f.prev.next = f
	}
	s.newest = f
	s.reached = max(s.reached, f.info.seq)
	s.unsettled++
	s.bytes += f.size()
}

func (s *source) drop(f *flight) {
	if f.prev == nil {
		s.oldest = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		s.newest = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.prev, f.next, f.state = nil, nil, flightDone
	f.leg.own--
	f.leg.gone++
	s.unsettled--
	s.bytes -= f.size()
}

// Quiesce implements pubsub.Source. It returns when all that the server had sent is here, and goes back.
func (s *source) Quiesce(ctx context.Context) error {
	s.mu.Lock()
	if s.dead != nil {
		defer s.mu.Unlock()
		return s.dead
	}
	already := s.quiet
	s.quiet = true
	s.mu.Unlock()
	if !already {
		for _, ln := range s.legs {
			ln.withdraw(ctx)
			if err := ln.sub.Drain(); err != nil {
				return err
			}
		}
	}
	for _, ln := range s.legs {
		select {
		case <-ln.drained:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	var suspects []copyOf
	if s.spec.From.Kind == pubsub.PlaceQuarantine {
		for f := s.oldest; f != nil; f = f.next {
			if f.state == flightHere {
				suspects = append(suspects, copyOf{f: f, at: len(suspects)})
			}
		}
	} else {
		s.release(func(f *flight) bool { return f.state == flightHere })
	}
	dead := s.dead
	s.mu.Unlock()
	if dead != nil || len(suspects) == 0 {
		return dead
	}
	return s.move(ctx, suspects, make([]error, len(suspects)))
}

// release hands back what match picks, in its order. mu is held.
func (s *source) release(match func(*flight) bool) {
	var back []*flight
	for f := s.oldest; f != nil; f = f.next {
		if match(f) {
			back = append(back, f)
		}
	}
	slices.SortFunc(back, func(a, b *flight) int { return cmp.Compare(a.info.seq, b.info.seq) })
	for _, f := range back {
		_ = s.nc.Publish(f.msg.Reply, bodyNak) // else it comes back when its lease ends
		f.leg.buf = slices.DeleteFunc(f.leg.buf, func(o *flight) bool { return o == f })
		s.drop(f)
	}
}

// giveBack hands back all that is not settled.
func (s *source) giveBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = true
	s.release(func(*flight) bool { return true })
}

// Close implements pubsub.Source. What is not settled goes back, at once if the connection stands or comes again.
func (s *source) Close(ctx context.Context) error {
	s.shut(ctx)
	s.stop()
	<-s.ended
	s.d.remove(s)
	var err error
	unsubscribe := func(sub *client.Subscription) {
		if e := sub.Unsubscribe(); e != nil && !errors.Is(e, client.ErrBadSubscription) && !errors.Is(e, client.ErrConnectionClosed) {
			err = errors.Join(err, e)
		}
	}
	if s.here != nil {
		unsubscribe(s.here)
	}
	for _, ln := range s.legs {
		unsubscribe(ln.sub)
	}
	return err
}

// shut hands all back, also what is on its way, and lets the next member have it.
func (s *source) shut(ctx context.Context) {
	if !s.nc.IsConnected() {
		s.owe()
	}
	if s.spec.From.Group == pubsub.Broadcast {
		s.stand()
	}
	s.giveBack()
	s.die(errGone)
	for _, ln := range s.legs {
		if s.nc.IsConnected() {
			ln.withdraw(ctx)
		}
		if s.nc.IsConnected() && ln.sub.Drain() == nil {
			select {
			case <-ln.drained:
			case <-ctx.Done():
			}
		}
	}
	for _, ln := range s.legs { // behind the naks: whoever comes next begins with those
		ln.leave(ctx)
	}
}

// RecordAs implements pubsub.RecordAser: target may be a **nats.Msg.
func (s *source) RecordAs(t pubsub.Token, target any) bool {
	m, ok := target.(**client.Msg)
	f, have := t.Ref.(*flight)
	if ok && have {
		*m = f.msg
	}
	return ok && have
}
