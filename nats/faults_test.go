package nats_test

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/conformance"
)

// leadership asks who leads the stream.
func (s *server) leadership(ctx context.Context, _ string) (pauseFollowers, wipeLeader conformance.Fault, err error) {
	d, err := s.driver(ctx)
	if err != nil {
		return pauseFollowers, wipeLeader, err
	}
	defer func() { _ = d.Close(ctx) }()
	var js jetstream.JetStream
	d.As(&js)
	stream, err := js.Stream(ctx, "omnibus")
	if err != nil {
		return pauseFollowers, wipeLeader, err
	}
	return s.Replicas(stream.CachedInfo().Cluster.Leader)
}
