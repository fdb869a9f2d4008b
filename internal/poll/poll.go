// Package poll waits, in tests, for what comes by itself.
package poll

import "time"

// Patience is how long Until waits. Nothing waits that long unless something is wrong.
const Patience = 30 * time.Second

const longest = 20 * time.Millisecond // between two looks

// A TB is a testing.TB. Packages that import this one link no testing.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Until waits until cond holds. If it does not within Patience, the test ends with what has not come.
func Until(tb TB, what string, cond func() bool) {
	tb.Helper()
	Within(tb, Patience, what, cond)
}

// Within is Until with another patience.
func Within(tb TB, d time.Duration, what string, cond func() bool) {
	tb.Helper()
	if !Holds(d, cond) {
		tb.Fatalf("still waiting after %v: %s", d, what)
	}
}

// Holds waits until cond holds, or d is over, and says whether it does. It asks at once, then more and more rarely, and once more when d is over: what has
// come by then counts, however seldom the machine got to this.
func Holds(d time.Duration, cond func() bool) bool {
	end := time.Now().Add(d)
	for pause := time.Millisecond; !cond(); pause = min(2*pause, longest) {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		<-time.After(min(pause, left))
	}
	return true
}
