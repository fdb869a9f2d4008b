package redisstreams_test

import (
	"context"
	"testing"

	"github.com/omnibus-go/omnibus/redisstreams"
)

// A connection that ends within the handshake is an error. What the client's dialer returns with it is no nil net.Conn, although there is no connection.
func TestTLSHandshakeEnds(t *testing.T) {
	s := ownServer(t, "tls")
	d, err := s.driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close(context.WithoutCancel(t.Context())) })
	if err := redisstreams.WireTo(t.Context(), d, "orders"); err != nil {
		t.Fatal(err)
	}
	if err := s.Cut(); err != nil {
		t.Fatal(err)
	}
	if err := redisstreams.WireTo(t.Context(), d, "orders"); err == nil {
		t.Error("there is a connection")
	}
	if err := s.Mend(); err != nil {
		t.Fatal(err)
	}
}
