package redisstreams

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
	"github.com/omnibus-go/omnibus/pubsub"
)

const adapter = "redis"

// A driver is a client, and the sessions that have connections of their own.
type driver struct {
	cfg        Config
	tls        *tls.Config
	client     redis.UniversalClient
	caps       pubsub.Capabilities
	id         string        // of this driver among all, for the server's idempotence
	idempotent bool          // the server has XADD IDMP
	numbers    atomic.Uint64 // of consumers
	members    sync.Map      // by the engine's name of a consumer: when it was here first

	mu       sync.Mutex
	sessions map[session]struct{}
	topics   map[string]int   // partitions of those that were seen
	tails    map[tail]entryID // where live tails go on
	closed   bool
	later    *later
}

// A session ends when the driver closes.
type session interface{ end(ctx context.Context) }

var (
	_ pubsub.Driver      = (*driver)(nil)
	_ pubsub.Browser     = (*driver)(nil)
	_ pubsub.Lagger      = (*driver)(nil)
	_ pubsub.Seeker      = (*driver)(nil)
	_ pubsub.Purger      = (*driver)(nil)
	_ pubsub.Waiter      = (*driver)(nil)
	_ pubsub.Rescheduler = (*driver)(nil)
	_ pubsub.Lister      = (*driver)(nil)
)

// A brokerError is what this adapter itself finds.
type brokerError struct {
	code  pubsub.Code
	final bool
	text  string
}

func (e *brokerError) Error() string { return "redisstreams: " + e.text }

func says(code pubsub.Code, format string, args ...any) error {
	return &brokerError{code, true, fmt.Sprintf(format, args...)}
}

var (
	errGone  = &brokerError{pubsub.ErrUnavailable, false, "the session is closed"}
	errDown  = &brokerError{pubsub.ErrUnavailable, false, "not connected"}
	errStale = &brokerError{pubsub.ErrLeaseLost, true, "the lease is over"}
)

// Name implements pubsub.Driver.
func (d *driver) Name() string { return adapter }

// Capabilities implements pubsub.Driver.
func (d *driver) Capabilities() pubsub.Capabilities { return d.caps }

// Classify implements pubsub.Driver.
func (d *driver) Classify(err error) (pubsub.Code, bool) { return classify(err) }

// classifySaid reads the word with which an error of the server begins.
func classifySaid(text string) (pubsub.Code, bool) {
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "NOAUTH", "WRONGPASS":
		return pubsub.ErrUnauthenticated, true
	case "NOPERM":
		return pubsub.ErrDenied, true
	case "NOGROUP", "UNBLOCKED":
		return pubsub.ErrNotFound, true
	case "BUSYGROUP", "WRONGTYPE":
		return pubsub.ErrConflict, true
	case "OOM", "MISCONF":
		return pubsub.ErrExhausted, false // until there is room again: a consumer waits for that, a message is refused
	case "LOADING", "READONLY", "MASTERDOWN", "NOREPLICAS", "MOVED", "ASK", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOGOODSLAVE", "UNKILLABLE":
		return pubsub.ErrUnavailable, false
	case "ERR":
		switch {
		case strings.HasPrefix(rest, "unknown command"):
			return pubsub.ErrUnsupported, true
		case strings.Contains(rest, "no such key"):
			return pubsub.ErrNotFound, true
		case strings.HasPrefix(rest, "max number of clients"):
			return pubsub.ErrUnavailable, false
		case strings.Contains(rest, "lements are too large"), strings.Contains(rest, "string exceeds maximum allowed size"):
			return pubsub.ErrTooLarge, true
		case strings.Contains(rest, "AUTH"), strings.Contains(rest, "invalid password"):
			return pubsub.ErrUnauthenticated, true
		case strings.Contains(rest, "DB index is out of range"):
			return pubsub.ErrInvalid, true
		}
	}
	return pubsub.ErrBroker, true
}

func classify(err error) (pubsub.Code, bool) {
	if e, ok := errors.AsType[*brokerError](err); ok {
		return e.code, e.final
	}
	if e, ok := errors.AsType[redis.Error](err); ok && !errors.Is(err, redis.Nil) {
		return classifySaid(e.Error())
	}
	text := err.Error()
	switch {
	case brokerurl.Untrusted(err), strings.Contains(text, "remote error: tls:"):
		return pubsub.ErrUnauthenticated, true
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		return pubsub.ErrInvalid, true
	}
	return pubsub.ErrUnavailable, false // the network's
}

// add registers a session, so that it ends with the driver.
func (d *driver) add(s session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errGone
	}
	d.sessions[s] = struct{}{}
	return nil
}

func (d *driver) remove(s session) {
	d.mu.Lock()
	delete(d.sessions, s)
	d.mu.Unlock()
}

// member is the name of a consumer among its group: it begins with when the consumer was here first, also if it has lost its session since.
func (d *driver) member(name string) string {
	since, _ := d.members.LoadOrStore(name, fmt.Sprintf("%020d.%s", time.Now().UnixNano(), name))
	return since.(string)
}

// partitions finds a topic.
func (d *driver) partitions(ctx context.Context, topic string) (int, error) {
	d.mu.Lock()
	n := d.topics[topic]
	d.mu.Unlock()
	if n > 0 {
		return n, nil
	}
	t, err := d.lookup(ctx, topic)
	if err != nil {
		return 0, err
	}
	if !t.there {
		return 0, unroutable(topic)
	}
	d.mu.Lock()
	d.topics[topic] = t.partitions
	d.mu.Unlock()
	return t.partitions, nil
}

func unroutable(topic string) error {
	return says(pubsub.ErrUnroutable, "there is no topic %q", topic)
}

// forget lets the next publish look for a topic again.
func (d *driver) forget(topic string) {
	d.mu.Lock()
	delete(d.topics, topic)
	d.mu.Unlock()
}

// Ping implements pubsub.Driver.
func (d *driver) Ping(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	return await(ctx, func() error {
		return d.eachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return c.Ping(ctx).Err() })
	})
}

// probe asks the server whether it knows a command.
func (d *driver) probe(ctx context.Context, args ...any) error {
	r, err := d.ask(ctx, args...)
	if err == nil && r.list() == 1 && r.list() < 0 { // COMMAND INFO of what there is not
		err = errDown
	}
	return err
}

// As implements pubsub.Driver: target may be a *redis.UniversalClient. It is of protocol 2.
func (d *driver) As(target any) bool {
	t, ok := target.(*redis.UniversalClient)
	if ok {
		*t = d.client
	}
	return ok
}

// Close implements pubsub.Driver. What sources still hold goes back.
func (d *driver) Close(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	all := d.sessions
	d.sessions = nil
	later := d.later
	d.mu.Unlock()
	for s := range all {
		s.end(ctx)
	}
	if later != nil {
		later.end()
	}
	return d.client.Close()
}

// number reads a setting of a hash; 0 if it is none.
func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
