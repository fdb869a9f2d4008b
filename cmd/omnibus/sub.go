package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/pubsub"
)

type subFlags struct {
	group, from, order string
	follow, create     bool
	count              int
	idle               time.Duration
}

func (a *app) subCommand() *cobra.Command {
	var f subFlags
	c := &cobra.Command{
		Use:   "sub TOPIC",
		Short: "Read messages",
		Long: `sub writes messages as they come: for people, or with --json a line a message, which pub --jsonl reads.

Without --group nothing is taken away from anybody:
  sub TOPIC                   what is published from now on, until an interrupt
  sub TOPIC --from earliest   what the broker has kept, to its end; with --follow also what is published from then on
What was kept needs a broker with history.

With --group it is a member of that group: each message is acked once it is written, and no other member gets it. It ends when nothing has come for
--idle, with --follow at an interrupt. A group that does not exist is made only with --create, where --from may say where it begins. The order
is to be the one that its other members have; it and the ack wait are those of the configuration where that has the group.

Messages are shown as they travel: they do not pass the middleware of the configuration, which needs the service's program. With --group, where that
changes what travels (compress, own, layers of security), a warning on standard error says so.

--from is earliest, now, a time (2026-01-31T12:00:00Z), a span back from now (90m), or a position as sub shows it. TOPIC may be a pattern where the
broker has patterns, but not with --from and without a group.`,
		Example: `  omnibus sub orders --from earliest
  omnibus sub orders --from 1h --json
  omnibus sub orders --group audit --create --from earliest --count 1`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			start, err := a.parseFrom(f.from)
			switch {
			case err != nil:
				return usageOf(c, err)
			case f.count < 0:
				return usageOf(c, errors.New("--count cannot be negative"))
			case f.group == "" && (f.create || f.order != ""):
				return usageOf(c, errors.New("--create and --order are about a --group"))
			case f.group != "" && f.from != "" && !f.create:
				return usageOf(c, errors.New("a group that exists goes on where it was: --from needs --create"))
			}
			kind, since, at := start.Parts()
			if f.group == "" && kind != pubsub.StartNow {
				return a.opened(c, nil, func(ctx context.Context, b *pubsub.Broker) error {
					return a.history(ctx, b, args[0], since, at, f)
				})
			}
			sub := pubsub.Subscription{Topic: args[0], Group: f.group, Start: start}
			if sub.Order, err = parseOrder(f.order); err != nil {
				return usageOf(c, err)
			}
			if f.group != "" {
				if sub, err = a.asConfigured(sub, f.order != ""); err != nil {
					return err
				}
				a.warnOfLayers(sub.Topic, sub.Group, "what is read here does not pass them")
			}
			if f.group == "" {
				sub.Group, sub.Order, f.follow = pubsub.Broadcast, pubsub.OrderPerMember, true
			}
			return a.opened(c, func(o *pubsub.Options) {
				if f.create {
					o.Manage = pubsub.Create
				}
			}, func(ctx context.Context, b *pubsub.Broker) error {
				r := a.reader(b, f)
				if err := r.subscribe(ctx, sub); err != nil {
					return err
				}
				return r.wait(ctx)
			})
		},
	}
	fs := c.Flags()
	fs.StringVarP(&f.group, "group", "g", "", "consume and ack as a member of this group")
	fs.StringVar(&f.from, "from", "", "where to begin: earliest, now, a time, a span back, a position (default: now)")
	fs.StringVar(&f.order, "order", "", "of the group: "+orderNames+" (default: that of the configuration, else key)")
	fs.BoolVarP(&f.follow, "follow", "f", false, "go on until an interrupt")
	fs.BoolVar(&f.create, "create", false, "make the group if it does not exist")
	fs.IntVarP(&f.count, "count", "n", 0, "end after so many messages; 0 = no bound")
	fs.DurationVar(&f.idle, "idle", 2*time.Second, "with --group: end when nothing has come for so long")
	return c
}

const orderNames = "key, member, loose, none, strict"

func parseOrder(name string) (pubsub.Order, error) {
	orders := map[string]pubsub.Order{"": pubsub.OrderByKey, "key": pubsub.OrderByKey, "member": pubsub.OrderPerMember, "loose": pubsub.OrderByKeyLoose,
		"none": pubsub.OrderNone, "strict": pubsub.OrderStrict}
	o, ok := orders[name]
	if !ok {
		return o, fmt.Errorf("there is no order %q: it is one of %s", name, orderNames)
	}
	return o, nil
}

// asConfigured gives a subscription of a group what all its members must agree on, where the configuration has that group.
func (a *app) asConfigured(sub pubsub.Subscription, ordered bool) (pubsub.Subscription, error) {
	t, err := a.topologyOfConfig()
	if err != nil {
		return sub, err
	}
	for _, s := range t.Groups {
		if s.Topic == sub.Topic && s.Group == sub.Group {
			sub.AckWait = s.AckWait
			if !ordered {
				sub.Order = s.Order
			}
		}
	}
	return sub, nil
}

// parseFrom reads where to begin.
func (a *app) parseFrom(s string) (pubsub.Start, error) {
	switch s {
	case "", "now":
		return pubsub.FromNow(), nil
	case "earliest":
		return pubsub.FromEarliest(), nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return pubsub.FromTime(a.now().Add(-d)), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return pubsub.FromTime(t), nil
	}
	var p pubsub.Position
	if err := p.UnmarshalText([]byte(s)); err == nil && p != (pubsub.Position{}) {
		return pubsub.FromPosition(p), nil
	}
	return pubsub.Start{}, fmt.Errorf("--from %q is none of: earliest, now, a time such as 2026-01-31T12:00:00Z, a span back such as 90m, a position", s)
}

// A reader writes what it is given until there is enough.
type reader struct {
	a    *app
	b    *pubsub.Broker
	f    subFlags
	seen passed        // of what was kept
	hold chan struct{} // while it is open nothing is written; nil = it is not held

	consumer *pubsub.Consumer
	written  int           // by one goroutine at a time
	enough   chan struct{} // closed once --count were written, or the output takes no more
	arrived  chan struct{}
}

func (a *app) reader(b *pubsub.Broker, f subFlags) *reader {
	return &reader{a: a, b: b, f: f, enough: make(chan struct{}), arrived: make(chan struct{}, 1)}
}

// A passed is how far a topic was read, in each partition: of every message of a long history it would remember too much.
type passed map[partition][2]uint64

type partition struct {
	kind   uint8
	number int32
}

// in takes a position apart, see pubsub.NewPosition.
func in(p pubsub.Position) (partition, [2]uint64) {
	kind, a, b, number := p.Parts()
	return partition{kind, number}, [2]uint64{uint64(a), uint64(b)}
}

func (s passed) note(p pubsub.Position) {
	if !s.has(p) {
		at, n := in(p)
		s[at] = n
	}
}

// has says that the message there, or one behind it, was noted.
func (s passed) has(p pubsub.Position) bool {
	at, n := in(p)
	last, ok := s[at]
	return ok && slices.Compare(n[:], last[:]) <= 0
}

// show writes a message, and says whether there can be another one.
func (r *reader) show(m message) (more bool) {
	select {
	case <-r.enough:
		return false
	default:
	}
	err := r.a.out.show(m)
	r.written++
	if err != nil || r.written == r.f.count {
		r.stop()
		return false
	}
	return true
}

// stop lets nothing more be written.
func (r *reader) stop() {
	select {
	case <-r.enough:
	default:
		close(r.enough)
	}
}

// errEnough hands a message back that is not wanted any more.
var errEnough = errors.New("enough messages were read")

// subscribe begins to read. Its handler runs once at a time, and writes before it acks.
func (r *reader) subscribe(ctx context.Context, sub pubsub.Subscription) error {
	if caps := r.b.Capabilities(); sub.Group == pubsub.Broadcast || !caps.Redelivery {
		sub.DeadLetter.Drop = true // nothing fails here
	}
	open, cancel := r.a.within(ctx)
	defer cancel()
	// the consumer's life is that of ctx, its beginning that of open
	live, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(open, func() { end(context.Cause(open)) })
	c, err := r.b.Subscribe(live, sub, func(ctx context.Context, d *pubsub.Delivery) error {
		if r.hold != nil {
			select {
			case <-r.hold:
			case <-ctx.Done():
				return pubsub.Pause(time.Second, context.Cause(ctx))
			}
		}
		if r.seen.has(d.Position) {
			return nil
		}
		m := messageOf(d.Topic, &d.Message)
		m.Position, m.Attempt, m.Deliveries = d.Position.String(), d.Attempt, d.Deliveries
		if sub.Group != pubsub.Broadcast {
			m.Group = d.Group
		}
		before := r.written
		r.show(m)
		if r.written == before || r.a.out.broken() {
			return pubsub.Pause(time.Minute, errEnough)
		}
		select {
		case r.arrived <- struct{}{}:
		default:
		}
		return nil
	})
	stop()
	r.consumer = c
	if err != nil && open.Err() != nil {
		return cmp.Or(context.Cause(open), err)
	}
	return err
}

// wait ends the reading when it is time, in order.
func (r *reader) wait(ctx context.Context) error {
	idle := r.f.idle
	if r.f.follow {
		idle = pubsub.Forever
	}
	timer := time.NewTimer(idle)
	defer timer.Stop()
	for running := true; running; {
		select {
		case <-r.arrived:
			timer.Reset(idle)
		case <-timer.C:
			running = false
		case <-r.enough:
			running = false
		case <-ctx.Done():
			running = false
		case <-r.consumer.Done():
			return r.consumer.Err()
		}
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.a.timeout)
	defer cancel()
	return r.consumer.Drain(drain)
}

// history shows what lies in a topic, and with --follow what comes then. For that it subscribes before it looks, so that nothing is missed, and
// leaves out what it has shown.
func (a *app) history(ctx context.Context, b *pubsub.Broker, topic string, since time.Time, from pubsub.Position, f subFlags) error {
	r := a.reader(b, f)
	release := func() {}
	if f.follow {
		r.hold, r.seen = make(chan struct{}), passed{}
		release = sync.OnceFunc(func() { close(r.hold) })
		defer release()
		if err := r.subscribe(ctx, pubsub.Subscription{Topic: topic, Group: pubsub.Broadcast, Order: pubsub.OrderPerMember}); err != nil {
			return err
		}
	}
	for rec, err := range b.Browse(ctx, pubsub.Place{Topic: topic}, from) {
		if ctx.Err() != nil {
			if f.follow {
				break // which only an interrupt ends
			}
			return context.Cause(ctx) // there is more than was shown
		}
		if err != nil {
			r.stop()
			return err
		}
		if f.follow {
			r.seen.note(rec.Pos)
		}
		if rec.Msg.Time.Before(since) {
			continue
		}
		m := messageOf(rec.Topic, rec.Msg)
		m.Position = rec.Pos.String()
		if rec.Bad != nil {
			m.Bad = rec.Bad.Error()
		}
		if !r.show(m) {
			break
		}
	}
	if !f.follow {
		return nil
	}
	release()
	return r.wait(ctx)
}
