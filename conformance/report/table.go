package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/omnibus-go/omnibus/conformance"
)

// Table writes a line a report.
func (s *Set) Table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "report\tbroker\tresult\tfigures\tseconds")
	for _, c := range s.Conformance {
		f := c.sum()
		fmt.Fprintf(t, "%s\t%s\t%s\t%d confirmed, %d received, %d lost, %d of %d duplicates, %d out of order\t%.1f\n", c.Name, c.Label(), c.result(),
			f.Confirmed, f.Received, f.Lost, f.Duplicates, f.DuplicateBound, f.OrderViolations, f.Seconds)
	}
	for _, m := range s.Mutants {
		n := len(m.MutantsReport.Mutants)
		fmt.Fprintf(t, "%s\t%s\t%d of %d caught\t%d properties without a mutant\t%.1f\n", m.Name, m.Label(), n-len(m.escaped()), n, len(m.Unguarded), m.seconds())
	}
	for _, k := range s.Soak {
		f := k.Totals()
		fmt.Fprintf(t, "%s\t%s\t%s\t%d confirmed, %d unknown, %d lost, %d of %d duplicates, %d out of order, %d reconnects\t\n", k.Name, k.Label(), k.Result(),
			f.Confirmed, f.Unknown, f.Lost, f.Duplicates, f.DuplicateBound, f.OrderViolations, f.Reconnects)
	}
	for _, b := range s.Bench {
		fmt.Fprintf(t, "%s\t%s\t%d rows\t%s\t\n", b.Name, b.Label(), len(b.Rows), b.span())
	}
	for _, o := range s.Others {
		fmt.Fprintf(t, "%s\t\tnot shown\t%s\t\n", o.Name, o.Why)
	}
	t.Flush()
}

// statuses are in the order in which a reader wants to hear of them.
func statuses() []conformance.Status {
	return []conformance.Status{conformance.Passed, conformance.Failed, conformance.KnownFailing, conformance.NotRun, conformance.Gated}
}

// result counts the properties by status.
func (c Conformance) result() string {
	var parts []string
	for _, s := range statuses() {
		if n := c.count(s); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return strings.Join(parts, ", ")
}

func (c Conformance) count(s conformance.Status) int {
	n := 0
	for _, p := range c.Properties {
		if p.Status == s {
			n++
		}
	}
	return n
}

// sum adds up the figures of all properties. The seconds are the run's: properties run side by side.
func (c Conformance) sum() (sum conformance.PropertyResult) {
	sum.Seconds = c.Seconds
	for _, p := range c.Properties {
		sum.Confirmed += p.Confirmed
		sum.Received += p.Received
		sum.Lost += p.Lost
		sum.Duplicates += p.Duplicates
		sum.DuplicateBound += p.DuplicateBound
		sum.OrderViolations += p.OrderViolations
	}
	return sum
}

// Label is what the reader knows the run by: the schema has no broker, but the file's name has.
func (m Mutants) Label() string {
	return strings.TrimSuffix(strings.TrimPrefix(m.Name, "mutants-"), "-default")
}

func (m Mutants) seconds() (sum float64) {
	for _, r := range m.MutantsReport.Mutants {
		sum += r.Seconds
	}
	return sum
}

// Result counts the schedules.
func (k Soak) Result() string {
	bad := 0
	for _, s := range k.Schedules {
		if !s.OK() {
			bad++
		}
	}
	text := fmt.Sprintf("%d schedules, %d with effect", len(k.Schedules), k.WithEffect())
	if bad > 0 {
		text += fmt.Sprintf(", %d failed", bad)
	}
	return text
}

// span says between what our own messages a second lie.
func (b Bench) span() string {
	low, high, n := 0.0, 0.0, 0
	for _, r := range b.Rows {
		if r.RatioToRaw == nil || r.Impl != ours || r.Op == latency {
			continue
		}
		if m := r.RatioToRaw.Median; n == 0 {
			low, high = m, m
		} else {
			low, high = min(low, m), max(high, m)
		}
		n++
	}
	if n == 0 {
		return "nothing compared"
	}
	return fmt.Sprintf("%.2f to %.2f of what the raw client does", low, high)
}

// Caught is how many mutants a property has caught.
func (m Mutants) Caught() int { return len(m.MutantsReport.Mutants) - len(m.escaped()) }
