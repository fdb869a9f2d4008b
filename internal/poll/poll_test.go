package poll_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/internal/poll"
)

func TestHolds(t *testing.T) {
	const d = time.Second
	for name, c := range map[string]struct {
		after, each time.Duration // cond holds from then on, and takes so long
		took        time.Duration // < 0 = it does not hold
	}{
		"at once":          {0, 0, 0},
		"soon":             {5 * time.Millisecond, 0, 7 * time.Millisecond}, // it looks after 1, 3 and 7
		"when it is over":  {d, 0, d},
		"too late":         {d + time.Millisecond, 0, -1},
		"a slow look, too": {d + time.Millisecond, 2 * d, 2 * d}, // which began in time
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				got := poll.Holds(d, func() bool {
					time.Sleep(c.each)
					return time.Since(begin) >= c.after
				})
				if took := time.Since(begin); got != (c.took >= 0) || got && took != c.took {
					t.Errorf("%v after %v, want it after %v", got, took, c.took)
				}
			})
		})
	}
}

// What stands for a test says what the test would.
type said struct {
	helped bool
	text   string
}

func (s *said) Helper()                           { s.helped = true }
func (s *said) Fatalf(format string, args ...any) { s.text = fmt.Sprintf(format, args...) }

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s said
		poll.Until(&s, "all is there", func() bool { return false })
		if s.text != "still waiting after 30s: all is there" || !s.helped {
			t.Errorf("it says %q, and is a helper: %v", s.text, s.helped)
		}
		s = said{}
		poll.Until(&s, "nothing", func() bool { return true })
		if s.text != "" {
			t.Errorf("of what holds it says %q", s.text)
		}
	})
}
