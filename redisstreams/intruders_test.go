package redisstreams_test

import (
	"context"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// opens is for the suite's intruders.
func (s *server) opens(p containers.Params) func(context.Context, *pubsub.Options) (*pubsub.Broker, error) {
	address := s.addressOf(p, nil)
	return func(ctx context.Context, opts *pubsub.Options) (*pubsub.Broker, error) {
		return redisstreams.Open(ctx, address, opts)
	}
}
