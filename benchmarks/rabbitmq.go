package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
	gocloud "gocloud.dev/pubsub"
	"gocloud.dev/pubsub/rabbitpubsub"

	"github.com/omnibus-go/omnibus/internal/bench"
	"github.com/omnibus-go/omnibus/internal/benchclient"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// What is the same for all on RabbitMQ: durable queues of one kind, quorum or classic, each bound to a topic exchange by the name of its topic (go-cloud
// knows no routing keys: a fanout exchange for each topic), persistent messages, and confirms of them. Raw sends the headers of omnibus, as long, and lets the
// server return what no queue takes.
//
// The server says how many messages of a queue are ready, and only its statistics, now and then, how many are on their way. So the consume clock stops when
// the consumer has closed its channel, which the server answers after the last acknowledgement, and nothing is ready then.
const (
	rabbitPrefetch = 300
	rabbitPooled   = 16 // channels that Watermill keeps: by default it opens one for each message
)

const rabbitRawSettings = "amqp091: one channel, PublishWithDeferredConfirm, mandatory, 1000 without an answer; prefetch 300, acks of several; " +
	"16 and 64 workers: a channel by key or for all"

// rabbitBroker is RabbitMQ, on the server that OMNIBUS_RABBITMQ_URL names. Watermill takes part twice: as it is by default, and with raw's prefetch.
func rabbitBroker(ctx context.Context) (broker, error) {
	url := os.Getenv("OMNIBUS_RABBITMQ_URL")
	if url == "" {
		return broker{}, errors.New("OMNIBUS_RABBITMQ_URL names no server; `make bench BROKER=rabbitmq` starts one")
	}
	cfg, err := rabbitmq.ParseURL(url)
	if err != nil {
		return broker{}, err
	}
	s, err := openRabbitSide(url, cfg.Classic)
	if err != nil {
		return broker{}, err
	}
	version, _ := s.conn.Properties["version"].(string)
	if err := errors.Join(s.remove(), context.Cause(ctx)); err != nil {
		return broker{}, err
	}
	variant := "default"
	if cfg.Classic {
		variant = "classic"
	}
	side := func() (*rabbitSide, error) { return openRabbitSide(url, cfg.Classic) }
	plug := func(open func(*rabbitSide) (*bench.Client, error)) func(context.Context) (*bench.Client, error) {
		return func(context.Context) (*bench.Client, error) {
			s, err := side()
			if err != nil {
				return nil, err
			}
			c, err := open(s)
			if err != nil {
				return nil, errors.Join(err, s.remove())
			}
			return c, nil
		}
	}
	return broker{
		variant: variant,
		version: version,
		shapes:  append(bench.Shapes(), bench.Failing()...),
		plugs: []bench.Plug{
			{Impl: bench.Raw, Settings: rabbitRawSettings, Open: plug(openRabbit)},
			{Impl: "omnibus", Settings: benchclient.Settings, Open: plug(func(s *rabbitSide) (*bench.Client, error) { return openRabbitOmnibus(ctx, url, s) })},
			{Impl: "watermill", Settings: "watermill-amqp: 16 pooled channels, confirms; prefetch 1 (its default); Router",
				Open: plug(func(s *rabbitSide) (*bench.Client, error) { return openRabbitWatermill(s, 0) })},
			{Impl: "watermill-prefetch", Settings: "the same with prefetch 300",
				Open: plug(func(s *rabbitSide) (*bench.Client, error) { return openRabbitWatermill(s, rabbitPrefetch) })},
			{Impl: "gocloud", Settings: "rabbitpubsub: its defaults, but prefetch 300", Open: plug(openRabbitGocloud)},
		},
	}, nil
}

// A rabbitSide is a connection for what is no part of the work: it makes queues, asks for what is ready, and removes all.
type rabbitSide struct {
	url      string // without the parameters, which are omnibus's
	conn     *amqp.Connection
	ch       *amqp.Channel
	args     amqp.Table // of queues
	exchange string

	queues, exchanges []string
}

func openRabbitSide(url string, classic bool) (*rabbitSide, error) {
	plain, _, _ := strings.Cut(url, "?")
	s := &rabbitSide{url: plain, args: amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum}, exchange: "bench-" + strconv.FormatInt(time.Now().UnixNano(), 36)}
	if classic {
		s.args[amqp.QueueTypeArg] = amqp.QueueTypeClassic
	}
	var err error
	if s.conn, err = amqp.Dial(plain); err != nil {
		return nil, err
	}
	if s.ch, err = s.conn.Channel(); err == nil {
		err = s.declare(s.exchange, amqp.ExchangeTopic)
	}
	if err != nil {
		return nil, errors.Join(err, s.conn.Close())
	}
	return s, nil
}

func (s *rabbitSide) declare(exchange, kind string) error {
	s.exchanges = append(s.exchanges, exchange)
	return s.ch.ExchangeDeclare(exchange, kind, true, false, false, false, nil)
}

// prepare makes the queues of a topic's groups.
func (s *rabbitSide) prepare(_ context.Context, topic string, groups []string) error {
	for _, g := range groups {
		if err := s.queue(topic, g, s.exchange); err != nil {
			return err
		}
	}
	return nil
}

func (s *rabbitSide) queue(topic, group, exchange string) error {
	name := rabbitQueue(topic, group)
	s.queues = append(s.queues, name)
	if _, err := s.ch.QueueDeclare(name, true, false, false, false, s.args); err != nil {
		return err
	}
	return s.ch.QueueBind(name, topic, exchange, false, nil)
}

// rabbitQueue is the adapter's name of a group's queue, and everybody's.
func rabbitQueue(topic, group string) string { return topic + "__" + group }

// settling lets a consumer's stop fail if a message has come back. It is for who can help it: a channel forgets acknowledgements when it is closed while a
// quorum queue is behind with them, unless the consumer is cancelled before, and Watermill closes its channel.
func (s *rabbitSide) settling(c *bench.Client) *bench.Client {
	consume := c.Consume
	c.Consume = func(ctx context.Context, w bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
		stop, err := consume(ctx, w, handle)
		if err != nil || w.Shape.Poisoned > 0 { // what fails comes again for a while
			return stop, err
		}
		return func(ctx context.Context) error {
			if err := stop(ctx); err != nil {
				return err
			}
			q, err := s.ch.QueueDeclarePassive(rabbitQueue(w.Topic, w.Group), true, false, false, false, nil)
			if err == nil && q.Messages > 0 {
				err = fmt.Errorf("everything was handled, but %d messages are not settled", q.Messages)
			}
			return err
		}, nil
	}
	return c
}

// remove removes all and disconnects.
func (s *rabbitSide) remove() error {
	var errs []error
	for _, q := range s.queues {
		if _, err := s.ch.QueueDelete(q, false, false, false); err != nil {
			errs = append(errs, fmt.Errorf("queue %s: %w", q, err))
		}
	}
	for _, x := range s.exchanges {
		if err := s.ch.ExchangeDelete(x, false, false); err != nil {
			errs = append(errs, fmt.Errorf("exchange %s: %w", x, err))
		}
	}
	return errors.Join(append(errs, s.conn.Close())...)
}

func openRabbitOmnibus(ctx context.Context, url string, s *rabbitSide) (*bench.Client, error) {
	b, err := rabbitmq.Open(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	c := benchclient.New(b)
	prepare := c.Prepare
	c.Prepare = func(ctx context.Context, topic string, groups []string) error {
		s.exchanges = append(s.exchanges, "omnibus.topic."+topic)
		for _, g := range groups {
			name := rabbitQueue(topic, g)
			s.queues = append(s.queues, name, "omnibus.dead."+name, "omnibus.quarantine."+name)
		}
		return prepare(ctx, topic, groups)
	}
	c.Close = func(context.Context) error { return errors.Join(b.Close(), s.remove()) }
	return s.settling(c), nil
}

// openRabbitWatermill uses Watermill's adapter. prefetch 0 is its default.
func openRabbitWatermill(s *rabbitSide, prefetch int) (*bench.Client, error) {
	config := func(queue string) wmamqp.Config {
		c := wmamqp.NewDurableTopicConfig(s.url, s.exchange, queue)
		c.Exchange.Durable = true
		c.Queue.Arguments = s.args
		c.Publish.ConfirmDelivery, c.Publish.ChannelPoolSize = true, rabbitPooled
		if prefetch > 0 {
			c.Consume.Qos.PrefetchCount = prefetch
		}
		return c
	}
	pub, err := wmamqp.NewPublisher(config(""), watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	c := watermillPlug{
		pub:     pub,
		prepare: s.prepare,
		sub: func(_ context.Context, topic, group string) (message.Subscriber, error) {
			return wmamqp.NewSubscriber(config(rabbitQueue(topic, group)), watermill.NopLogger{})
		},
		close: func() error { return errors.Join(pub.Close(), s.remove()) },
	}.client()
	c.Fill = bench.Blocking // its batch is one message after the other
	return c, nil
}

func openRabbitGocloud(s *rabbitSide) (*bench.Client, error) {
	conn, err := amqp.Dial(s.url)
	if err != nil {
		return nil, err
	}
	prefetch := rabbitPrefetch
	return (&gocloudPlug{
		open: func(_ context.Context, topic string) (*gocloud.Topic, error) {
			return rabbitpubsub.OpenTopic(conn, topic, nil), s.declare(topic, amqp.ExchangeFanout)
		},
		subs: func(_ context.Context, _ *gocloud.Topic, topic, group string) (*gocloud.Subscription, error) {
			return rabbitpubsub.OpenSubscription(conn, rabbitQueue(topic, group), &rabbitpubsub.SubscriptionOptions{PrefetchCount: &prefetch}),
				s.queue(topic, group, topic)
		},
		close: func() error { return errors.Join(conn.Close(), s.remove()) },
	}).client(), nil
}
