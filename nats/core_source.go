package nats

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A coreSource is one subscription on a connection of its own. The server pushes, so the only way to hold no more than asked for is to stop
// reading: what is not read lies in the network's buffers and the server's, until the server takes us for a slow consumer and closes the
// connection. That is an error of the session, which everybody can see; nothing is dropped in silence.
//
//	connection → Read, as much as can be no more messages than Recv asks for → the client's parser → parsed → here → Recv
type coreSource struct {
	*link
	d      *driver
	spec   pubsub.SourceSpec
	sub    *client.Subscription
	gen    uint32
	least  int              // bytes of the shortest message on the wire
	parsed chan *client.Msg // between the parser and the next Read
	ready  chan struct{}    // one token: look again, Recv
	room   chan struct{}    // one token: look again, Read
	stop   chan struct{}    // closed when it is closed

	mu      sync.Mutex
	live    bool // reading is bounded
	gained  bool // told
	quiet   bool
	here    []*client.Msg
	bytes   int64         // of those
	want    int           // what may be here, as Recv asks
	most    int64         // the same in bytes
	out     int           // with the engine
	read    int64         // times that something was read
	since   time.Time     // reading has stopped; zero = it has not
	stall   time.Duration // how long it had stopped when it last was for long
	stalled time.Time     // when that ended
	drained chan struct{} // closed when a quiet source is empty
	dead    error
}

const (
	parsedRoom  = 4096                   // more than the shortest messages in one buffer of the client (32 KiB) and a record of TLS (16 KiB)
	longStall   = 100 * time.Millisecond // not read for so long and cut off: a slow consumer
	lately      = time.Minute            // what the server had sent before it cut us off is read within that
	clientDrain = 10 * time.Second       // then the client ends a subscription that is drained
)

// OpenSource implements pubsub.Driver.
func (d *coreDriver) OpenSource(ctx context.Context, spec pubsub.SourceSpec) (pubsub.Source, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if spec.From.Kind != pubsub.PlaceMain {
		return nil, says(pubsub.ErrUnsupported, "a group has no place of its own: %s", coreKeepsNothing)
	}
	s := &coreSource{
		d: d.links, spec: spec, gen: d.sources.Add(1), least: len("MSG  1 0\r\n\r\n") + len(spec.From.Topic), parsed: make(chan *client.Msg, parsedRoom),
		ready: make(chan struct{}, 1), room: make(chan struct{}, 1), stop: make(chan struct{}), drained: make(chan struct{}),
	}
	at, err := d.links.dial(ctx, d.links.others(d.links.now()), s.meter)
	if err != nil {
		return nil, err
	}
	s.link = at
	if err = d.links.add(at, s); err == nil {
		if spec.From.Group == pubsub.Broadcast {
			s.sub, err = at.nc.ChanSubscribe(spec.From.Topic, s.parsed)
		} else {
			s.sub, err = at.nc.ChanQueueSubscribe(spec.From.Topic, queueOf(spec.From), s.parsed)
		}
	}
	if err == nil {
		err = flush(ctx, at.nc) // what comes before the answer is read unbounded: it is what was published in this moment
	}
	if err == nil && errors.Is(at.nc.LastError(), client.ErrPermissionViolation) {
		err = at.nc.LastError()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	s.mu.Lock()
	s.live = true
	s.mu.Unlock()
	go s.watch()
	return s, nil
}

// queueOf is the queue group of a group. The server counts members of one name as one group where their subjects overlap, and those of a topic
// and of a pattern are two, so a pattern's has a name of its own. A concrete topic's is the group's name: foreign members join by it.
func queueOf(p pubsub.Place) string {
	if pubsub.IsPattern(p.Topic) {
		return durable(p, 0)
	}
	return p.Group
}

// meter is an option of the client: reading goes through the source, and it judges by itself whether the connection lives.
func (s *coreSource) meter(o *client.Options) error {
	o.MaxPingsOut = 1 << 30 // answers lie behind what is not read
	dial := o.CustomDialer
	o.CustomDialer = dialer(func(network, address string) (net.Conn, error) {
		c, err := dial.Dial(network, address)
		if err != nil {
			return nil, err
		}
		return &meteredConn{Conn: c, s: s, closed: make(chan struct{})}, nil
	})
	return nil
}

// A meteredConn reads no more than its source has room for.
type meteredConn struct {
	net.Conn
	s      *coreSource
	once   sync.Once
	closed chan struct{}
}

// Read implements net.Conn. When it is called, all that was read before is parsed.
func (c *meteredConn) Read(p []byte) (int, error) {
	for {
		if n := c.s.admit(len(p)); n > 0 {
			return c.Conn.Read(p[:n])
		}
		select {
		case <-c.s.room:
		case <-c.closed:
			return 0, net.ErrClosed
		}
	}
}

// Close implements net.Conn.
func (c *meteredConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// admit takes in what was parsed, and says how many bytes may be read now: they cannot be more messages than there is room for.
func (s *coreSource) admit(most int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gather()
	s.read++
	switch room := s.want - len(s.here); {
	case !s.live:
	case room > 0 && s.bytes < s.most:
		most = min(most, room*s.least)
	default:
		if s.since.IsZero() {
			s.since = time.Now()
		}
		return 0
	}
	s.readsOn()
	return most
}

// readsOn notes that reading goes on, or will never. mu is held.
func (s *coreSource) readsOn() {
	if s.since.IsZero() {
		return
	}
	if d := time.Since(s.since); d > longStall {
		s.stall, s.stalled = d, time.Now()
	}
	s.since = time.Time{}
}

// gather takes in what was parsed. mu is held.
func (s *coreSource) gather() {
	for {
		select {
		case m := <-s.parsed:
			if topic := m.Subject; pubsub.IsPattern(s.spec.From.Topic) && (!pubsub.MatchPattern(s.spec.From.Topic, topic) || private(topic)) {
				continue
			}
			s.here = append(s.here, m)
			s.bytes += int64(m.Size())
		default:
			if len(s.here) > 0 {
				wake(s.ready)
			}
			return
		}
	}
}

// private says whether a subject is the server's, or one of somebody's answers: no pattern is meant to cover those.
func private(subject string) bool {
	return strings.HasPrefix(subject, "$") || strings.HasPrefix(subject, client.InboxPrefix)
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Recv implements pubsub.Source. What has come is handed out also when the connection is gone.
func (s *coreSource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	for {
		s.mu.Lock()
		if !s.gained {
			s.gained = true
			s.mu.Unlock()
			return 0, []pubsub.LaneEvent{{Gen: s.gen, Kind: pubsub.LaneGained}}, nil
		}
		s.want, s.most = min(len(buf), s.spec.MaxInFlight-s.out), maxBytes
		n := 0
		if ctx.Err() == nil {
			n = s.fill(buf[:max(s.want, 0)], maxBytes)
		}
		err := s.dead
		if len(s.here) > 0 {
			err = nil
		}
		s.mu.Unlock()
		wake(s.room)
		if n > 0 || err != nil {
			return n, nil, err
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// fill hands out what is here. What it leaves of the room stays open. mu is held.
func (s *coreSource) fill(buf []pubsub.Record, maxBytes int64) (n int) {
	for n < len(buf) && len(s.here) > 0 && (n == 0 || maxBytes > 0) {
		m := s.here[0]
		s.here[0], s.here = nil, s.here[1:]
		buf[n] = pubsub.Record{Msg: decode(m), Topic: m.Subject, Token: pubsub.Token{Gen: s.gen, Ref: m}}
		s.bytes -= int64(m.Size())
		maxBytes -= int64(m.Size())
		n++
	}
	s.out += n
	s.want -= n
	s.most = maxBytes
	s.emptied()
	return n
}

// emptied tells Quiesce that all is handed out. mu is held.
func (s *coreSource) emptied() {
	if s.quiet && len(s.here) == 0 {
		select {
		case <-s.drained:
		default:
			close(s.drained)
		}
	}
}

// Settle implements pubsub.Source. It only makes room; what an earlier session delivered made none here.
func (s *coreSource) Settle(_ context.Context, list []pubsub.Settlement, _ []error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		if list[i].Token.Gen == s.gen {
			s.out--
		}
	}
	wake(s.ready)
	return nil
}

// Renew implements pubsub.Source: there are no leases.
func (s *coreSource) Renew(context.Context, []pubsub.Renewal, []error) error { return nil }

// Sync implements pubsub.Source: nobody is told of a settlement.
func (s *coreSource) Sync(context.Context) error { return nil }

// LaneDone implements pubsub.Source: the lane is never taken away.
func (s *coreSource) LaneDone(context.Context, pubsub.LaneEvent) error { return nil }

// Quiesce implements pubsub.Source. It leaves the group, and returns when Recv has handed out what the server had sent before.
func (s *coreSource) Quiesce(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	begin := time.Now()
	if err := s.sub.Drain(); err != nil {
		return err
	}
	if err := s.nc.FlushWithContext(ctx); err != nil {
		return err
	}
	if took := time.Since(begin); took > clientDrain {
		return slow("reading what the server had sent took %v, and the client gives up after %v", took, clientDrain)
	}
	s.mu.Lock()
	s.gather()
	s.quiet = true
	s.emptied()
	s.mu.Unlock()
	select {
	case <-s.drained:
		return nil
	case <-s.stop:
		return errGone
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watch ends the session when nothing has come for too long although it was read: the client sends a PING each pingInterval.
func (s *coreSource) watch() {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	silent, seen := 0, int64(0)
	for {
		select {
		case <-tick.C:
		case <-s.stop:
			return
		}
		s.mu.Lock()
		silent++
		if s.read != seen || !s.since.IsZero() {
			silent, seen = 0, s.read
		}
		s.mu.Unlock()
		if silent > 2 {
			s.die(client.ErrStaleConnection)
			return
		}
	}
}

// complain implements complainer.
func (s *coreSource) complain(err error) {
	switch {
	case errors.Is(err, client.ErrSlowConsumer):
		s.die(slow("the client had no room for what it had read"))
	case errors.Is(err, client.ErrPermissionViolation):
		s.die(err)
	}
}

// die implements session.
func (s *coreSource) die(err error) {
	s.mu.Lock()
	first := s.dead == nil
	if first {
		s.gather()
		s.readsOn()
		if _, ours := errors.AsType[*brokerError](err); time.Since(s.stalled) < lately && (!ours || errors.Is(err, errDown)) {
			err = slow("the connection ended after it had not been read for %v, since no more may be held: %w", s.stall.Round(time.Millisecond), err)
		}
		s.dead = err
		close(s.stop)
	}
	s.mu.Unlock()
	wake(s.ready)
	if first {
		s.nc.Close()
	}
}

// Close implements pubsub.Source.
func (s *coreSource) Close(context.Context) error {
	s.mu.Lock()
	alive := s.dead == nil
	s.mu.Unlock()
	s.d.remove(s)
	s.die(errGone)
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.here); alive && n > 0 {
		return says(pubsub.ErrTimeout, "%d messages that had come are lost: core NATS takes nothing back", n)
	}
	return nil
}

// RecordAs implements pubsub.RecordAser: target may be a **nats.Msg.
func (s *coreSource) RecordAs(t pubsub.Token, target any) bool {
	m, ok := target.(**client.Msg)
	from, have := t.Ref.(*client.Msg)
	if ok && have {
		*m = from
	}
	return ok && have
}
