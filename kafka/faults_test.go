package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
)

// leadership asks who leads the topic.
func (s *server) leadership(tb testing.TB) func(ctx context.Context, topic string) (pauseFollowers, wipeLeader conformance.Fault, err error) {
	tb.Helper()
	return func(ctx context.Context, topic string) (pauseFollowers, wipeLeader conformance.Fault, err error) {
		admin, err := s.admin(ctx, tb)
		if err != nil {
			return pauseFollowers, wipeLeader, err
		}
		defer func() { _ = admin.Close() }()
		meta, err := admin.DescribeTopics([]string{topic})
		if err != nil || len(meta) != 1 || len(meta[0].Partitions) == 0 {
			return pauseFollowers, wipeLeader, errors.Join(err, errors.New("the topic has no partitions"))
		}
		return s.Replicas(fmt.Sprintf("kafka-%d", meta[0].Partitions[0].Leader))
	}
}
