package kafka_test

import (
	"cmp"
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A server is a real broker that a test has, and how to reach it.
type server struct {
	*containers.Broker
	tokens string // where tokens are written
}

func startServer(t *testing.T, variant string) *server {
	t.Helper()
	return &server{Broker: containers.ForTest(t, "kafka", variant), tokens: t.TempDir()}
}

// address is the URL with the credentials that the variant asks for, and more parameters.
func (s *server) address(tb testing.TB, more url.Values) string {
	tb.Helper()
	return s.addressOf(tb, s.Params, more)
}

// addressOf is that of somebody who has p.
func (s *server) addressOf(tb testing.TB, p containers.Params, more url.Values) string {
	tb.Helper()
	return adaptertest.Address(s.URL(), p, url.Values{
		"ca": {p.CAFile}, "cert": {p.CertFile}, "key": {p.KeyFile}, "sasl": {strings.ToLower(p.Mechanism)}, "token_file": {s.tokenFile(tb, p.Token)},
		"session_timeout": {cmp.Or(os.Getenv("OMNIBUS_KAFKA_SESSION"), "3s")},
	}, more)
}

// tokenFile is where a token stands: each has its own.
func (s *server) tokenFile(tb testing.TB, token string) string {
	tb.Helper()
	if token == "" {
		return ""
	}
	path := filepath.Join(s.tokens, url.PathEscape(token[max(len(token)-20, 0):]))
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func (s *server) open(t *testing.T) *pubsub.Broker {
	t.Helper()
	b, err := kafka.Open(t.Context(), s.address(t, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // tests that care close it themselves
	return b
}

func dial(ctx context.Context, address string) (pubsub.Driver, error) {
	cfg, err := kafka.ParseURL(address)
	if err != nil {
		return nil, err
	}
	return cfg.Driver(ctx)
}

// client is the client's own view of the cluster.
func (s *server) client(ctx context.Context, tb testing.TB) (*sarama.Config, []string, error) {
	tb.Helper()
	d, err := dial(ctx, s.address(tb, nil))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = d.Close(ctx) }()
	var conf *sarama.Config
	var addresses []string
	d.As(&conf)
	d.As(&addresses)
	conf.Metadata.Full = true
	return conf, addresses, nil
}

func (s *server) admin(ctx context.Context, tb testing.TB) (sarama.ClusterAdmin, error) {
	tb.Helper()
	conf, addresses, err := s.client(ctx, tb)
	if err != nil {
		return nil, err
	}
	return sarama.NewClusterAdmin(addresses, conf)
}

// deleteTopic removes a topic with its groups behind the back of who uses them.
func (s *server) deleteTopic(tb testing.TB) func(ctx context.Context, topic string) error {
	tb.Helper()
	return func(ctx context.Context, topic string) error {
		admin, err := s.admin(ctx, tb)
		if err != nil {
			return err
		}
		defer func() { _ = admin.Close() }()
		all, err := admin.ListTopics()
		if err != nil {
			return err
		}
		for name := range all {
			own, ours := strings.CutPrefix(name, "omnibus.")
			_, of, _ := strings.Cut(own, ".")
			if name == topic || ours && strings.HasPrefix(of, topic+"__") {
				if err := admin.DeleteTopic(name); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// foreignPublish writes a message as a program does that has the client and not the adapter.
func (s *server) foreignPublish(tb testing.TB) func(ctx context.Context, topic string, m pubsub.Message) (pubsub.Headers, error) {
	tb.Helper()
	return func(ctx context.Context, topic string, m pubsub.Message) (said pubsub.Headers, err error) {
		conf, addresses, err := s.client(ctx, tb)
		if err != nil {
			return nil, err
		}
		conf.Producer.Return.Successes = true
		p, err := sarama.NewSyncProducer(addresses, conf)
		if err != nil {
			return nil, err
		}
		defer func() { _ = p.Close() }()
		msg := &sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(m.Payload)}
		for _, h := range m.Headers {
			x := sarama.RecordHeader{Key: []byte(h.Name), Value: []byte(h.Value)}
			if h.Kind == pubsub.HeaderNull {
				x.Value = nil
			} else {
				h.Kind = pubsub.HeaderText // Kafka knows no other
			}
			msg.Headers = append(msg.Headers, x)
			said = append(said, h)
		}
		_, _, err = p.SendMessage(msg)
		return said, err
	}
}
