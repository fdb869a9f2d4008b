package rabbitmq_test

import (
	"context"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

func TestForgedTopicOfARetry(t *testing.T) {
	s := startServer(t, "default")
	open := func(t *testing.T) *pubsub.Broker {
		t.Helper()
		return s.open(t, nil, nil)
	}
	adaptertest.TestForgedTopic(t, open, func(ctx context.Context, topic, forged string) error {
		queue := rabbitmq.QueueName("omnibus", "", pubsub.Place{Topic: topic, Group: "g"}, 0)
		return s.native(ctx, func(ch *amqp.Channel) error {
			return ch.PublishWithContext(ctx, "", queue, true, false, amqp.Publishing{MessageId: forged, Headers: amqp.Table{"omnibus.topic": forged}})
		})
	})
}
