package rabbitmq

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	leaseMax   = 30 * time.Minute // the server's consumer_timeout
	frameSlack = 1 << 10          // of a frame: what the protocol adds to a message's header, generously
)

// A driver has two connections, one after the other: a broker that is short of memory or disk stops reading those that publish.
type driver struct {
	cfg     Config
	names   names
	caps    pubsub.Capabilities
	limit   atomic.Int64 // of a body
	in, out *line
	careful atomic.Bool // a message has ended the channel: the next ones go one by one, to find it

	mu       sync.Mutex
	topics   map[string]seenTopic
	lanes    map[pubsub.Place]int // queues of the groups that were seen; Kind is PlaceMain
	exchange bool                 // it was seen
	ladder   bool                 // it was seen
	later    bool                 // the exchanges of what has a delay were seen
}

// A seenTopic is what was found when a topic was looked for.
type seenTopic struct {
	parts int // or notOurs
	at    time.Time
}

var (
	_ pubsub.Driver  = (*driver)(nil)
	_ pubsub.Browser = (*driver)(nil)
	_ pubsub.Lagger  = (*driver)(nil)
)

// Name implements pubsub.Driver.
func (d *driver) Name() string { return "rabbitmq" }

// Capabilities implements pubsub.Driver.
func (d *driver) Capabilities() pubsub.Capabilities { return d.caps }

// readCapabilities reads what the server says of itself.
func (d *driver) readCapabilities(at *link) error {
	major, _, err := version(at.conn.Properties)
	if err != nil {
		return err
	}
	limit := int64(16 << 20)
	if major < 4 {
		limit = 128 << 20
	}
	if d.cfg.MaxSize > 0 {
		limit = d.cfg.MaxSize
	}
	d.limit.Store(limit)
	d.caps = pubsub.Capabilities{
		// One node's: how many nodes there are, AMQP does not say.
		Durability: pubsub.Disk, OptedDown: d.cfg.Accept != 0, Redelivery: true, Exclusive: true, LeaseMax: leaseMax, Deliveries: !d.cfg.Classic,
		RetryIn: pubsub.Forever, RetryLate: time.Second, Schedule: true, Patterns: true, Partitions: true,
		MaxMessage: limit - min(pubsub.Headroom, limit/2), Lag: pubsub.LagPartial,
	}
	if d.names.queues != "" { // used as they are: nothing of ours brings a retry back to them, and what they are nobody knows
		d.caps.RetryIn, d.caps.RetryLate, d.caps.Schedule, d.caps.Deliveries, d.caps.Patterns, d.caps.Partitions, d.caps.Exclusive = 0, 0, false, false, false, false, false
		d.caps.Durability = pubsub.Process
	}
	if d.cfg.Accept > d.caps.Durability {
		return says(pubsub.ErrUnsupported, "the durability that can be vouched for is %v, and at least %v is asked for", d.caps.Durability, d.cfg.Accept)
	}
	return nil
}

// version is the server's.
func version(properties amqp.Table) (major, minor int, err error) {
	product, _ := properties["product"].(string)
	text, _ := properties["version"].(string)
	a, rest, _ := strings.Cut(text, ".")
	b, _, _ := strings.Cut(rest, ".")
	major, err = strconv.Atoi(a)
	if product != "RabbitMQ" || err != nil {
		return 0, 0, says(pubsub.ErrUnsupported, "the server is %q %q, not RabbitMQ", product, text)
	}
	minor, _ = strconv.Atoi(b) // of a version like "4-dev" it is 0
	return major, minor, nil
}

// forget lets everything be looked for again.
func (d *driver) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.topics)
	clear(d.lanes)
	d.exchange, d.ladder, d.later = false, false, false
}

// forgetTopic lets a topic be looked for again, and a group.
func (d *driver) forgetTopic(p pubsub.Place) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.topics, p.Topic)
	delete(d.lanes, pubsub.Place{Topic: p.Topic, Group: p.Group})
}

// Ping implements pubsub.Driver. While the broker takes no messages it says so.
func (d *driver) Ping(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	at, err := d.in.connected(ctx)
	if err != nil {
		return err
	}
	if err := at.with(ctx, func(*amqp.Channel) error { return nil }); err != nil {
		return err
	}
	if out := d.out.at.Load(); out != nil && out.broken() == nil {
		if gate, reason := out.gate(); gate != nil {
			return blockedError(reason)
		}
	}
	return nil
}

// blockedError says why the broker takes no messages.
func blockedError(reason string) error {
	return &brokerError{pubsub.ErrExhausted, false, "the broker takes no messages: " + reason}
}

// As implements pubsub.Driver: target may be a **amqp091.Connection, the one that consumes.
func (d *driver) As(target any) bool {
	c, ok := target.(**amqp.Connection)
	at := d.in.at.Load()
	if ok && at != nil {
		*c = at.conn
	}
	return ok && at != nil
}

// Close implements pubsub.Driver. What sources still hold goes back.
func (d *driver) Close(ctx context.Context) error {
	var all sync.WaitGroup
	for _, n := range []*line{d.out, d.in} {
		n.closed.Store(true)
		if at := n.at.Load(); at != nil {
			all.Go(func() { at.close(ctx) })
		}
	}
	all.Wait()
	return nil
}
