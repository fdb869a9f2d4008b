package nats_test

import (
	"context"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// opens is for the suite's intruders.
func (s *server) opens(p containers.Params) func(context.Context, *pubsub.Options) (*pubsub.Broker, error) {
	if p.User == "" && p.Token == "" { // a server that does not ask for a password takes any
		p.User, p.Password = "somebody", adaptertest.Guess
	}
	address := s.addressOf(p, nil)
	return func(ctx context.Context, opts *pubsub.Options) (*pubsub.Broker, error) {
		return nats.Open(ctx, address, opts)
	}
}
