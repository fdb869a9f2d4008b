package rabbitmq_test

import (
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// A queue whose node does not run is there, and comes back with that.
func TestQueueOnStoppedNode(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]struct {
		code  pubsub.Code
		final bool
	}{
		"NOT_FOUND - home node 'rabbit@b' of durable queue 'q' in vhost '/' is down or inaccessible": {pubsub.ErrUnavailable, false},
		"NOT_FOUND - no queue 'q' in vhost '/'":                                                      {pubsub.ErrNotFound, true},
	} {
		code, final := rabbitmq.Classify(&amqp.Error{Code: amqp.NotFound, Reason: reason, Server: true})
		if code != want.code || final != want.final {
			t.Errorf("%s: %v, final %v", reason, code.Error(), final)
		}
	}
}
