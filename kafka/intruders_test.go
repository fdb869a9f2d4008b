package kafka_test

import (
	"context"
	"testing"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// opens is for the suite's intruders.
func (s *server) opens(tb testing.TB) adaptertest.Opens {
	tb.Helper()
	return func(p containers.Params) func(context.Context, *pubsub.Options) (*pubsub.Broker, error) {
		address := s.addressOf(tb, p, nil)
		return func(ctx context.Context, opts *pubsub.Options) (*pubsub.Broker, error) {
			return kafka.Open(ctx, address, opts)
		}
	}
}
