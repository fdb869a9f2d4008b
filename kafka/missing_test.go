package kafka_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A group of which a topic is missing, and that may not be made, is refused with the name of that topic.
func TestMissingTopicOfAGroup(t *testing.T) {
	s := startServer(t, "default")
	admin, err := s.admin(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	b := s.open(t)
	sub := pubsub.Subscription{Topic: unique("orders"), Group: "g"}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	state := kafka.TopicOf(pubsub.Place{Topic: sub.Topic, Group: sub.Group, Kind: pubsub.PlaceState})
	if err := admin.DeleteTopic(state); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the end of the topic", func() bool {
		all, err := admin.ListTopics()
		_, there := all[state]
		return err == nil && !there
	})
	careful, err := kafka.Open(t.Context(), s.address(t, nil), &pubsub.Options{Manage: pubsub.Verify})
	if err != nil {
		t.Fatal(err)
	}
	defer careful.Close()
	err = careful.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}})
	e, ok := errors.AsType[*pubsub.Error](err)
	if !ok || e.Code != pubsub.ErrNotFound || !strings.Contains(err.Error(), state) || !strings.Contains(e.Hint, "Ensure") {
		t.Error(err)
	}
}
