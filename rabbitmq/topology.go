package rabbitmq

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	maxPartitions = 256
	notOurs       = -1          // partitions of a topic that nobody of us has made
	topicAge      = time.Minute // how long a publisher believes what was found
	deliveryLimit = 1_000_000   // fixed and far above any MaxAttempts: a hand-back counts, and what is above it goes to the dead letters
)

// found says whether something is there that a passive declaration asks for. A node that has just begun answers before all of its queues are up: 3.10 took
// seconds for its streams on a busy machine. So what is on a node that does not run is asked for again, for as long as connecting may take.
func (l *link) found(ctx context.Context, ask func(ch *amqp.Channel) error) (bool, error) {
	err := l.with(ctx, ask)
	for begin := time.Now(); down(err) && time.Since(begin) < dialTimeout; {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return false, err
		}
		if again := l.with(ctx, ask); ctx.Err() == nil {
			err = again
		}
	}
	if is(err, amqp.NotFound) && !down(err) {
		return false, nil
	}
	return err == nil, err
}

// queue asks for one.
func (l *link) queue(ctx context.Context, name string) (q amqp.Queue, there bool, err error) {
	there, err = l.found(ctx, func(ch *amqp.Channel) (err error) {
		q, err = ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	})
	return q, there, err
}

// Ensure implements pubsub.Driver.
func (d *driver) Ensure(ctx context.Context, t pubsub.Topology, m pubsub.Manage) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	at, err := d.in.connected(ctx)
	if err != nil {
		return err
	}
	for _, spec := range t.Topics {
		if spec.Replicas != 0 || spec.Retention != 0 || spec.MaxBytes != 0 {
			return says(pubsub.ErrUnsupported, "TopicSpec.Replicas, Retention or MaxBytes of %q: queues keep messages, not topics; policies of the server bound them", spec.Name)
		}
		if spec.Partitions > maxPartitions {
			return says(pubsub.ErrUnsupported, "TopicSpec.Partitions above %d of %q", maxPartitions, spec.Name)
		}
		if _, err := d.ensureTopic(ctx, at, spec.Name, spec.Partitions, m); err != nil {
			return err
		}
	}
	for _, g := range t.Groups {
		spec := pubsub.SourceSpec{From: pubsub.Place{Topic: g.Topic, Group: g.Group}, Start: g.Start, Order: g.Order, AckWait: g.AckWait, Manage: m}
		if _, err := d.ensureGroup(ctx, at, spec); err != nil {
			return err
		}
	}
	return nil
}

// ensureExchange makes the exchange of the topics; one that is there may be of any type.
func (d *driver) ensureExchange(ctx context.Context, at *link, m pubsub.Manage) error {
	d.mu.Lock()
	seen := d.exchange
	d.mu.Unlock()
	if seen {
		return nil
	}
	name := d.names.exchange
	there, err := at.found(ctx, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(name, amqp.ExchangeTopic, true, false, false, false, nil)
	})
	if err == nil && !there {
		if m != pubsub.Create {
			return says(pubsub.ErrNotFound, "there is no exchange %q", name)
		}
		err = at.with(ctx, func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare(name, amqp.ExchangeTopic, true, false, false, false, nil)
		})
	}
	if err == nil {
		d.mu.Lock()
		d.exchange = true
		d.mu.Unlock()
	}
	return err
}

// declareLanes makes the exchange of all partitions but the first.
func (d *driver) declareLanes(ch *amqp.Channel) error {
	return ch.ExchangeDeclare(d.names.lanes(), amqp.ExchangeTopic, true, false, false, false, nil)
}

// mark declares the exchange that says of a topic how many partitions it has. An argument of another value is refused, which is how they are read: AMQP
// compares arguments, and shows none.
func (d *driver) mark(ctx context.Context, at *link, topic string, parts int) error {
	return at.with(ctx, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(d.names.topic(topic), amqp.ExchangeFanout, true, false, true, false,
			amqp.Table{"alternate-exchange": d.names.own("partitions." + strconv.Itoa(parts))})
	})
}

// ensureTopic makes a topic, or looks at the one that is there, and returns how many partitions it has. want may be 0, whatever it has. Between the question
// whether it is there and the one for its partitions somebody may remove it; then the second question makes it again.
func (d *driver) ensureTopic(ctx context.Context, at *link, topic string, want int, m pubsub.Manage) (parts int, err error) {
	if err := d.ensureExchange(ctx, at, m); err != nil {
		return 0, err
	}
	there, err := at.found(ctx, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(d.names.topic(topic), amqp.ExchangeFanout, true, false, true, false, nil)
	})
	switch {
	case err != nil:
		return 0, err
	case !there && m != pubsub.Create:
		d.note(topic, notOurs)
		return 0, says(pubsub.ErrNotFound, "there is no topic %q", topic)
	}
	if want > 1 && m == pubsub.Create { // before anybody learns that there is something to publish to it
		if err := at.with(ctx, d.declareLanes); err != nil {
			return 0, err
		}
	}
	first, last := 1, maxPartitions
	if want > 0 || !there {
		first = max(want, 1)
		last = first
	} else if parts = d.had(topic); parts > 1 { // most likely it has as many still: each wrong guess is an error in the server's log
		if err = d.mark(ctx, at, topic, parts); err == nil {
			d.note(topic, parts)
		}
		if !is(err, amqp.PreconditionFailed) {
			return parts, err
		}
	}
	for parts = first; parts <= last; parts++ {
		if err = d.mark(ctx, at, topic, parts); err == nil {
			d.note(topic, parts)
			return parts, nil
		}
		if !is(err, amqp.PreconditionFailed) {
			return 0, err
		}
	}
	if want == 0 && !there { // somebody was faster, with another number
		return d.ensureTopic(ctx, at, topic, want, pubsub.Verify)
	}
	return 0, says(pubsub.ErrConflict, "topic %q does not have %d partitions", topic, want)
}

// note remembers what was found. A topic that has to be made before somebody publishes to it may be made any moment.
func (d *driver) note(topic string, parts int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if parts == notOurs {
		maps.DeleteFunc(d.topics, func(_ string, t seenTopic) bool { return t.parts == notOurs && time.Since(t.at) >= topicAge })
	}
	if parts == notOurs && d.names.exchange == defaultExchange {
		delete(d.topics, topic)
	} else {
		d.topics[topic] = seenTopic{parts, time.Now()}
	}
}

// had is how many partitions a topic had when it was looked at last; 0 = nobody has looked.
func (d *driver) had(topic string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.topics[topic].parts
}

// partsOf is how many partitions a topic has to which something is published, or notOurs.
func (d *driver) partsOf(ctx context.Context, topic string) (int, error) {
	d.mu.Lock()
	seen := d.topics[topic]
	d.mu.Unlock()
	if seen.parts != 0 && time.Since(seen.at) < topicAge {
		return seen.parts, nil
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	at, err := d.in.connected(ctx)
	if err != nil {
		return 0, err
	}
	parts, err := d.ensureTopic(ctx, at, topic, 0, pubsub.Verify)
	if code, _ := codeOf(err); code == pubsub.ErrNotFound {
		return notOurs, nil
	}
	return parts, err
}

// lanesOf is how many queues a group has for what is sent to it alone.
func (d *driver) lanesOf(ctx context.Context, p pubsub.Place) (int, error) {
	p = pubsub.Place{Topic: p.Topic, Group: p.Group}
	d.mu.Lock()
	n := d.lanes[p]
	d.mu.Unlock()
	if n > 0 || pubsub.IsPattern(p.Topic) || d.names.queues != "" {
		return max(n, 1), nil
	}
	n, err := d.partsOf(ctx, p.Topic)
	if err != nil {
		return 0, err
	}
	if n > 1 { // a group whose members compete has one queue all the same
		ctx, cancel := withTimeout(ctx)
		defer cancel()
		at, err := d.in.connected(ctx)
		if err != nil {
			return 0, err
		}
		_, there, err := at.queue(ctx, d.names.queue(p, 1))
		if err != nil {
			return 0, err
		}
		if !there {
			n = 1
		}
	}
	n = max(n, 1)
	d.mu.Lock()
	d.lanes[p] = n
	d.mu.Unlock()
	return n, nil
}

// queuesThere are those of a group that is used as it is, lane by lane.
func (d *driver) queuesThere(ctx context.Context, at *link, p pubsub.Place) (queues []string, err error) {
	queues = []string{d.names.queue(p, 0)}
	if pubsub.IsPattern(p.Topic) || d.names.queues != "" {
		return queues, nil
	}
	for len(queues) < maxPartitions {
		name := d.names.queue(p, int32(len(queues)))
		if _, there, err := at.queue(ctx, name); err != nil || !there {
			return queues, err
		}
		queues = append(queues, name)
	}
	return queues, nil
}

// ensureGroup makes what a group needs, or checks what is there, and returns its queues, lane by lane.
func (d *driver) ensureGroup(ctx context.Context, at *link, spec pubsub.SourceSpec) (queues []string, err error) {
	p := spec.From
	streams := []string{
		d.names.queue(pubsub.Place{Topic: p.Topic, Group: p.Group, Kind: pubsub.PlaceDead}, 0),
		d.names.queue(pubsub.Place{Topic: p.Topic, Group: p.Group, Kind: pubsub.PlaceState}, 0),
	}
	own := streams[:1:1]
	if d.caps.Deliveries {
		own = append(own, d.names.queue(pubsub.Place{Topic: p.Topic, Group: p.Group, Kind: pubsub.PlaceQuarantine}, 0))
	}
	if d.names.queues != "" {
		queues = []string{d.names.queue(p, 0)}
		if _, there, err := at.queue(ctx, queues[0]); err != nil || !there {
			if err == nil {
				err = says(pubsub.ErrNotFound, "there is no queue %q for group %q of %q", queues[0], p.Group, p.Topic)
			}
			return nil, err
		}
		if spec.Manage == pubsub.Create {
			err = d.ensureStreams(ctx, at, streams)
		}
		return queues, err
	}
	lanes := 1
	if pubsub.IsPattern(p.Topic) {
		err = d.ensureExchange(ctx, at, spec.Manage)
	} else {
		lanes, err = d.ensureTopic(ctx, at, p.Topic, 0, spec.Manage)
	}
	if err == nil {
		err = d.ensureLadder(ctx, at, spec.Manage)
	}
	if err != nil {
		return nil, err
	}
	lane := int32(-1)
	if lanes == 1 || !spec.Order.Exclusive() {
		lanes = 1
	} else {
		lane = 0
	}
	for i := range lanes {
		queues = append(queues, d.names.queue(p, int32(i)))
	}
	if spec.Manage != pubsub.Create {
		for _, name := range slices.Concat(own, streams[1:], queues) {
			if _, there, err := at.queue(ctx, name); err != nil || !there {
				if err == nil {
					err = says(pubsub.ErrNotFound, "there is no queue %q of group %q of %q", name, p.Group, p.Topic)
				}
				return nil, err
			}
		}
		for i := range queues {
			name := d.names.taker(p, i)
			there, err := at.found(ctx, func(ch *amqp.Channel) error {
				return ch.ExchangeDeclarePassive(name, amqp.ExchangeDirect, true, true, true, false, nil)
			})
			if err == nil && !there {
				err = says(pubsub.ErrNotFound, "there is no exchange %q of group %q of %q", name, p.Group, p.Topic)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	if spec.Manage == pubsub.Create {
		if err := d.ensureStreams(ctx, at, streams); err != nil {
			return nil, err
		}
	}
	lost := of(p) + "/" + spec.AckWait.String() // a part of the queue's arguments, so that members with another ack wait are refused
	err = at.with(ctx, func(ch *amqp.Channel) error {
		if spec.Manage == pubsub.Create { // where the group is there, so is what it needs
			if err := d.declareOwn(ch, own, lost); err != nil {
				return err
			}
			if err := d.declareLater(ch); err != nil {
				return err
			}
		}
		for i, name := range queues {
			if err := d.declareGroup(ch, name, lost, spec); err != nil {
				return err
			}
			if spec.Manage != pubsub.Create {
				continue
			}
			if err := ch.QueueBind(name, name, d.names.due(), false, nil); err != nil {
				return err
			}
			if err := d.declareLanes(ch); err != nil {
				return err
			}
			bindings := d.names.bindings(p.Topic, min(lane, 0)+int32(i))
			for _, b := range bindings {
				if err := ch.QueueBind(name, b.key, b.exchange, false, nil); err != nil {
					return err
				}
			}
			if err := d.declareTaker(ch, d.names.taker(p, i), name, bindings); err != nil {
				return err
			}
		}
		return nil
	})
	if is(err, amqp.PreconditionFailed) {
		err = says(pubsub.ErrConflict, "group %q of %q has another ack wait than %v, is exclusive=%v, or its queue was made otherwise: %v",
			p.Group, p.Topic, spec.AckWait, !spec.Order.Exclusive(), err)
	}
	return queues, err
}

// ensureStreams makes several at once: each is a handful of round trips, and the server takes its time for it.
func (d *driver) ensureStreams(ctx context.Context, at *link, names []string) error {
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = d.ensureStream(ctx, at, name) })
	}
	wg.Wait()
	return cmp.Or(errs...)
}

// declareGroup declares a queue of a group, with the arguments that it has if it was made for such members.
func (d *driver) declareGroup(ch *amqp.Channel, name, lost string, spec pubsub.SourceSpec) error {
	args := d.kept(lost)
	if spec.Order.Exclusive() {
		args[amqp.SingleActiveConsumerArg] = true
	}
	_, err := ch.QueueDeclare(name, true, false, false, false, args)
	return err
}

// kept are the arguments of a queue that loses nothing: what it gives up by itself goes to the dead letters under that key.
func (d *driver) kept(lost string) amqp.Table {
	args := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic, "x-dead-letter-exchange": d.names.lost(), "x-dead-letter-routing-key": lost}
	if !d.cfg.Classic {
		args[amqp.QueueTypeArg], args["x-delivery-limit"] = amqp.QueueTypeQuorum, deliveryLimit
		d.atLeastOnce(args)
	}
	return args
}

// atLeastOnce lets a quorum queue keep what it dead-letters until that is confirmed. Without one of the two it would not, and say nothing.
func (d *driver) atLeastOnce(args amqp.Table) {
	args["x-dead-letter-strategy"], args[amqp.QueueOverflowArg] = "at-least-once", amqp.QueueOverflowRejectPublish
	if d.cfg.Replicas > 0 {
		args["x-quorum-initial-group-size"] = d.cfg.Replicas
	}
}

// declareOwn lets the dead letters have what queues give up by themselves, and makes the group's quarantine.
func (d *driver) declareOwn(ch *amqp.Channel, own []string, lost string) error {
	if err := ch.ExchangeDeclare(d.names.lost(), amqp.ExchangeDirect, true, false, false, false, nil); err != nil {
		return err
	}
	if err := ch.QueueBind(own[0], lost, d.names.lost(), false, nil); err != nil || len(own) == 1 {
		return err
	}
	if _, err := ch.QueueDeclare(own[1], true, false, false, false, d.kept(lost)); err != nil {
		return err
	}
	return ch.QueueBind(own[1], own[1], d.names.due(), false, nil)
}

// codeOf is classify, for errors that may be nil.
func codeOf(err error) (pubsub.Code, bool) {
	if err == nil {
		return 0, false
	}
	return classify(err)
}

// Lag implements pubsub.Lagger: what no member has got. What members hold and what waits in the ladder AMQP does not count.
func (d *driver) Lag(ctx context.Context, topic, group string) (pubsub.Lag, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	p := pubsub.Place{Topic: topic, Group: group}
	at, err := d.in.connected(ctx)
	if err != nil {
		return pubsub.Lag{}, err
	}
	lanes, err := d.lanesOf(ctx, p)
	if err != nil {
		return pubsub.Lag{}, err
	}
	var queues []string
	for i := range lanes {
		queues = append(queues, d.names.queue(p, int32(i)))
	}
	if d.caps.Deliveries {
		p.Kind = pubsub.PlaceQuarantine
		queues = append(queues, d.names.queue(p, 0))
	}
	lag := pubsub.Lag{Kind: pubsub.LagPartial}
	for _, name := range queues {
		q, there, err := at.queue(ctx, name)
		if err != nil {
			return pubsub.Lag{}, err
		}
		if !there {
			return pubsub.Lag{}, says(pubsub.ErrNotFound, "there is no queue %q of group %q of %q", name, group, topic)
		}
		lag.Messages += int64(q.Messages)
	}
	return lag, nil
}
