package nats_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"testing"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A server is a real broker that a test has, and how to reach it.
type server struct {
	*containers.Broker
	replicas string
}

func startServer(t *testing.T, variant string) *server {
	t.Helper()
	return newServer(containers.ForTest(t, "nats", variant), variant)
}

// ownServer is for a test that breaks the broker.
func ownServer(t *testing.T, variant string) *server {
	t.Helper()
	return newServer(containers.OwnForTest(t, "nats", variant), variant)
}

func newServer(b *containers.Broker, variant string) *server {
	s := &server{Broker: b}
	if variant == "cluster" {
		s.replicas = "3"
	}
	return s
}

// address is the URL with the credentials that the variant asks for, and more parameters.
func (s *server) address(more url.Values) string { return s.addressOf(s.Params, more) }

// addressOf is that of somebody who has p.
func (s *server) addressOf(p containers.Params, more url.Values) string {
	return adaptertest.Address(s.URL(), p, url.Values{
		"ca": {p.CAFile}, "cert": {p.CertFile}, "key": {p.KeyFile}, "token": {p.Token}, "nkey": {p.SeedFile}, "creds": {p.CredsFile}, "replicas": {s.replicas},
	}, more)
}

func (s *server) open(t *testing.T) *pubsub.Broker {
	t.Helper()
	b, err := nats.Open(t.Context(), s.address(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // tests that care close it themselves
	return b
}

func (s *server) driver(ctx context.Context) (pubsub.Driver, error) {
	cfg, err := nats.ParseURL(s.address(nil))
	if err != nil {
		return nil, err
	}
	return cfg.Driver(ctx)
}

// jetStream is the client's own view of the server.
func (s *server) jetStream(ctx context.Context, t *testing.T) jetstream.JetStream {
	t.Helper()
	d, err := s.driver(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	var js jetstream.JetStream
	if !d.As(&js) {
		t.Fatal("the driver has no jetstream.JetStream")
	}
	return js
}

// deleteTopic removes a topic and its groups behind the back of who uses them. Other topics may be made meanwhile: an update replaces all settings of the stream.
func (s *server) deleteTopic(ctx context.Context, topic string) (err error) {
	d, err := s.driver(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close(ctx) }()
	var js jetstream.JetStream
	d.As(&js)
	var stream jetstream.Stream
	err = nats.WhileTopicsRest(ctx, d, func() error {
		if stream, err = js.Stream(ctx, "omnibus"); err != nil {
			return err
		}
		cfg := stream.CachedInfo().Config
		cfg.Subjects = slices.DeleteFunc(cfg.Subjects, func(sub string) bool { return sub == topic })
		if len(cfg.Subjects) == 0 {
			cfg.Subjects = []string{"omnibus.later.omnibus.>"}
		}
		_, err = js.UpdateStream(ctx, cfg)
		return err
	})
	if err != nil {
		return err
	}
	list := stream.ListConsumers(ctx)
	for c := range list.Info() {
		if c.Config.FilterSubject == topic {
			err := stream.DeleteConsumer(ctx, c.Name)
			if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) { // a look at the topic may have ended meanwhile
				return err
			}
		}
	}
	if err := list.Err(); err != nil {
		return err
	}
	return stream.Purge(ctx, jetstream.WithPurgeSubject(topic))
}

// foreignPublish writes a message as a program does that has the client and not the adapter.
func (s *server) foreignPublish(ctx context.Context, topic string, m pubsub.Message) (said pubsub.Headers, err error) {
	d, err := s.driver(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close(ctx) }()
	var js jetstream.JetStream
	d.As(&js)
	msg := client.NewMsg(topic)
	msg.Data = m.Payload
	for _, h := range m.Headers { // which are all text
		msg.Header[h.Name] = append(msg.Header[h.Name], h.Value)
		said = append(said, pubsub.Header{Name: h.Name, Value: h.Value})
	}
	_, err = js.PublishMsg(ctx, msg)
	return said, err
}
