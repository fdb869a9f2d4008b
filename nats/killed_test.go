package nats_test

import (
	"testing"

	"github.com/omnibus-go/omnibus/internal/adaptertest"
)

func subject(t *testing.T) adaptertest.Server {
	t.Helper()
	s := startServer(t, "default")
	return adaptertest.Server{Broker: s.open(t), URL: s.address(nil)}
}

func TestProcessKillerForReal(t *testing.T) {
	subject(t).TestProcessKiller(t, 75) // with less than a quarter free a subscription asks for nothing more
}

func TestKilledBetweenDeadLetterAndAck(t *testing.T) {
	subject(t).TestKilledBetweenDeadLetterAndAck(t)
}

func TestReplayKilledForReal(t *testing.T) { subject(t).TestReplayKilled(t) }
