package memory

import (
	"context"

	"github.com/omnibus-go/omnibus/pubsub"
)

// faults is what is broken on purpose.
type faults struct {
	lose    int
	refuse  int
	with    error
	down    bool
	stalled chan struct{} // closed when the stall is over; nil = none
}

func (f *faults) refusal() error {
	if f.refuse == 0 {
		return nil
	}
	f.refuse--
	return f.with
}

// enter takes the lock once the broker is there and answers.
func (s *Server) enter(ctx context.Context) error {
	for {
		s.mu.Lock()
		stalled := s.faults.stalled
		if stalled == nil {
			break
		}
		s.mu.Unlock()
		select {
		case <-stalled:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if s.faults.down {
		s.mu.Unlock()
		return errDown
	}
	return nil
}

// LoseConfirmations stores the next n messages without saying so: their session dies instead of confirming.
func (s *Server) LoseConfirmations(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.lose = n
}

// Refuse refuses the next n messages with an error of that code. ErrUnavailable invites another try, every other code is final.
func (s *Server) Refuse(n int, code pubsub.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.refuse, s.faults.with = n, says(code, code != pubsub.ErrUnavailable, "refused on purpose")
}

// DropSessions cuts all sessions of all connections. What they held goes back to its groups.
func (s *Server) DropSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d := range s.live {
		d.dropSessions(errGone)
	}
}

// Stall lets nothing answer until the function it returns is called: a black hole. Calls still end with their context.
func (s *Server) Stall() (resume func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.stalled == nil {
		s.faults.stalled = make(chan struct{})
	}
	mine := s.faults.stalled
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.faults.stalled == mine {
			close(mine)
			s.faults.stalled = nil
		}
	}
}

// Crash ends the broker: every session dies, and nothing answers until Restart. It keeps its data, with what is not settled,
// its deliveries and its failures.
func (s *Server) Crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.down = true
	for d := range s.live {
		d.dropSessions(errDown)
	}
}

// Restart brings a crashed broker back.
func (s *Server) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.down = false
}
