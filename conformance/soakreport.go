package conformance

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/conformance/internal/history"
)

// A SoakReport is what a run of fault schedules found out about a broker.
type SoakReport struct {
	Schema    string         `json:"schema"`    // "omnibus.soak/1"
	Broker    string         `json:"broker"`    // the adapter's name
	Variant   string         `json:"variant"`   // Harness.Variant, else "default"
	Minutes   float64        `json:"minutes"`   // that were asked for; 0 = a taste
	Schedules []SoakSchedule `json:"schedules"` // in the order in which they ran

	base    *Report // versions and seed, for the table
	test    string
	seconds float64
}

// A SoakSchedule is one schedule of faults, and what the broker's users made of it.
type SoakSchedule struct {
	Seed            uint64      `json:"seed"`             // that its faults follow from
	Faults          []SoakFault `json:"faults"`           // in the order in which they struck
	Published       int         `json:"published"`        // messages that Publish was called with
	Confirmed       int         `json:"confirmed"`        // of these, for which it returned nil
	Unknown         int         `json:"unknown"`          // publishes that failed, and nobody knows what became of them
	Lost            int         `json:"lost"`             // confirmed, and never handled
	Duplicates      int         `json:"duplicates"`       // successes beyond the first of a message
	DuplicateBound  int         `json:"duplicate_bound"`  // how many duplicates these faults allow
	OrderViolations int         `json:"order_violations"` // see PropertyResult.OrderViolations
	Reconnects      int         `json:"reconnects"`       // sessions that were opened again
	Goroutines      int         `json:"goroutines_end"`   // of the process, when all was closed
	RSS             int         `json:"rss_mb_end"`       // of the process, in MiB
	Failures        []string    `json:"failures"`         // what broke a promise, or was in the way, in sentences

	seconds float64
	history history.History // of a schedule that failed
}

// A SoakFault is one fault of a schedule.
type SoakFault struct {
	Kind       string `json:"kind"`             // its name: a Fault's of the Harness, or one of the suite's own, such as a consumer that is killed
	AtMS       int64  `json:"at_ms"`            // since the schedule's begin
	TookEffect bool   `json:"took_effect"`      // as Fault says; false = the schedule does not count
	InFlight   int    `json:"in_flight_at_hit"` // publishes without an answer and unsettled deliveries; 0 unless there were both
}

// Counts says whether the fault worked, and hit something.
func (f SoakFault) Counts() bool { return f.TookEffect && f.InFlight > 0 }

// Counts says whether all faults of the schedule do.
func (s SoakSchedule) Counts() bool {
	for _, f := range s.Faults {
		if !f.Counts() {
			return false
		}
	}
	return len(s.Faults) > 0
}

// OK says whether the schedule broke no promise.
func (s SoakSchedule) OK() bool {
	return len(s.Failures) == 0 && s.Lost == 0 && s.OrderViolations == 0 && s.Duplicates <= s.DuplicateBound
}

// line is the schedule for people.
func (s SoakSchedule) line() string {
	var faults []string
	for _, f := range s.Faults {
		faults = append(faults, describeFault(f))
	}
	return fmt.Sprintf("seed %d: %s; %d published, %d confirmed, %d unknown, %d lost, %d/%d duplicates, %d out of order, %d reconnects, %.1f s",
		s.Seed, strings.Join(faults, ", "), s.Published, s.Confirmed, s.Unknown, s.Lost, s.Duplicates, s.DuplicateBound, s.OrderViolations, s.Reconnects, s.seconds)
}

// Totals adds the schedules up. Goroutines and RSS are the largest, the seed and the faults of none.
func (r *SoakReport) Totals() (sum SoakSchedule) {
	for _, s := range r.Schedules {
		sum.Published += s.Published
		sum.Confirmed += s.Confirmed
		sum.Unknown += s.Unknown
		sum.Lost += s.Lost
		sum.Duplicates += s.Duplicates
		sum.DuplicateBound += s.DuplicateBound
		sum.OrderViolations += s.OrderViolations
		sum.Reconnects += s.Reconnects
		sum.Goroutines = max(sum.Goroutines, s.Goroutines)
		sum.RSS = max(sum.RSS, s.RSS)
	}
	return sum
}

// WithEffect is how many schedules count.
func (r *SoakReport) WithEffect() (n int) {
	for _, s := range r.Schedules {
		if s.Counts() {
			n++
		}
	}
	return n
}

// soakBar is how many schedules must count in that time.
func soakBar(minutes float64) int { return min(30, int(math.Ceil(1.5*minutes))) }

// Failures says in sentences why the run fails; there are none if it does not.
func (r *SoakReport) Failures() (all []string) {
	bad := 0
	for _, s := range r.Schedules {
		if !s.OK() {
			bad++
		}
	}
	n := r.WithEffect()
	if bad > 0 {
		all = append(all, fmt.Sprintf("%d of %d schedules failed", bad, len(r.Schedules)))
	}
	if len(r.Schedules) == 0 || n*5 < len(r.Schedules)*4 {
		all = append(all, fmt.Sprintf("%d of %d schedules had an effect, want four in five", n, len(r.Schedules)))
	}
	if want := soakBar(r.Minutes); n < want {
		all = append(all, fmt.Sprintf("%d schedules had an effect in %v minutes, want %d", n, r.Minutes, want))
	}
	return all
}

// OK says whether the broker kept its promises, and was asked.
func (r *SoakReport) OK() bool { return len(r.Failures()) == 0 }

// Table writes the report for people: how often each kind of fault struck, the totals, and the schedules that failed or do not count.
func (r *SoakReport) Table(w io.Writer) {
	t := &table{w: w, colour: colourful(w)}
	if r.base != nil {
		t.linef(bold, "%s %s (%s), %s, seed %d", r.Broker, r.base.ServerVersion, r.Variant, r.base.Go, r.base.Seed)
	}
	struck, worked := map[string]int{}, map[string]int{}
	var kinds []string
	for _, s := range r.Schedules {
		for _, f := range s.Faults {
			if struck[f.Kind] == 0 {
				kinds = append(kinds, f.Kind)
			}
			struck[f.Kind]++
			if f.Counts() {
				worked[f.Kind]++
			}
		}
	}
	rows := [][]cell{{{text: "fault", style: dim}, {text: "struck", style: dim}, {text: "took effect in flight", style: dim}}}
	for _, k := range kinds {
		rows = append(rows, []cell{{text: k}, {text: strconv.Itoa(struck[k])}, {text: strconv.Itoa(worked[k])}})
	}
	t.rows(rows)
	t.linef(plain, "")
	for _, s := range r.Schedules {
		switch {
		case !s.OK():
			t.wrapped(cell{text: "failed", style: red}, s.line())
			for _, f := range s.Failures {
				t.wrapped(cell{text: "seen", style: dim}, firstLine(f))
			}
			t.labelled(cell{text: "find it", style: dim}, r.rerun(s.Seed))
		case !s.Counts():
			t.wrapped(cell{text: "without effect", style: yellow}, s.line())
		}
	}
	sum, tone := r.Totals(), green
	if !r.OK() {
		tone = red
	}
	t.linef(tone, "%d schedules, %d with effect; %d published, %d confirmed, %d unknown, %d lost, %d of %d duplicates, %d out of order, %d reconnects, in %v",
		len(r.Schedules), r.WithEffect(), sum.Published, sum.Confirmed, sum.Unknown, sum.Lost, sum.Duplicates, sum.DuplicateBound, sum.OrderViolations, sum.Reconnects,
		time.Duration(r.seconds*float64(time.Second)).Round(time.Second))
}

// Write stores the report as <dir>/soak-<broker>-<variant>.json, and for build servers as .xml, see JUnit.
func (r *SoakReport) Write(dir string) error {
	return writeReport(dir, reportName("soak", r.Broker, r.Variant), r, r.JUnit)
}

// JUnit writes the report as JUnit XML: a testcase a schedule.
func (r *SoakReport) JUnit(w io.Writer) error {
	doc := junitSuites{Name: "soak"}
	var seed uint64
	if r.base != nil {
		seed = r.base.Seed
	}
	for _, s := range r.Schedules {
		c := junitCase{Class: junitClass(r.Broker, r.Variant, "Soak"), Name: fmt.Sprintf("SEED=%d", s.Seed), Time: junitTime(s.seconds)}
		switch {
		case !s.OK():
			c.Failure = &junitFailure{firstLine(strings.Join(s.Failures, "\n")), strings.Join(s.Failures, "\n") + "\n" + s.line() + "\n" + r.rerun(s.Seed)}
		case !s.Counts():
			c.Skipped = &junitSkipped{"without effect: " + s.line()}
		}
		doc.add("Soak", c, r.Broker, r.Variant, seed)
	}
	return doc.write(w)
}

// rerun says how to see a schedule again.
func (r *SoakReport) rerun(seed uint64) string {
	race := ""
	if raceEnabled {
		race = " -race"
	}
	return fmt.Sprintf("SEED=%d go test%s -run '^%s$'", seed, race, r.test)
}
