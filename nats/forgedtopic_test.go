package nats_test

import (
	"context"
	"testing"

	client "github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestForgedTopicOfARetry(t *testing.T) {
	s := startServer(t, "default")
	js := s.jetStream(t.Context(), t)
	adaptertest.TestForgedTopic(t, s.open, func(ctx context.Context, topic, forged string) error {
		m := client.NewMsg(nats.PrivateSubject("omnibus", pubsub.Place{Topic: topic, Group: "g", Kind: pubsub.PlaceRetry}, "0"))
		m.Header.Set("Omnibus-Id", forged)
		m.Header.Set("Omnibus-Topic", forged)
		_, err := js.PublishMsg(ctx, m)
		return err
	})
}
