package redisstreams_test

import (
	"context"
	"net/url"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// A server is a real broker that a test has, and how to reach it.
type server struct{ *containers.Broker }

func startServer(t *testing.T, variant string) *server {
	t.Helper()
	return &server{containers.ForTest(t, "redis", variant)}
}

// ownServer is for a test that breaks the broker, or changes its settings.
func ownServer(t *testing.T, variant string) *server {
	t.Helper()
	return &server{containers.OwnForTest(t, "redis", variant)}
}

// replicated says whether there are replicas.
func (s *server) replicated() bool { return len(s.Nodes()) > 1 }

// address is the URL with the credentials that the variant asks for, and more parameters.
func (s *server) address(more url.Values) string { return s.addressOf(s.Params, more) }

// addressOf is that of somebody who has p.
func (s *server) addressOf(p containers.Params, more url.Values) string {
	own := url.Values{"ca": {p.CAFile}, "cert": {p.CertFile}, "key": {p.KeyFile}}
	if s.replicated() {
		own.Set("wait", "1")
	}
	return adaptertest.Address(s.URL(), p, own, more)
}

func (s *server) open(t *testing.T) *pubsub.Broker {
	t.Helper()
	b, err := redisstreams.Open(t.Context(), s.address(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // tests that care close it themselves
	return b
}

func (s *server) driver(ctx context.Context) (pubsub.Driver, error) { return dial(ctx, s.address(nil)) }

// client is the client's own view of the server, until the test ends.
func (s *server) client(t *testing.T) redis.UniversalClient {
	t.Helper()
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	var c redis.UniversalClient
	if !d.As(&c) {
		t.Fatal("the driver has no client")
	}
	return c
}

// deleteTopic removes a topic and its groups behind the back of who uses them.
func (s *server) deleteTopic(ctx context.Context, topic string) error {
	d, err := s.driver(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close(ctx) }()
	var c redis.UniversalClient
	d.As(&c)
	return c.Del(ctx, topic).Err()
}

// foreignPublish writes a message as a program does that has the client and not the adapter.
func (s *server) foreignPublish(ctx context.Context, topic string, m pubsub.Message) (said pubsub.Headers, err error) {
	d, err := s.driver(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.Close(ctx) }()
	var c redis.UniversalClient
	d.As(&c)
	values := []any{"payload", m.Payload}
	for _, h := range m.Headers { // which are all text
		values = append(values, h.Name, h.Value)
		said = append(said, pubsub.Header{Name: h.Name, Value: h.Value})
	}
	return said, c.XAdd(ctx, &redis.XAddArgs{Stream: topic, Values: values}).Err()
}

// leadership asks who has the topic.
func (s *server) leadership(ctx context.Context, topic string) (pauseFollowers, wipeLeader conformance.Fault, err error) {
	d, err := s.driver(ctx)
	if err != nil {
		return pauseFollowers, wipeLeader, err
	}
	defer func() { _ = d.Close(ctx) }()
	addr, err := redisstreams.AddrOf(ctx, d, topic)
	if err != nil {
		return pauseFollowers, wipeLeader, err
	}
	leader := ""
	for _, n := range s.Nodes() {
		if n.Addr() == addr {
			leader = n.Name()
		}
	}
	return s.Replicas(leader)
}
