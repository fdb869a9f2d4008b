package memory

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Config bounds a Server. The zero value is usable.
type Config struct {
	MaxBytes   int64 // all messages that are stored, each counted 200 bytes more than its size; 0 = 256 MiB. History goes first; what a group needs is never dropped: then publishing fails with ErrExhausted
	MaxMessage int64 // 0 = 16 MiB
}

const (
	defaultMaxBytes   = 256 << 20
	defaultMaxMessage = 16 << 20
	dedupWindow       = 2 * time.Minute
	positionKind      = 1
	entryCost         = 200 // bytes that a message takes besides its own, so that empty ones are bounded too
)

// A Server is a broker. Safe for concurrent use.
type Server struct {
	cfg  Config
	seed maphash.Seed

	mu      sync.Mutex
	topics  map[string]*topic
	groups  map[pubsub.Place]*group     // Topic is the group's topic or pattern
	private map[pubsub.Place]*partition // of a group: retries, quarantine, dead letters
	live    map[*driver]struct{}
	bytes   int64
	stamp   uint64 // of deliveries: tells a token from an older one for the same message
	rr      int
	stirred []*lane // lanes with new messages
	faults  faults
}

type topic struct {
	spec  pubsub.TopicSpec
	parts []*partition
	seen  map[pubsub.Dedup]sighting // nil until something is sent again
	asked time.Time                 // when it was used last
}

type sighting struct {
	at  time.Time
	pos pubsub.Position
}

// NewServer starts an empty broker.
func NewServer(cfg Config) *Server {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = defaultMaxMessage
	}
	return &Server{cfg: cfg, seed: maphash.MakeSeed(), topics: map[string]*topic{}, groups: map[pubsub.Place]*group{},
		private: map[pubsub.Place]*partition{}, live: map[*driver]struct{}{}}
}

// New opens a fresh broker of its own. Options that cannot be used are reported by every call of the Broker.
func New(opts *pubsub.Options) *pubsub.Broker {
	b, _ := NewServer(Config{}).Open(context.Background(), opts)
	return b
}

// Open connects a Broker to the server. Several may be open at once, like several processes.
func (s *Server) Open(ctx context.Context, opts *pubsub.Options) (*pubsub.Broker, error) {
	return pubsub.New(ctx, s.Driver(), opts)
}

// Driver is a new connection: what another process would have.
func (s *Server) Driver() pubsub.Driver {
	d := &driver{s: s, sources: map[*source]struct{}{}, producers: map[*producer]struct{}{}}
	s.mu.Lock()
	s.live[d] = struct{}{}
	s.mu.Unlock()
	return d
}

// A brokerError is what this broker says.
type brokerError struct {
	code  pubsub.Code
	final bool
	text  string
}

func (e *brokerError) Error() string { return "memory: " + e.text }

func says(code pubsub.Code, final bool, format string, args ...any) error {
	return &brokerError{code, final, fmt.Sprintf(format, args...)}
}

var (
	errGone  = &brokerError{pubsub.ErrUnavailable, false, "the session was dropped"}
	errDown  = &brokerError{pubsub.ErrUnavailable, false, "the broker is down"}
	errStale = &brokerError{pubsub.ErrLeaseLost, true, "the lease is over"}
)

// ensureTopic makes a topic, or checks the one that is there. mu is held.
func (s *Server) ensureTopic(spec pubsub.TopicSpec, m pubsub.Manage) error {
	if t := s.topics[spec.Name]; t != nil {
		if spec.Partitions != 0 && spec.Partitions != len(t.parts) {
			return says(pubsub.ErrConflict, true, "topic %q has %d partitions, not %d", spec.Name, len(t.parts), spec.Partitions)
		}
		return nil
	}
	if m != pubsub.Create {
		return says(pubsub.ErrNotFound, true, "there is no topic %q", spec.Name)
	}
	t := &topic{spec: spec}
	for i := range max(spec.Partitions, 1) {
		t.parts = append(t.parts, &partition{topic: spec.Name, index: int32(i), t: t})
	}
	s.topics[spec.Name] = t
	for _, g := range s.groups {
		if g.place.Kind == pubsub.PlaceMain && g.covers(spec.Name) {
			g.addTopic(t)
			g.rebalance()
		}
	}
	return nil
}

// ensureGroup makes a group, or checks the one that is there. mu is held.
func (s *Server) ensureGroup(place pubsub.Place, order pubsub.Order, ackWait time.Duration, start pubsub.Start, m pubsub.Manage) (*group, error) {
	if g := s.groups[place]; g != nil {
		if g.exclusive != order.Exclusive() || g.ackWait != ackWait {
			return nil, says(pubsub.ErrConflict, true, "group %q of %q has an ack wait of %v and exclusive=%v, not %v and %v; all its members must agree",
				place.Group, place.Topic, g.ackWait, g.exclusive, ackWait, order.Exclusive())
		}
		return g, nil
	}
	if m != pubsub.Create {
		// a place of ours comes with its group
		if place.Kind == pubsub.PlaceMain || s.groups[pubsub.Place{Topic: place.Topic, Group: place.Group}] == nil {
			return nil, says(pubsub.ErrNotFound, true, "there is no group %q of %q", place.Group, place.Topic)
		}
	}
	g := &group{s: s, place: place, exclusive: order.Exclusive(), ackWait: ackWait, start: start, created: time.Now()}
	if place.Kind == pubsub.PlaceMain {
		for _, t := range s.topics {
			if g.covers(t.spec.Name) {
				g.addTopic(t)
			}
		}
		g.start = pubsub.FromEarliest() // topics that appear later are covered from their beginning
		g.addLane(s.privateLog(pubsub.Place{Topic: place.Topic, Group: place.Group, Kind: pubsub.PlaceRetry}), true)
	} else {
		g.start = pubsub.FromEarliest()
		g.addLane(s.privateLog(place), true)
	}
	s.groups[place] = g
	return g, nil
}

func (s *Server) privateLog(p pubsub.Place) *partition {
	log := s.private[p]
	if log == nil {
		log = &partition{topic: p.Topic, private: true, keep: p.Kind == pubsub.PlaceDead}
		s.private[p] = log
	}
	return log
}

// store puts a message where it is to go. mu is held.
func (s *Server) store(o *pubsub.Out, now time.Time) (pubsub.Position, error) {
	size := o.Msg.Size()
	if size > s.cfg.MaxMessage {
		return pubsub.Position{}, says(pubsub.ErrTooLarge, true, "%d bytes, at most %d", size, s.cfg.MaxMessage)
	}
	size += entryCost
	var part *partition
	t := s.topics[o.To.Topic]
	if o.To.Kind == pubsub.PlaceMain {
		if t == nil {
			return pubsub.Position{}, says(pubsub.ErrUnroutable, true, "there is no topic %q", o.To.Topic)
		}
		if pos, dup := t.duplicate(o, now); dup {
			return pos, nil
		}
		part = t.parts[0]
		if n := len(t.parts); n > 1 {
			if o.Msg.Key != "" {
				part = t.parts[maphash.String(s.seed, o.Msg.Key)%uint64(n)]
			} else {
				s.rr++
				part = t.parts[s.rr%n]
			}
		}
	} else {
		if s.groups[pubsub.Place{Topic: o.To.Topic, Group: o.To.Group}] == nil {
			return pubsub.Position{}, says(pubsub.ErrUnroutable, true, "there is no group %q of %q", o.To.Group, o.To.Topic)
		}
		part = s.privateLog(pubsub.Place{Topic: o.To.Topic, Group: o.To.Group, Kind: o.To.Kind})
	}
	if s.bytes+size > s.cfg.MaxBytes && !s.makeRoom(size) {
		return pubsub.Position{}, says(pubsub.ErrExhausted, true, "%d of %d bytes are stored, all of them still needed", s.bytes, s.cfg.MaxBytes)
	}
	pos := part.append(entry{msg: o.Msg, dedup: o.Dedup, at: now, size: size})
	s.bytes += size
	if t != nil && t.seen != nil && o.To.Kind == pubsub.PlaceMain {
		t.seen[o.Dedup] = sighting{now, pos}
	}
	part.retain(s, now)
	return pos, nil
}

// duplicate looks for a message that is sent again. Most never are, so the tokens are indexed only once one was.
func (t *topic) duplicate(o *pubsub.Out, now time.Time) (pubsub.Position, bool) {
	if t.seen != nil && now.Sub(t.asked) > 2*dedupWindow {
		t.seen = nil
	}
	if !o.Again || o.Dedup == (pubsub.Dedup{}) {
		return pubsub.Position{}, false
	}
	if t.seen == nil {
		t.seen = map[pubsub.Dedup]sighting{}
		for _, p := range t.parts {
			for off := p.base; off < p.end; off++ {
				if e := p.at(off); now.Sub(e.at) < dedupWindow {
					t.seen[e.dedup] = sighting{e.at, p.position(off)}
				}
			}
		}
		t.asked = now
	}
	if now.Sub(t.asked) > dedupWindow {
		for d, s := range t.seen {
			if now.Sub(s.at) >= dedupWindow {
				delete(t.seen, d)
			}
		}
		t.asked = now
	}
	s, ok := t.seen[o.Dedup]
	return s.pos, ok && now.Sub(s.at) < dedupWindow
}

// makeRoom drops history, until size more bytes fit. mu is held.
func (s *Server) makeRoom(size int64) bool {
	for _, t := range s.topics {
		for _, p := range t.parts {
			for s.bytes+size > s.cfg.MaxBytes && p.dropOldest(s) {
			}
		}
	}
	return s.bytes+size <= s.cfg.MaxBytes
}
