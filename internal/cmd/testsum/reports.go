package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// A report is what the kinds of reports have in common as far as the table shows it.
type report struct {
	Schema        string           `json:"schema"`
	Broker        string           `json:"broker"`
	Variant       string           `json:"variant"`
	ServerVersion string           `json:"server_version"`
	Race          bool             `json:"race"`
	Seconds       float64          `json:"seconds"`
	Properties    []reportProperty `json:"properties"`
	Mutants       []reportMutant   `json:"mutants"`
	Without       []string         `json:"properties_without_mutant"`
	Rows          []reportRow      `json:"rows"`
}

type reportRow struct {
	Op    string `json:"op"`
	Shape string `json:"shape"`
	Impl  string `json:"impl"`
	Ratio *struct {
		Median float64 `json:"median"`
	} `json:"ratio_to_raw"`
}

type reportProperty struct {
	Name       string `json:"name"`
	Status     string `json:"status"`
	Reason     string `json:"reason"`
	Confirmed  int    `json:"confirmed"`
	Lost       int    `json:"lost"`
	Duplicates int    `json:"duplicates"`
	Disorder   int    `json:"order_violations"`
}

type reportMutant struct {
	Name     string   `json:"name"`
	CaughtBy []string `json:"caught_by"`
}

func printReports(dir string, out, errOut io.Writer) int {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		fmt.Fprintln(errOut, "testsum:", err)
		return 1
	}
	if len(files) == 0 {
		fmt.Fprintln(out, "no reports yet: make conformance BROKER=memory writes the first one")
		return 0
	}
	code := 0
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "report\tbroker\tresult\tfigures\tseconds")
	for _, file := range files {
		var r report
		b, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			fmt.Fprintf(errOut, "testsum: %s: %v\n", file, err)
			code = 1
			continue
		}
		result, figures := r.summary()
		broker := strings.TrimSpace(r.Broker + " " + r.Variant + " " + r.ServerVersion)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f\n", strings.TrimSuffix(filepath.Base(file), ".json"), broker, result, figures, r.Seconds)
	}
	if err := w.Flush(); err != nil {
		return 1
	}
	return code
}

func (r report) summary() (result, figures string) {
	switch kind, _, _ := strings.Cut(strings.TrimPrefix(r.Schema, "omnibus."), "/"); kind {
	case "conformance":
		counts := map[string]int{}
		var confirmed, lost, dup, disorder int
		for _, p := range r.Properties {
			counts[p.Status]++
			confirmed += p.Confirmed
			lost += p.Lost
			dup += p.Duplicates
			disorder += p.Disorder
		}
		var parts []string
		for _, status := range []string{"pass", "fail", "known-failing", "gated", "not-run"} {
			if counts[status] > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", counts[status], status))
			}
		}
		return strings.Join(parts, ", "), fmt.Sprintf("%d confirmed, %d lost, %d duplicates, %d out of order", confirmed, lost, dup, disorder)
	case "mutants":
		alive := slices.DeleteFunc(slices.Clone(r.Mutants), func(m reportMutant) bool { return len(m.CaughtBy) > 0 })
		return fmt.Sprintf("%d of %d caught", len(r.Mutants)-len(alive), len(r.Mutants)),
			fmt.Sprintf("%d properties without a mutant", len(r.Without))
	case "bench":
		var impls []string
		var ratios []float64
		for _, row := range r.Rows {
			if !slices.Contains(impls, row.Impl) {
				impls = append(impls, row.Impl)
			}
			// the ratios of latencies are times, and those of handlers that take their time are to an ideal, not to raw
			if row.Impl == "omnibus" && row.Op != "latency" && !strings.Contains(row.Shape, "handler=") && row.Ratio != nil {
				ratios = append(ratios, row.Ratio.Median)
			}
		}
		figures = "no row of omnibus beside raw"
		if len(ratios) > 0 {
			slices.Sort(ratios)
			figures = fmt.Sprintf("omnibus at %.2f of raw's throughput in the middle one of %d rows", ratios[len(ratios)/2], len(ratios))
		}
		return fmt.Sprintf("%d rows of %s", len(r.Rows), strings.Join(impls, ", ")), figures
	default:
		return "unknown schema " + r.Schema, ""
	}
}
