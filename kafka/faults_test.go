package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
)

// networkFaults are those that the suite asks for by name. What else can be done to the server is for TestSoak.
func (s *server) networkFaults() []conformance.Fault {
	return slices.DeleteFunc(s.Faults(), func(f conformance.Fault) bool { return f.Name != conformance.HalfOpen })
}

// leadership asks who leads the topic.
func (s *server) leadership(tb testing.TB) func(ctx context.Context, topic string) (pauseFollowers, wipeLeader conformance.Fault, err error) {
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
		leader := fmt.Sprintf("kafka-%d", meta[0].Partitions[0].Leader)
		var pauses []conformance.Fault
		for _, f := range s.Faults() {
			what, node, _ := strings.Cut(f.Name, " ") // "pause" alone is all nodes
			switch {
			case what == "wipe" && node == leader:
				wipeLeader = f
			case what == "pause" && node != "" && node != leader:
				pauses = append(pauses, f)
			}
		}
		if wipeLeader.Strike == nil || len(pauses) != len(s.Nodes())-1 {
			return pauseFollowers, wipeLeader, errors.New("the leader is " + leader + ", which is none of the nodes")
		}
		return together("pause the followers", pauses), wipeLeader, nil
	}
}

// together is several faults at once.
func together(name string, all []conformance.Fault) conformance.Fault {
	return conformance.Fault{Name: name, Strike: func(ctx context.Context) (func(context.Context) (bool, error), error) {
		var mends []func(context.Context) (bool, error)
		var errs []error
		for _, f := range all {
			mend, err := f.Strike(ctx)
			if err == nil {
				mends = append(mends, mend)
			}
			errs = append(errs, err)
		}
		return func(ctx context.Context) (bool, error) {
			effect, errs := true, []error(nil)
			for _, mend := range mends {
				worked, err := mend(ctx)
				effect, errs = effect && worked, append(errs, err)
			}
			return effect, errors.Join(errs...)
		}, errors.Join(errs...)
	}}
}
