package dlq

import (
	"maps"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Route makes the function for DeadLetter.Route that picks a topic by the category of the failure: that of the subscription's first rule that
// matched. A category without a topic, and a failure that no rule matched, go where they would go without it.
func Route(topics map[string]string) func(*pubsub.Delivery, error) string {
	topics = maps.Clone(topics)
	delete(topics, "") // "" is no category
	return func(_ *pubsub.Delivery, err error) string { return topics[pubsub.CategoryOf(err)] }
}
