package nats_test

import (
	"context"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/conformance"
)

// networkFaults are those that the suite asks for by name. What else can be done to the server is for TestSoak.
func (s *server) networkFaults() []conformance.Fault {
	return slices.DeleteFunc(s.Faults(), func(f conformance.Fault) bool { return f.Name != conformance.HalfOpen })
}

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
