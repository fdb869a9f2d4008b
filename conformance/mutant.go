package conformance

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A Mutant is a broken adapter: a sound driver with one fault. The suite is only worth something if it finds it.
type Mutant struct {
	Name   string // what the adapter does wrong
	Breaks string // the property that must notice

	make func() *mutation
}

// Mutants returns the catalogue. Every property has at least one.
func Mutants() []Mutant {
	return slices.Concat(
		publishMutants(),
		settleMutants(),
		orderMutants(),
		groupMutants(),
		flowMutants(),
		fidelityMutants(),
		lifecycleMutants(),
		faultMutants(),
		retryMutants(),
		movedMutants(),
		placeMutants(),
		outcomeMutants(),
		waitingMutants(),
		topicMutants(),
		blockMutants(),
		otherMutants(),
		securityMutants(),
		attackMutants(),
		networkMutants(),
	)
}

// A MutantResult is a mutant's row in the report.
type MutantResult struct {
	Name         string   `json:"name"`          // what it does, in words
	Breaks       string   `json:"breaks"`        // the property that is to notice
	CaughtBy     []string `json:"caught_by"`     // that property; empty = nothing noticed
	FirstFailure string   `json:"first_failure"` // the assertion that failed first; "" = none did
	Seconds      float64  `json:"seconds"`       // how long it took

	escaped string // why it does not count as caught; "" = it does
}

// A MutantsReport says which mutants the suite finds.
type MutantsReport struct {
	Schema    string         `json:"schema"`                    // "omnibus.mutants/1"
	Mutants   []MutantResult `json:"mutants"`                   // all of them, in the order of the catalogue
	Unguarded []string       `json:"properties_without_mutant"` // properties that no mutant breaks; there should be none

	broker, variant string
	seed            uint64
}

// RunMutants breaks the adapter of h in every way of the catalogue, each as a subtest of t that fails when the property that it breaks
// does not notice, and writes the report. With MUTANT set in the environment, to the name of a mutant or of the property that it breaks, it
// asks all properties about that mutant only, and logs which of them notice; there is no report then.
func RunMutants[R Runner[R]](t R, h Harness) {
	t.Helper()
	base, err := newReport(h)
	if err != nil {
		t.Fatalf("%v", err)
	}
	rep := MutantsReport{Schema: "omnibus.mutants/1", Mutants: []MutantResult{}, Unguarded: withoutMutant(),
		broker: base.Broker, variant: base.Variant, seed: base.Seed}
	all := Mutants()
	only := os.Getenv("MUTANT")
	if only != "" {
		all = slices.DeleteFunc(all, func(m Mutant) bool { return m.Name != only && m.Breaks != only })
		if len(all) == 0 {
			t.Fatalf("MUTANT is %q, which is neither a mutant nor what one breaks", only)
		}
	}
	for _, m := range all {
		t.Run(m.Breaks+"/"+strings.ReplaceAll(m.Name, " ", "-"), func(t R) {
			res, broker := m.try(t, h, base.Seed)
			rep.broker = cmp.Or(broker, rep.broker)
			rep.Mutants = append(rep.Mutants, res)
			if res.escaped != "" {
				t.Errorf("%q breaks %s: %s (SEED=%d)", m.Name, m.Breaks, res.escaped, base.Seed)
			}
			t.Logf("%s", firstLine(res.FirstFailure))
			if only != "" {
				t.Logf("%q is caught by %v", m.Name, append(res.CaughtBy, m.others(t, h, base.Seed)...))
			}
		})
	}
	if len(rep.Unguarded) > 0 {
		t.Errorf("properties without a mutant: %v", rep.Unguarded)
	}
	if only != "" || len(rep.Mutants) < len(all) {
		t.Logf("not all mutants were selected: no report is written")
		return
	}
	dir, err := ReportDir()
	if err == nil {
		err = rep.Write(dir)
	}
	if err != nil {
		t.Errorf("%v", err)
	}
}

// Write stores the report as <dir>/mutants-<broker>-<variant>.json, and for build servers as .xml, see JUnit.
func (r *MutantsReport) Write(dir string) error {
	return writeReport(dir, reportName("mutants", r.broker, r.variant), r, r.JUnit)
}

// withoutMutant names the properties that nothing in the catalogue breaks.
func withoutMutant() []string {
	broken := map[string]bool{}
	for _, m := range Mutants() {
		broken[m.Breaks] = true
	}
	names := []string{}
	for _, p := range Properties() {
		if !broken[p.Name] && p.Pending == "" {
			names = append(names, p.Name)
		}
	}
	return names
}

// try runs the property against the mutant. It counts as caught if the property's own assertion was the first to notice.
func (m Mutant) try(outer T, h Harness, seed uint64) (res MutantResult, broker string) {
	res = MutantResult{Name: m.Name, Breaks: m.Breaks, CaughtBy: []string{}}
	i := slices.IndexFunc(Properties(), func(p Property) bool { return p.Name == m.Breaks })
	if i < 0 {
		res.escaped = "there is no such property"
		return res, ""
	}
	h.KnownFailing = nil
	row := check(context.Background(), outer, h, Properties()[i], seed, m.make())
	res.Seconds = row.Seconds
	switch {
	case row.Status != Failed:
		res.escaped = fmt.Sprintf("not noticed: %s %s", row.Status, row.Reason)
	case !isVerdict(row.failures[0]):
		res.escaped = "noticed only because the property could not be asked: " + row.failures[0]
	case row.handed == 0:
		res.escaped = "it delivers nothing at all: " + row.failures[0]
	case row.early:
		res.escaped = fmt.Sprintf("it does wrong before it got %d messages right: %s", sound, row.failures[0])
	default:
		res.CaughtBy = append(res.CaughtBy, m.Breaks)
	}
	if len(row.failures) > 0 {
		res.FirstFailure = row.failures[0]
	}
	return res, row.adapter
}

// others names the properties that notice the mutant besides the one that it breaks.
func (m Mutant) others(outer T, h Harness, seed uint64) (names []string) {
	known := h.KnownFailing
	h.KnownFailing = nil
	for _, p := range Properties() {
		if _, fails := known[p.Name]; fails || p.Name == m.Breaks {
			continue // a failure without the mutant says nothing about it
		}
		if row := check(context.Background(), outer, h, p, seed, m.make()); row.Status == Failed && isVerdict(row.failures[0]) {
			names = append(names, p.Name)
		}
	}
	return names
}

// sound is how many messages every mutant gets right.
const sound = 20

// every makes a function that says true at each n-th call, but for the first ones.
func every(n int) func() bool {
	calls := 0
	return func() bool {
		calls++
		return calls > sound && calls%n == 0
	}
}

// edit gives o a message of its own and changes it.
func edit(o *pubsub.Out, f func(m *pubsub.Message)) {
	m := o.Msg.Clone()
	f(&m)
	o.Msg = &m
}
