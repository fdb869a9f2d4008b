package kafka_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/pubsub"
)

// TestKeylessToCompacted: a message without a key, which a compacted topic does not take, is invalid, and those that were sent with it are stored.
func TestKeylessToCompacted(t *testing.T) {
	s := startServer(t, "default")
	admin, err := s.admin(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	topic, policy := unique("compacted"), "compact"
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: map[string]*string{"cleanup.policy": &policy}}, false); err != nil {
		t.Fatal(err)
	}
	b := s.open(t)
	messages := make([]pubsub.Message, 20)
	for i := range messages {
		if messages[i].Payload = []byte("x"); i != 7 {
			messages[i].Key = "k"
		}
	}
	err = b.PublishBatch(t.Context(), topic, messages)
	batch, ok := errors.AsType[*pubsub.BatchError](err)
	if !ok {
		t.Fatal(err)
	}
	for i, err := range batch.Errs {
		switch {
		case i != 7 && err != nil:
			t.Errorf("message %d is refused: %v", i, err)
		case i == 7 && (!errors.Is(err, pubsub.ErrInvalid) || !strings.Contains(err.Error(), "without key")):
			t.Errorf("the message without a key is refused with: %v", err)
		}
	}
}
