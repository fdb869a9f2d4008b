package conformance

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Status is what became of a property.
type Status string

const (
	Passed       Status = "pass"          // it holds; or what it is about is not declared, and refused
	Failed       Status = "fail"          // it does not hold, or could not be asked; Reason says which
	KnownFailing Status = "known-failing" // failed as Harness.KnownFailing says
	Gated        Status = "gated"         // the broker does not claim it, and nobody can ask for it
	NotRun       Status = "not-run"       // the harness cannot cause what it takes; Reason says what
)

// A PropertyResult is a property's row in the report.
type PropertyResult struct {
	Name            string  `json:"name"`             // as in "Order/PerKey"
	Gate            string  `json:"gate"`             // the capabilities that it asks for, in words; "" = none
	Status          Status  `json:"status"`           // what became of it
	Seconds         float64 `json:"seconds"`          // how long it took
	Reason          string  `json:"reason"`           // why it did not pass; "" where it did
	Confirmed       int     `json:"confirmed"`        // messages that Publish returned nil for
	Received        int     `json:"received"`         // messages that a handler has succeeded with, once for each group
	Lost            int     `json:"lost"`             // confirmed, and never handled
	Duplicates      int     `json:"duplicates"`       // successes beyond the first of a message in a group
	DuplicateBound  int     `json:"duplicate_bound"`  // how many duplicates the promise allows
	OrderViolations int     `json:"order_violations"` // times that a handler began before its predecessor in the key was settled, or a message came first after a later one

	failures []string
	logs     []string
	caps     pubsub.Capabilities
	adapter  string
	handed   int  // records that the adapter gave to the engine
	early    bool // a mutant: it had its first fault before it got as many messages right as it must
}

// Verdict says of a failure whether it is the property's own assertion. Otherwise the suite could not ask its question: the connection, the
// harness or a panic was in the way.
func (p PropertyResult) Verdict() bool { return isVerdict(p.Reason) }

// A Report is what a run of the suite found out about a broker.
type Report struct {
	Schema        string           `json:"schema"`         // "omnibus.conformance/1"
	Broker        string           `json:"broker"`         // the adapter's name; "unknown" = it was never reached
	Variant       string           `json:"variant"`        // Harness.Variant, else "default"
	ServerVersion string           `json:"server_version"` // Harness.ServerVersion; "" = there is no server, or nobody says
	ClientVersion string           `json:"client_version"` // Harness.ClientVersion; "" = unknown
	Go            string           `json:"go"`             // the version of Go
	Race          bool             `json:"race"`           // with the race detector
	Seed          uint64           `json:"seed"`           // of all random choices; SEED repeats them
	Seconds       float64          `json:"seconds"`        // of the run: less than the sum of its properties', which run side by side
	Capabilities  map[string]any   `json:"capabilities"`   // what the driver has declared, by the names of pubsub.Capabilities; durations and kinds as text
	Properties    []PropertyResult `json:"properties"`     // in the order of Properties
	Totals        map[Status]int   `json:"totals"`         // how many properties have which status

	test       string // that ran it; "" = Check
	begin      time.Time
	deselected int // properties that the test run left out: then it is not worth keeping
}

// unknownBroker is the broker's name in the report of a run that never reached it.
const unknownBroker = "unknown"

// add puts a property's row in.
func (r *Report) add(p PropertyResult) {
	if r.Broker == unknownBroker && p.adapter != "" {
		r.Broker, r.Capabilities = p.adapter, describe(p.caps)
	}
	r.Properties = append(r.Properties, p)
	r.Totals[p.Status]++
}

// finish ends the report of a run: it has the order of the catalogue, whatever ended first.
func (r *Report) finish() {
	order := map[string]int{}
	for i, p := range Properties() {
		order[p.Name] = i
	}
	slices.SortFunc(r.Properties, func(a, b PropertyResult) int { return order[a.Name] - order[b.Name] })
	r.Seconds = time.Since(r.begin).Seconds()
	r.deselected = len(order) - len(r.Properties)
}

// OK says whether the broker keeps its promises: it was asked, nothing failed or was lost, and what was not run has a reason.
func (r *Report) OK() bool {
	return len(r.Properties) > 0 && !slices.ContainsFunc(r.Properties, PropertyResult.fails)
}

// fails says whether the property fails the run.
func (p PropertyResult) fails() bool {
	return p.Status == Failed || p.Status == NotRun && p.Reason == ""
}

// Partial says that not all properties were asked: the report would replace one of a whole run.
func (r *Report) Partial() bool { return r.deselected > 0 }

// Write stores the report as <dir>/conformance-<broker>-<variant>.json, and for build servers as .xml, see JUnit.
func (r *Report) Write(dir string) error {
	return writeReport(dir, reportName("conformance", r.Broker, r.Variant), r, r.JUnit)
}

// reportName is a report's file name without its end. What a file name cannot hold everywhere becomes a dash.
func reportName(kind, broker, variant string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r) {
			return r
		}
		return '-'
	}, kind+"-"+cmp.Or(broker, unknownBroker)+"-"+cmp.Or(variant, "default"))
}

// writeReport stores v as JSON, and beside it what junit writes.
func writeReport(dir, name string, v any, junit func(io.Writer) error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	var xml bytes.Buffer
	if err := junit(&xml); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".xml"), xml.Bytes(), 0o644)
}

// ReportDir is where reports go: OMNIBUS_REPORTS, else build/reports beside the go.mod above the working directory.
func ReportDir() (string, error) {
	if dir := os.Getenv("OMNIBUS_REPORTS"); dir != "" {
		return dir, nil
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "build", "reports"), nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod above %s: set OMNIBUS_REPORTS", wd)
		}
		dir = up
	}
}

// describe writes capabilities as a reader expects them: texts for what counts something, "forever" for what has no end.
func describe(c pubsub.Capabilities) map[string]any {
	m := map[string]any{}
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		f := v.Field(i).Interface()
		switch x := f.(type) {
		case time.Duration:
			if x == pubsub.Forever {
				f = "forever"
			} else {
				f = x.String()
			}
		case fmt.Stringer:
			f = x.String()
		}
		m[v.Type().Field(i).Name] = f
	}
	return m
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
