package nats

import (
	"context"
	"fmt"
	"sync/atomic"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	coreScheme       = "nats+core"
	coreKeepsNothing = "nats+core stores nothing; use nats:// where it matters"
)

// keptParameters are those of JetStream.
func keptParameters() []string {
	return []string{"domain", "stream", "replicas", "retention", "max_bytes", "storage", "dedup", "durability"}
}

// keeps says whether a field is set that only JetStream knows.
func (c *Config) keeps() bool {
	return c.Domain != "" || c.Stream != "" || c.Replicas != 0 || c.Retention != 0 || c.MaxBytes != 0 || c.Memory || c.Dedup != 0 || c.Accept != 0
}

// A coreDriver is core NATS: what a server hands to those who are there, and forgets. Publishers share a connection; each
// subscription has one of its own, since it stops reading when it is full, and nobody else is to wait for that.
type coreDriver struct {
	links   *driver
	sources atomic.Uint32 // opened so far
}

var _ pubsub.Driver = (*coreDriver)(nil)

// coreDriver connects.
func (c Config) coreDriver(ctx context.Context) (pubsub.Driver, error) {
	d := &driver{cfg: c, dialing: make(chan struct{}, 1), sessions: map[session]*link{}}
	at, err := d.dial(ctx, nil)
	if err != nil {
		return nil, err
	}
	d.at.Store(at)
	d.caps = pubsub.Capabilities{OptedDown: true, Order: pubsub.OrderInMember, Patterns: true, MaxMessage: maxMessage(at.nc)}
	if !at.nc.HeadersSupported() {
		at.nc.Close()
		return nil, says(pubsub.ErrUnsupported, "the server knows no headers: it is older than 2.2")
	}
	return &coreDriver{links: d}, nil
}

// Name implements pubsub.Driver.
func (d *coreDriver) Name() string { return d.links.Name() }

// Capabilities implements pubsub.Driver.
func (d *coreDriver) Capabilities() pubsub.Capabilities { return d.links.caps }

// Classify implements pubsub.Driver.
func (d *coreDriver) Classify(err error) (pubsub.Code, bool) { return classify(err) }

// Ping implements pubsub.Driver.
func (d *coreDriver) Ping(ctx context.Context) error { return d.links.Ping(ctx) }

// Close implements pubsub.Driver.
func (d *coreDriver) Close(ctx context.Context) error { return d.links.Close(ctx) }

// As implements pubsub.Driver: target may be a **nats.Conn, the publishers'.
func (d *coreDriver) As(target any) bool {
	if _, ok := target.(**client.Conn); !ok {
		return false
	}
	return d.links.As(target)
}

// Ensure implements pubsub.Driver. A topic needs nothing and has no settings; a group is who is there at the moment.
func (d *coreDriver) Ensure(_ context.Context, t pubsub.Topology, m pubsub.Manage) error {
	for _, spec := range t.Topics {
		if spec.Replicas != 0 || spec.Retention != 0 || spec.MaxBytes != 0 {
			return says(pubsub.ErrUnsupported, "the topic %q cannot have settings: %s", spec.Name, coreKeepsNothing)
		}
	}
	switch {
	case len(t.Groups) > 0:
		return says(pubsub.ErrUnsupported, "the group %q cannot exist before its first member: %s", t.Groups[0].Group, coreKeepsNothing)
	case m == pubsub.Verify && len(t.Topics) > 0:
		return says(pubsub.ErrUnsupported, "whether there is a topic %q cannot be verified: %s", t.Topics[0].Name, coreKeepsNothing)
	}
	return nil
}

// A complainer is told what the server says about a connection without closing it: that something is denied, for instance.
type complainer interface{ complain(err error) }

// complain passes on what the server says about a link.
func (d *driver) complain(at *link, err error) {
	d.mu.Lock()
	var told []complainer
	for s, on := range d.sessions {
		if c, ok := s.(complainer); ok && on == at {
			told = append(told, c)
		}
	}
	d.mu.Unlock()
	for _, c := range told {
		c.complain(err)
	}
}

// slow is what a subscription says whose server cut it off, or whose client had to drop something.
func slow(format string, args ...any) error {
	return &brokerError{pubsub.ErrUnavailable, false, "a slow consumer, messages are lost: " + fmt.Errorf(format, args...).Error()}
}
