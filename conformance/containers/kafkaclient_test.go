package containers_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
)

// The client of Kafka that these tests use. It tries nothing twice, except to find a leader: what a fault does is to be seen.

// startKafka starts a Kafka broker for one test.
func startKafka(t *testing.T, variant string) *containers.Broker {
	t.Helper()
	return containers.ForTest(t, "kafka", variant)
}

func kafkaConfig(t *testing.T, p containers.Params) *sarama.Config {
	t.Helper()
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Net.DialTimeout, c.Net.ReadTimeout, c.Net.WriteTimeout = 10*time.Second, 10*time.Second, 10*time.Second
	c.Metadata.AllowAutoTopicCreation = false
	c.Producer.RequiredAcks, c.Producer.Timeout = sarama.WaitForAll, 10*time.Second
	c.Producer.Retry.Max, c.Producer.Return.Successes = 0, true
	if p.CAFile != "" {
		c.Net.TLS.Enable, c.Net.TLS.Config = true, tlsConfig(t, p)
	}
	if p.Mechanism == "" {
		return c
	}
	c.Net.SASL.Enable, c.Net.SASL.Mechanism = true, sarama.SASLMechanism(p.Mechanism)
	c.Net.SASL.User, c.Net.SASL.Password, c.Net.SASL.TokenProvider = p.User, p.Password, token(p.Token)
	hash := scram.SHA256
	if p.Mechanism == sarama.SASLTypeSCRAMSHA512 {
		hash = scram.SHA512
	}
	c.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &scramClient{hash: hash} }
	return c
}

func tlsConfig(t *testing.T, p containers.Params) *tls.Config {
	t.Helper()
	ca, err := os.ReadFile(p.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AppendCertsFromPEM(ca)
	if p.CertFile == "" {
		return c
	}
	cert, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	c.Certificates = []tls.Certificate{cert}
	return c
}

type token string

func (t token) Token() (*sarama.AccessToken, error) {
	return &sarama.AccessToken{Token: string(t)}, nil
}

type scramClient struct {
	hash scram.HashGeneratorFcn
	*scram.ClientConversation
}

func (s *scramClient) Begin(user, password, authzID string) error {
	c, err := s.hash.NewClient(user, password, authzID)
	if err != nil {
		return err
	}
	s.ClientConversation = c.NewConversation()
	return nil
}

// addrs are the addresses in the broker's URL.
func addrs(b *containers.Broker) []string {
	return strings.Split(strings.TrimPrefix(b.URL(), "kafka://"), ",")
}

// A kafkaTopic is a topic with one partition and a client of it.
type kafkaTopic struct {
	name     string
	client   sarama.Client
	admin    sarama.ClusterAdmin
	producer sarama.SyncProducer
}

// newKafkaTopic makes a topic with a message in it.
func newKafkaTopic(t *testing.T, b *containers.Broker, name string) *kafkaTopic {
	t.Helper()
	client, err := sarama.NewClient(addrs(b), kafkaConfig(t, b.Params))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	k := &kafkaTopic{name: name, client: client}
	if k.admin, err = sarama.NewClusterAdminFromClient(client); err != nil {
		t.Fatal(err)
	}
	if err := k.admin.CreateTopic(name, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: -1}, false); err != nil {
		t.Fatal(err)
	}
	if k.producer, err = sarama.NewSyncProducerFromClient(client); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.producer.Close() })
	poll.Until(t, "the topic is known", func() bool { return client.RefreshMetadata(name) == nil })
	k.mustSend(t, "kept")
	return k
}

// send returns the answer to a message, once there is one.
func (k *kafkaTopic) send(value string) <-chan error {
	answer := make(chan error, 1)
	go func() {
		_, _, err := k.producer.SendMessage(&sarama.ProducerMessage{Topic: k.name, Value: sarama.StringEncoder(value)})
		answer <- err
	}()
	return answer
}

// mustSend sends until it is confirmed: in a cluster a new topic, or one whose leader has gone, has none at first.
func (k *kafkaTopic) mustSend(t *testing.T, value string) {
	t.Helper()
	poll.Until(t, value+" is confirmed", func() bool { return <-k.send(value) == nil })
}

// messages counts what the topic holds, once it can be asked; 0 if there is no such topic.
func (k *kafkaTopic) messages(t *testing.T) (n int64) {
	t.Helper()
	poll.Until(t, "the topic can be asked", func() bool {
		err := k.client.RefreshMetadata(k.name)
		if err == nil {
			n, err = k.client.GetOffset(k.name, 0, sarama.OffsetNewest)
		}
		return err == nil || errors.Is(err, sarama.ErrUnknownTopicOrPartition)
	})
	return n
}

// leader is the node that leads the topic.
func (k *kafkaTopic) leader(t *testing.T, b *containers.Broker) *containers.Node {
	t.Helper()
	var at int
	poll.Until(t, "the topic has a leader", func() bool {
		if err := k.client.RefreshMetadata(k.name); err != nil {
			return false
		}
		leader, err := k.client.Leader(k.name, 0)
		if err == nil {
			at = slices.IndexFunc(b.Nodes(), func(n *containers.Node) bool { return n.Addr() == leader.Addr() })
		}
		return err == nil
	})
	if at < 0 {
		t.Fatal("the leader is none of the nodes")
	}
	return b.Nodes()[at]
}

// A line is one connection to one node.
type line struct{ *sarama.Broker }

func openLine(t *testing.T, addr string, c *sarama.Config) (line, error) {
	t.Helper()
	l := line{sarama.NewBroker(addr)}
	if err := l.Open(c); err != nil {
		return l, err
	}
	_, err := l.Connected()
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return l, err
}

func mustOpenLine(t *testing.T, b *containers.Broker) line {
	t.Helper()
	l, err := openLine(t, addrs(b)[0], kafkaConfig(t, b.Params))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ask returns the answer to a question, once there is one.
func (l line) ask() <-chan error {
	answer := make(chan error, 1)
	go func() {
		_, err := l.GetMetadata(&sarama.MetadataRequest{Version: 1, Topics: []string{}})
		answer <- err
	}()
	return answer
}

// kafkaChatter keeps clients busy until the test ends: a black hole shows only where somebody speaks.
func kafkaChatter(t *testing.T, b *containers.Broker) {
	t.Helper()
	c := kafkaConfig(t, b.Params)
	c.Net.ReadTimeout = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil { // fails while the fault lasts
			l := line{sarama.NewBroker(addrs(b)[0])}
			if l.Open(c) == nil {
				<-l.ask()
				l.Close()
			}
			time.Sleep(time.Millisecond) // leaves the others some of the machine
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}
