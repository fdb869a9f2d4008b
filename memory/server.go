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
	// MaxBytes bounds all messages that are stored, each counted 200 bytes more than its size; 0 = 256 MiB. History goes first, the
	// oldest of it, and with it the memory of what was sent: that shortens the time in which a message that is sent again is
	// recognised. What a group needs is never dropped: then publishing fails with ErrExhausted.
	MaxBytes int64
	// MaxMessage bounds a message that is published, in bytes, see pubsub.Message.Size; 0 = 16 MiB. The server itself takes
	// pubsub.Headroom more, for dead letters.
	MaxMessage int64
}

const (
	defaultMaxBytes   = 256 << 20
	defaultMaxMessage = 16 << 20
	dedupWindow       = 2 * time.Minute
	positionKind      = 1
	entryCost         = 200 // bytes that a message takes besides its own, so that empty ones are bounded too
	tokenCost         = 64  // what is left of that when it is dropped
)

// A Server is a broker. Safe for concurrent use.
type Server struct {
	cfg  Config
	seed maphash.Seed

	start time.Time

	mu      sync.Mutex
	topics  map[string]*topic
	groups  map[pubsub.Place]*group // Topic is the group's topic or pattern
	private map[pubsub.Place]*place // of a group: quarantine, dead letters, what became of these, and what was sent to a pattern's group alone
	logs    []*partition            // all there are
	live    map[*driver]struct{}
	unused  []*chunk
	bytes   int64  // of all logs
	last    int64  // when the latest entry came
	stamp   uint64 // of deliveries: tells a token from an older one for the same message
	rr      int
	stirred []*lane // lanes with new messages
	faults  faults
}

// A place is where messages lie: a topic, or what a group has for itself. What is sent to a group alone lies in its topic's logs, so that it
// keeps its turn in its key; only where the group reads a pattern, which is no topic, there is a log for it.
type place struct {
	logs []*partition // each message is in one of them
	sent index        // of what came to this place
}

type topic struct {
	place
	spec    pubsub.TopicSpec
	bytes   int64
	deleted bool
}

// NewServer starts an empty broker.
func NewServer(cfg Config) *Server {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = defaultMaxBytes
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = defaultMaxMessage
	}
	return &Server{cfg: cfg, seed: maphash.MakeSeed(), start: time.Now(), topics: map[string]*topic{}, groups: map[pubsub.Place]*group{},
		private: map[pubsub.Place]*place{}, live: map[*driver]struct{}{}}
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
