package redisstreams_test

import (
	"context"
	"testing"

	"github.com/omnibus-go/omnibus/internal/adaptertest"
)

// A live tail reads on behind what is settled.
func TestLiveTailGoesOn(t *testing.T) {
	s := ownServer(t, "default")
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	adaptertest.TestLiveTail(t, s.Broker, s.open(t), d)
}
