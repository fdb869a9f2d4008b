package conformance

import (
	"context"
	"errors"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// faultMutants do worse than they could while something is wrong.
func faultMutants() []Mutant {
	return []Mutant{
		{"shows every 100th message twice", "Faults/Latency", func() *mutation { return shows(recordTwice, 100) }},
		{"takes an answer that takes long for a dead session", "Faults/Latency", func() *mutation {
			return &mutation{wrapSource: func(_ pubsub.Driver, _ pubsub.SourceSpec, src pubsub.Source) pubsub.Source { return hasty{src} }}
		}},
		{"loses every 100th message", "Faults/SessionsDropped", func() *mutation { return shows(recordLose, 100) }},
		{"loses every 100th message", "Faults/ConsumersKilled", func() *mutation { return shows(recordLose, 100) }},
		{"loses every 100th message", "Faults/BrokerStalls", func() *mutation { return shows(recordLose, 100) }},
		{"takes bad credentials for an outage", "Faults/CredentialsRevoked", func() *mutation {
			return &mutation{classify: func(code pubsub.Code, final bool) (pubsub.Code, bool) {
				if code == pubsub.ErrUnauthenticated {
					return pubsub.ErrUnavailable, false
				}
				return code, final
			}}
		}},
		{"says that all is well without asking", "Faults/AbsentAtOpen", func() *mutation {
			return &mutation{ping: func(error) error { return nil }}
		}},
		{"forgets every 100th message that it confirms", "Faults/PublisherBlocked", func() *mutation { return loses(100) }},
		{"says stored to what there is no room for", "Faults/Exhausted", acceptsRefusals},
		{"acks every 4th message when it is delivered", "Faults/RebalanceWithStuckHandler", func() *mutation { return acksEarly(4) }},
		{"loses every 90th message of sessions that follow another", "Faults/Schedules", func() *mutation { return laterSessions(recordLose) }},
		{"lets a later message of a key go first, in sessions that follow another", "Faults/Schedules", func() *mutation { return laterSessions(recordHold) }},
		{"forgets every 100th message that it confirms", "Faults/Schedules", func() *mutation { return loses(100) }},
	}
}

// loses confirms every n-th message without storing it.
func loses(n int) *mutation {
	strike := every(n)
	return &mutation{out: func(*pubsub.Out) outFate {
		if strike() {
			return outLose
		}
		return outStore
	}}
}

// hasty is a source that does not wait for its answers.
type hasty struct{ pubsub.Source }

func (h hasty) Settle(ctx context.Context, xs []pubsub.Settlement, errs []error) error {
	begin := time.Now()
	if err := h.Source.Settle(ctx, xs, errs); err != nil {
		return err
	}
	if time.Since(begin) > 100*time.Millisecond {
		return errors.New("conformance: no answer in time")
	}
	return nil
}
