package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Status is what became of a property.
type Status string

const (
	Passed       Status = "pass"
	Failed       Status = "fail"
	KnownFailing Status = "known-failing" // failed as Harness.KnownFailing says
	Gated        Status = "gated"         // the broker does not claim it, and nobody can ask for it
	NotRun       Status = "not-run"
)

// A PropertyResult is a property's row in the report.
type PropertyResult struct {
	Name            string  `json:"name"`
	Gate            string  `json:"gate"`
	Status          Status  `json:"status"`
	Seconds         float64 `json:"seconds"`
	Reason          string  `json:"reason"`
	Confirmed       int     `json:"confirmed"`
	Received        int     `json:"received"`
	Lost            int     `json:"lost"`
	Duplicates      int     `json:"duplicates"`
	DuplicateBound  int     `json:"duplicate_bound"`
	OrderViolations int     `json:"order_violations"`

	failures []string
	logs     []string
	caps     pubsub.Capabilities
	adapter  string
	handed   int // records that the adapter gave to the engine
}

// A Report is what a run of the suite found out about a broker.
type Report struct {
	Schema        string           `json:"schema"`
	Broker        string           `json:"broker"`
	Variant       string           `json:"variant"`
	ServerVersion string           `json:"server_version"`
	ClientVersion string           `json:"client_version"`
	Go            string           `json:"go"`
	Race          bool             `json:"race"`
	Seed          uint64           `json:"seed"`
	Seconds       float64          `json:"seconds"`
	Capabilities  map[string]any   `json:"capabilities"`
	Properties    []PropertyResult `json:"properties"`
	Totals        map[Status]int   `json:"totals"`

	partial bool // some properties were deselected: not worth keeping
}

// add puts a property's row in.
func (r *Report) add(p PropertyResult) {
	if r.Broker == "" && p.adapter != "" {
		r.Broker, r.Capabilities = p.adapter, describe(p.caps)
	}
	r.Properties = append(r.Properties, p)
	r.Totals[p.Status]++
	r.Seconds += p.Seconds
}

// OK says whether the broker keeps its promises: nothing failed, and what was not run has a reason.
func (r *Report) OK() bool {
	for _, p := range r.Properties {
		if p.Status == Failed || p.Status == NotRun && p.Reason == "" {
			return false
		}
	}
	return true
}

// Table writes the report for a terminal.
func (r *Report) Table(w io.Writer) {
	fmt.Fprintf(w, "%s (%s), seed %d, %.1f s\n", r.Broker, r.Variant, r.Seed, r.Seconds)
	fmt.Fprintf(w, "%-36s %-13s %8s %9s %8s %5s %9s %5s\n", "property", "status", "seconds", "confirmed", "received", "lost", "dup/bound", "order")
	for _, p := range r.Properties {
		fmt.Fprintf(w, "%-36s %-13s %8.3f %9d %8d %5d %9s %5d  %s\n", p.Name, p.Status, p.Seconds, p.Confirmed, p.Received, p.Lost,
			fmt.Sprintf("%d/%d", p.Duplicates, p.DuplicateBound), p.OrderViolations, firstLine(p.Reason))
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d known to fail, %d gated, %d not run\n",
		r.Totals[Passed], r.Totals[Failed], r.Totals[KnownFailing], r.Totals[Gated], r.Totals[NotRun])
}

// Write stores the report as <dir>/conformance-<broker>-<variant>.json.
func (r *Report) Write(dir string) error {
	return writeJSON(dir, fmt.Sprintf("conformance-%s-%s.json", r.Broker, r.Variant), r)
}

func writeJSON(dir, name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name), append(b, '\n'), 0o644)
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
