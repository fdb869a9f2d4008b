package rabbitmq

import (
	"context"
	"math/bits"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
)

// The ladder is where messages wait: retries for one queue, and what is published with a delay. It has a step for each power of two of a tenth of a second,
// shared by all topics and groups of an exchange. A step is a queue whose messages all wait equally long, so that none waits behind one with more time, and an
// exchange that lets a message in if it has the header of that step. A message goes down from its highest step, through those that make up its
// delay, without anybody reading it:
//
//	wait.19 ─ has w19? ─→ queue wait.19, 14.5 h ─┐
//	   └─ no ──────────────────────────────→ wait.18 … wait.0 ─→ due ─→ the queue that is its routing key
//	                                                               └──→ due.topics ─→ the exchanges of the topics, and void
//
// The steps are quorum queues that let nothing go before it is confirmed. One that finds no place for a message keeps it and, after a few, stops: so there is void,
// which keeps nothing, for what nobody wants any more.
//
// Nobody is told any more when a message is due that no queue takes. So what is published with a delay goes to later, a topic exchange: each queue of a group has a
// taker, an exchange that is bound there as the queue is to the topics, that hands what it gets on to the ladder, and that the broker removes with the queue. What no
// group takes is returned at once.
const (
	steps = 20
	unit  = 100 * time.Millisecond
)

// ensureLadder makes the ladder, or checks that it is there. The highest step is made last.
func (d *driver) ensureLadder(ctx context.Context, at *link, m pubsub.Manage) error {
	d.mu.Lock()
	seen := d.ladder
	d.mu.Unlock()
	if seen {
		return nil
	}
	_, there, err := at.queue(ctx, d.names.step(steps-1))
	if err == nil && !there {
		if m != pubsub.Create {
			return says(pubsub.ErrNotFound, "there is no queue %q, where retries wait", d.names.step(steps-1))
		}
		err = at.with(ctx, d.makeLadder)
	}
	if err == nil {
		d.mu.Lock()
		d.ladder = true
		d.mu.Unlock()
	}
	return err
}

func (d *driver) makeLadder(ch *amqp.Channel) error {
	n := d.names
	if _, err := ch.QueueDeclare(n.void(), true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, amqp.QueueMaxLenArg: 0}); err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(n.topics(), amqp.ExchangeFanout, true, false, false, false, nil); err != nil {
		return err
	}
	if err := d.declareLanes(ch); err != nil {
		return err
	}
	for _, exchange := range []string{n.exchange, n.lanes()} { // of which each passes over what is the other's
		if err := ch.ExchangeBind(exchange, "", n.topics(), false, nil); err != nil {
			return err
		}
	}
	if err := ch.QueueBind(n.void(), "", n.topics(), false, nil); err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(n.due(), amqp.ExchangeDirect, true, false, false, false, amqp.Table{"alternate-exchange": n.topics()}); err != nil {
		return err
	}
	below := n.due()
	for i := range steps {
		name := n.step(i)
		args := amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, amqp.QueueMessageTTLArg: (unit << i).Milliseconds(), "x-dead-letter-exchange": below}
		d.atLeastOnce(args)
		if err := ch.ExchangeDeclare(name, amqp.ExchangeHeaders, true, false, false, false, amqp.Table{"alternate-exchange": below}); err != nil {
			return err
		}
		if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
			return err
		}
		if err := ch.QueueBind(name, "", name, false, amqp.Table{"x-match": "all", hdrWait + strconv.Itoa(i): true}); err != nil {
			return err
		}
		below = name
	}
	return nil
}

// declareLater makes the exchanges of what is published with a delay.
func (d *driver) declareLater(ch *amqp.Channel) error {
	for lane := range int32(2) {
		if err := ch.ExchangeDeclare(d.names.later(lane), amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
			return err
		}
	}
	return nil
}

// declareTaker makes the taker of a queue. What holds it is a binding to the queue, by a key that no message has: the queue's own name.
func (d *driver) declareTaker(ch *amqp.Channel, taker, queue string, bindings []binding) error {
	args := amqp.Table{"alternate-exchange": d.names.step(steps - 1)}
	if err := ch.ExchangeDeclare(taker, amqp.ExchangeDirect, true, true, true, false, args); err != nil {
		return err
	}
	if err := ch.QueueBind(queue, queue, taker, false, nil); err != nil {
		return err
	}
	for _, b := range bindings {
		from := d.names.later(0)
		if b.exchange == d.names.lanes() {
			from = d.names.later(1)
		}
		if err := ch.ExchangeBind(taker, b.key, from, false, nil); err != nil {
			return err
		}
	}
	return nil
}

// delays says whether there is where to publish what has a delay: before there is any group there is not.
func (d *driver) delays(ctx context.Context) (bool, error) {
	d.mu.Lock()
	seen := d.later
	d.mu.Unlock()
	if seen {
		return true, nil
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	at, err := d.in.connected(ctx)
	if err != nil {
		return false, err
	}
	there, err := at.found(ctx, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(d.names.later(0), amqp.ExchangeTopic, true, false, false, false, nil)
	})
	if there {
		d.mu.Lock()
		d.later = true
		d.mu.Unlock()
	}
	return there, err
}

// delay lets a message wait, and returns the exchange to which it goes. What waits for longer than the ladder is comes back earlier; who gets it then sends it
// on its way again.
func (n names) delay(p *amqp.Publishing, d time.Duration) (exchange string) {
	units := uint64(d/unit) + min(uint64(d%unit), 1)
	if units >= 1<<steps {
		units = 1<<steps - 1
		p.Headers[hdrDue] = time.Now().Add(d).UnixMilli()
	}
	for i := range steps {
		if units&(1<<i) != 0 {
			p.Headers[hdrWait+strconv.Itoa(i)] = true
		}
	}
	if units == 0 {
		return n.due()
	}
	return n.step(bits.Len64(units) - 1)
}

// dueIn tells how long a message still has to wait that has come.
func dueIn(h amqp.Table) time.Duration {
	at, ok := integer(h[hdrDue])
	if !ok {
		return 0
	}
	return time.Until(time.UnixMilli(at))
}
