package rabbitmq_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/rabbitmq"
)

// A sink notes each write.
type sink struct {
	net.Conn
	writes []string
	err    error
	closed bool
	until  time.Time
}

func (s *sink) Write(b []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.writes = append(s.writes, string(b))
	return len(b), nil
}

func (s *sink) Close() error { s.closed = true; return nil }

func (s *sink) SetReadDeadline(t time.Time) error { s.until = t; return nil }

func write(t *testing.T, c net.Conn, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
}

func TestCork(t *testing.T) {
	t.Parallel()
	s := &sink{}
	c, cork, uncork := rabbitmq.Corked(s)
	write(t, c, "a")
	cork()
	write(t, c, "b", "c")
	cork() // another one
	write(t, c, "d")
	if err := uncork(); err != nil {
		t.Fatal(err)
	}
	if len(s.writes) != 1 {
		t.Errorf("with a cork left %q are written", s.writes)
	}
	if err := uncork(); err != nil {
		t.Fatal(err)
	}
	write(t, c, "e")
	if len(s.writes) != 3 || s.writes[1] != "bcd" || s.writes[2] != "e" {
		t.Errorf("written: %q", s.writes)
	}
	cork()
	write(t, c, string(make([]byte, 100_000)))
	if len(s.writes) != 4 {
		t.Errorf("a lot is held back")
	}
	write(t, c, "f")
	s.err = errors.New("broken")
	if err := uncork(); !errors.Is(err, s.err) || !s.closed {
		t.Errorf("what cannot be written is %v, closed %v", err, s.closed)
	}
}

// The client would wait for three heartbeats.
func TestReadDeadline(t *testing.T) {
	t.Parallel()
	const heartbeat = 10 * time.Second
	s := &sink{}
	c, _, _ := rabbitmq.Corked(s)
	if err := c.SetReadDeadline(time.Now().Add(3 * heartbeat)); err != nil {
		t.Fatal(err)
	}
	if wait := time.Until(s.until); wait > 2*heartbeat || wait < 2*heartbeat-time.Second {
		t.Errorf("a connection may be silent for %v", wait)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil || !s.until.IsZero() {
		t.Errorf("no deadline became %v (%v)", s.until, err)
	}
}
