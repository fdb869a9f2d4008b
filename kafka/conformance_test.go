package kafka_test

import (
	"context"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

func address(more url.Values) string {
	u := os.Getenv("OMNIBUS_KAFKA_URL") + "?session_timeout=5s"
	if len(more) > 0 {
		u += "&" + more.Encode()
	}
	return u
}

func driver(ctx context.Context) (pubsub.Driver, error) {
	cfg, err := kafka.ParseURL(address(nil))
	if err != nil {
		return nil, err
	}
	return cfg.Driver(ctx)
}

// TestConformance runs the suite.
func TestConformance(t *testing.T) {
	h := conformance.Harness{
		Driver:         driver,
		DeleteTopic:    deleteTopic,
		ForeignPublish: foreignPublish,
		OpenURL: func(ctx context.Context, parameters url.Values) (*pubsub.Broker, error) {
			return kafka.Open(ctx, address(parameters), nil)
		},
		Recovery: 5 * time.Second,
		Variant:  "default",
	}
	conformance.Run(t, h)
}

func client(ctx context.Context) (*sarama.Config, []string, error) {
	d, err := driver(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = d.Close(ctx) }()
	var conf *sarama.Config
	var addresses []string
	d.As(&conf)
	d.As(&addresses)
	return conf, addresses, nil
}

// deleteTopic removes a topic with its groups behind the back of who uses them.
func deleteTopic(ctx context.Context, topic string) error {
	conf, addresses, err := client(ctx)
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdmin(addresses, conf)
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close() }()
	return admin.DeleteTopic(topic)
}

// foreignPublish writes a message as a program does that has the client and not the adapter.
func foreignPublish(ctx context.Context, topic string, m pubsub.Message) (said pubsub.Headers, err error) {
	conf, addresses, err := client(ctx)
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
		}
		msg.Headers = append(msg.Headers, x)
		if h.Kind != pubsub.HeaderNull {
			h.Kind = pubsub.HeaderText
		}
		said = append(said, h)
	}
	_, _, err = p.SendMessage(msg)
	return said, err
}
