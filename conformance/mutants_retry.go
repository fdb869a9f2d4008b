package conformance

import (
	"fmt"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// retryMutants break faults' consequences and what becomes of failures.
func retryMutants() []Mutant {
	return []Mutant{
		{"says stored to what had no answer", "Faults/ConfirmationLost", func() *mutation {
			return &mutation{result: func(r *pubsub.Result) {
				if r.Fate == pubsub.FateUnknown {
					r.Fate, r.Err = pubsub.FateAccepted, nil
				}
			}}
		}},
		{"says stored to what a broker that is not ready refused", "Faults/RefusedForAWhile", acceptsRefusals},
		{"acks every 3rd message when it is delivered", "Faults/SessionsDropped", func() *mutation { return acksEarly(3) }},
		{"acks every 4th message when it is delivered", "Faults/ConsumersKilled", func() *mutation { return acksEarly(4) }},
		{"loses the first 50 messages after a long silence", "Faults/BrokerStalls", func() *mutation {
			var last time.Time
			lose := 0
			return &mutation{record: func(*tapSource, *pubsub.Record) recordFate {
				if silence := time.Since(last); silence > time.Second && silence < time.Minute {
					lose = 50 // more than come again
				}
				last = time.Now()
				if lose--; lose >= 0 {
					return recordLose
				}
				return recordKeep
			}}
		}},
		{"takes a refused session for the end, and hears nothing any more", "Faults/CredentialsRotate", func() *mutation {
			var mu sync.Mutex
			refused := false
			return &mutation{
				opened: func(_ pubsub.Driver, _ pubsub.SourceSpec, err error) error {
					mu.Lock()
					defer mu.Unlock()
					refused = true
					return err
				},
				recvBlocks: func(*tapSource) bool {
					mu.Lock()
					defer mu.Unlock()
					return refused
				},
			}
		}},
		{"loses every 90th message of sessions that follow another", "Faults/BrokerRestarts", func() *mutation {
			return laterSessions(recordLose)
		}},
		{"forgets every 5th failure", "Retry/MaxAttempts", forgetsSomeFailures},
		{"forgets every 5th failure", "Retry/MaxAttemptsAcrossCrash", forgetsSomeFailures},
		{"doubles the delay of every 5th retry and adds 2 s", "Retry/DefaultPolicy", func() *mutation {
			return delays(func(d time.Duration) time.Duration { return 2*d + 2*time.Second })
		}},
		{"does not wait for its retries", "Retry/DefaultPolicy", func() *mutation {
			return &mutation{settle: func(_ *tapSource, x *pubsub.Settlement) bool {
				if x.As == pubsub.SettleRetryIn {
					x.Delay /= 10
				}
				return true
			}}
		}},
		{"forgets every 4th dead letter", "Retry/Permanent", func() *mutation { return losesDead(4) }},
		{"doubles delays and adds 2 s", "Retry/RetryAfter", func() *mutation {
			return delays(func(d time.Duration) time.Duration { return 2*d + 2*time.Second })
		}},
		{"counts whatever is to come later as a failure", "Retry/Snooze", countsSnoozes},
		{"counts whatever is to come later as a failure", "Retry/SnoozeAcrossReconnects", countsSnoozes},
		{"loses what comes first after a pause", "Retry/Pause", losesAfterPause},
		{"halves delays", "Retry/Rules", func() *mutation { return delays(func(d time.Duration) time.Duration { return d / 2 }) }},
		{"acks what should be retried", "Retry/Panic", acksRetries},
		{"forgets every 2nd dead letter", "Retry/Hang", func() *mutation { return losesDead(2) }},
		{"does not count deliveries", "Retry/ProcessKiller", func() *mutation {
			n := 0
			return &mutation{record: func(_ *tapSource, r *pubsub.Record) recordFate {
				if n++; n > sound {
					r.Deliveries = 0
				}
				return recordKeep
			}}
		}},
		{"counts what a session leaves behind as failures", "Retry/ProcessKiller", countsLeftBehind},
		{"counts what a session leaves behind as failures", "Retry/BreakerPauses", countsLeftBehind},
		{"loses every 100th message", "Retry/BreakerPauses", func() *mutation { return shows(recordLose, 100) }},
		{"gives a message that comes again another id", "Retry/Poison", func() *mutation {
			n := 0
			return &mutation{record: func(_ *tapSource, r *pubsub.Record) recordFate {
				if n++; n > sound && r.Failed > 0 {
					m := *r.Msg
					m.ID = fmt.Sprintf("%s-%d", m.ID, n)
					r.Msg = &m
				}
				return recordKeep
			}}
		}},
		{"shows one message at a time", "Retry/OthersDoNotWait", func() *mutation { return oneAtATime(0) }},
		{"takes a second dead letter of a message for a duplicate", "Retry/EachCopyIsStored", func() *mutation {
			seen := map[string]bool{}
			return &mutation{out: func(o *pubsub.Out) outFate {
				if o.To.Kind != pubsub.PlaceDead {
					return outStore
				}
				if seen[o.Msg.ID] {
					return outLose
				}
				seen[o.Msg.ID] = true
				return outStore
			}}
		}},
	}
}

func countsLeftBehind() *mutation {
	n := 0
	return &mutation{record: func(_ *tapSource, r *pubsub.Record) recordFate {
		if n++; n > sound && r.Deliveries > 1 {
			r.Failed = max(r.Failed, r.Deliveries-1)
		}
		return recordKeep
	}}
}

func forgetsSomeFailures() *mutation {
	strike := every(5)
	return &mutation{settle: func(_ *tapSource, x *pubsub.Settlement) bool {
		if x.As == pubsub.SettleRetryIn && strike() {
			x.Failed--
		}
		return true
	}}
}

func countsSnoozes() *mutation {
	n := 0
	return &mutation{
		settle: func(_ *tapSource, x *pubsub.Settlement) bool {
			if n++; n > sound && x.As == pubsub.SettleRetryIn {
				x.Failed++
			}
			return true
		},
		renew: func(r *pubsub.Renewal) bool {
			if n > sound {
				r.Failed++
			}
			return true
		},
	}
}

// acksEarly acks every n-th message when it is delivered.
func acksEarly(n int) *mutation { return shows(recordAck, n) }
