package pubsubtest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Fate is what became of a message that was delivered to a handler.
type Fate struct {
	Acked    bool            // the handler's last run returned nil
	Attempts int             // Delivery.Attempt of the last run: a run that was snoozed or paused is none; 0 = the handler was not called
	Delays   []time.Duration // before each run but the first, from the end of the one before
	Elapsed  time.Duration   // from Publish until settled

	// Of a message that was given up:
	Err        error           // its last failure
	Reason     string          // of the dead letter: "permanent", "max-attempts", "max-elapsed", "undecodable", ...; "expired" where its TTL was over, "dropped" where sub drops
	Category   string          // the matching Rule's
	DeadLetter *pubsub.Message // as it is stored; nil where there is none

	what    string // which message it is, where there are several
	history []string
}

// slack is how much later than asked for a retry may come, see Capabilities.RetryLate of the memory broker.
const slack = 100 * time.Millisecond

// Want fails the test, which goes on, unless the fate is as expected, and shows what differs and what has happened. Acked is always compared,
// of the other fields those that are not zero in want: Err by errors.Is, DeadLetter as WantMessages does, Delays and
// Elapsed with 100ms of room, since a retry comes after its delay, never before. (A Policy without Delays has jitter: set Delays to know them.)
func (f Fate) Want(tb testing.TB, want Fate) {
	tb.Helper()
	if lines, same := f.diff(want); !same {
		tb.Errorf("the fate of %s is not as expected (- expected, + got):\n%s\n%v", f.name(), strings.Join(lines, "\n"), f)
	}
}

func (f Fate) diff(want Fate) (lines []string, same bool) {
	same = true
	row := func(label string, equal bool, got, want string) {
		if equal {
			lines = append(lines, fmt.Sprintf("    %-9s %s", label, got))
			return
		}
		same = false
		lines = append(lines, fmt.Sprintf("  - %-9s %s", label, want), fmt.Sprintf("  + %-9s %s", label, got))
	}
	row("end", f.Acked == want.Acked, f.end(), want.end())
	if want.Attempts != 0 {
		row("attempts", f.Attempts == want.Attempts, strconv.Itoa(f.Attempts), strconv.Itoa(want.Attempts))
	}
	if len(want.Delays) > 0 {
		row("delays", alike(f.Delays, want.Delays), spaced(f.Delays), spaced(want.Delays))
	}
	if want.Elapsed != 0 {
		row("elapsed", within(f.Elapsed, want.Elapsed), f.Elapsed.String(), want.Elapsed.String())
	}
	if want.Err != nil {
		row("error", errors.Is(f.Err, want.Err), errorText(f.Err), errorText(want.Err))
	}
	if want.Reason != "" {
		row("reason", f.Reason == want.Reason, orNone(f.Reason), want.Reason)
	}
	if want.Category != "" {
		row("category", f.Category == want.Category, orNone(f.Category), want.Category)
	}
	if want.DeadLetter != nil {
		if f.DeadLetter == nil {
			row("dead letter", false, "none", "one")
		} else if d := diffMessage(*f.DeadLetter, *want.DeadLetter); d != nil {
			same = false
			lines = append(lines, "    dead letter:")
			lines = append(lines, indent(d, "    ")...)
		}
	}
	return lines, same
}

// String tells what happened, a line each.
func (f Fate) String() string {
	if f.history == nil {
		return f.end()
	}
	return "what happened:\n  " + strings.Join(f.history, "\n  ")
}

func (f Fate) name() string {
	if f.what == "" {
		return "the message"
	}
	return f.what
}

func (f Fate) end() string {
	if f.Acked {
		return "acked"
	}
	return "given up"
}

// fate tells the story of a message that was published at start.
func (s *story) fate(start time.Time) Fate {
	var f Fate
	note := func(at time.Time, format string, args ...any) {
		f.history = append(f.history, fmt.Sprintf("%-10v ", at.Sub(start))+fmt.Sprintf(format, args...))
	}
	note(start, "published")
	for i, r := range s.runs {
		if i > 0 {
			f.Delays = append(f.Delays, r.start.Sub(s.runs[i-1].end))
		}
		f.Attempts, f.Err = r.attempt, r.err
		took := ""
		if d := r.end.Sub(r.start); d > 0 {
			took = fmt.Sprintf(", after %v", d)
		}
		if i >= maxHistory/2 && i < len(s.runs)-maxHistory/2 {
			if i == maxHistory/2 {
				f.history = append(f.history, fmt.Sprintf("... %d more", len(s.runs)-maxHistory))
			}
			continue
		}
		note(r.start, "attempt %d: %s%s", r.attempt, r.text(), took)
	}
	if s.acked.IsZero() {
		return f
	}
	f.Elapsed = s.acked.Sub(start)
	switch {
	case s.dead != nil:
		f.Err, f.Reason, f.Category, f.DeadLetter = s.why, s.reason, s.category, s.dead
		category := ""
		if s.category != "" {
			category = ", category " + s.category
		}
		note(s.acked, "dead letter: %s%s: %s", s.reason, category, errorText(s.why))
	case s.told:
		f.Err, f.Reason = s.why, "dropped"
		note(s.acked, "dropped: %s", errorText(s.why))
	case len(s.runs) > 0 && s.runs[len(s.runs)-1].err == nil:
		f.Acked = true
		note(s.acked, "acked")
	default:
		f.Reason = "expired"
		note(s.acked, "expired")
	}
	return f
}

const maxHistory = 40 // runs that a history shows

func (r *run) text() string {
	switch {
	case r.gone:
		return "its goroutine ended"
	case r.err == nil:
		return "ok"
	}
	return errorText(r.err)
}

// errorText is the first line of an error, at most 200 bytes of it.
func errorText(err error) string {
	if err == nil {
		return "no error"
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	if len(line) > 200 {
		line = strings.ToValidUTF8(line[:200], "") + "..."
	}
	return line
}

func within(got, want time.Duration) bool { return got >= want && got <= want+slack }

func alike(got, want []time.Duration) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if !within(got[i], want[i]) {
			return false
		}
	}
	return true
}

func spaced(ds []time.Duration) string {
	if len(ds) == 0 {
		return "none"
	}
	texts := make([]string, len(ds))
	for i, d := range ds {
		texts[i] = d.String()
	}
	return strings.Join(texts, " ")
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func count(i, n int) string { return fmt.Sprintf("%d of %d", i, n) }
