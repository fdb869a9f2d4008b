package rabbitmq_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// A server is a real broker that a test has, and how to reach it.
type server struct{ *containers.Broker }

func startServer(t *testing.T, variant string) *server {
	t.Helper()
	return &server{containers.ForTest(t, "rabbitmq", variant)}
}

// ownServer is for a test that breaks the broker, or changes its settings.
func ownServer(t *testing.T, variant string) *server {
	t.Helper()
	return &server{containers.OwnForTest(t, "rabbitmq", variant)}
}

// address is the URL with the credentials that the variant asks for, and more parameters.
func (s *server) address(more url.Values) string { return s.addressOf(s.Params, more) }

// addressOf is that of somebody who has p.
func (s *server) addressOf(p containers.Params, more url.Values) string {
	return adaptertest.Address(s.URL(), p, url.Values{"ca": {p.CAFile}, "cert": {p.CertFile}, "key": {p.KeyFile}, "auth": {strings.ToLower(p.Mechanism)}}, more)
}

func (s *server) open(t *testing.T, more url.Values, opts *pubsub.Options) *pubsub.Broker {
	t.Helper()
	b, err := rabbitmq.Open(t.Context(), s.address(more), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // tests that care close it themselves
	return b
}

func (s *server) driver(ctx context.Context) (pubsub.Driver, error) {
	cfg, err := rabbitmq.ParseURL(s.address(nil))
	if err != nil {
		return nil, err
	}
	return cfg.Driver(ctx)
}

// native does something with the client itself, on a channel of its own.
func (s *server) native(ctx context.Context, f func(ch *amqp.Channel) error) error {
	d, err := s.driver(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close(ctx) }()
	var c *amqp.Connection
	d.As(&c)
	ch, err := c.Channel()
	if err != nil {
		return err
	}
	return f(ch)
}

// must is native, for tests.
func (s *server) must(t *testing.T, f func(ch *amqp.Channel) error) {
	t.Helper()
	if err := s.native(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// deleteTopic removes a topic and its groups behind the back of who uses them: those of the suite's names.
func (s *server) deleteTopic(ctx context.Context, topic string) error {
	return s.native(ctx, func(ch *amqp.Channel) error {
		if err := ch.ExchangeDelete("omnibus.topic."+topic, false, false); err != nil {
			return err
		}
		for _, group := range []string{"g", "other", "before"} {
			if _, err := ch.QueueDelete(topic+"__"+group, false, false, false); err != nil {
				return err
			}
		}
		return nil
	})
}

// foreignPublish writes a message as a program does that has the client and not the adapter.
func (s *server) foreignPublish(ctx context.Context, topic string, m pubsub.Message) (said pubsub.Headers, err error) {
	table := amqp.Table{}
	for _, h := range m.Headers { // the last of one name stays: a table has each once
		v, ok := rabbitmq.Typed(&h)
		if h.Kind == pubsub.HeaderText {
			v, ok = h.Value, true
		}
		if ok {
			table[h.Name] = v
		}
	}
	last := map[string]pubsub.Header{}
	for _, h := range m.Headers {
		last[h.Name] = h
	}
	for _, h := range last {
		said = append(said, h)
	}
	return said, s.native(ctx, func(ch *amqp.Channel) error {
		if err := ch.Confirm(false); err != nil {
			return err
		}
		sent, err := ch.PublishWithDeferredConfirm("omnibus", topic, true, false, amqp.Publishing{Body: m.Payload, Headers: table, DeliveryMode: amqp.Persistent})
		if err == nil && !sent.Wait() {
			err = amqp.ErrClosed
		}
		return err
	})
}

// ctl is an operator's command on the first node of an ownServer.
func (s *server) ctl(t *testing.T, command ...string) {
	t.Helper()
	if err := s.Nodes()[0].Do(t.Context(), append([]string{"rabbitmqctl", "-q"}, command...)...); err != nil {
		t.Fatal(err)
	}
}
