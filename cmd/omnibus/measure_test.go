package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/conformance/report"
	"github.com/omnibus-go/omnibus/internal/poll"
)

// A whole run writes what package report reads, and its page with charts; a part of one writes nothing.
func TestBench(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "reports")
	out := w.must("bench", "mem://", "--each", "2ms", "--rate", "20000", "--callers", "4", "--reports", dir, "--server-version", "9.9", "--json")
	var rep benchReport
	if err := json.Unmarshal([]byte(out), &rep); err != nil {
		t.Fatal(err)
	}
	var ops []string
	for _, r := range rep.Rows {
		ops = append(ops, r.Op)
		if r.Rates == nil || r.Rates.Min <= 0 || r.Rates.Min > r.MsgsPerS || r.MsgsPerS > r.Rates.Max || r.Reps < 5 {
			t.Errorf("%s %s: %v messages a second in %d repetitions, from %v", r.Op, r.Shape, r.MsgsPerS, r.Reps, r.Rates)
		}
		if (r.Op == "latency") != (len(r.Delays) > 0) || !slices.IsSortedFunc(r.Delays, func(a, b report.Delay) int { return int(a.Us*1e3) - int(b.Us*1e3) }) {
			t.Errorf("%s: delays %v", r.Op, r.Delays)
		}
	}
	if want := []string{"publish", "publish", "publish", "publish", "consume", "consume", "latency"}; !slices.Equal(ops, want) {
		t.Errorf("rows %q, want %q", ops, want)
	}
	s, err := report.Read(os.DirFS(dir))
	if err != nil || len(s.Bench) != 1 || len(s.Others) > 0 || s.Bench[0].Label() != "memory alone" || len(s.Bench[0].Rows) != len(rep.Rows) {
		t.Fatalf("%v: read is %+v", err, s)
	}
	page, err := os.ReadFile(filepath.Join(dir, report.PageName))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`<svg class="curve"`, "<polyline", ">p99<", ">max<", "memory alone: publish", `<rect class="b"`} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page has no %s", want)
		}
	}

	part := filepath.Join(t.TempDir(), "part")
	if out := w.must("bench", "mem://", "--each", "2ms", "--only", "Publish/async", "--reports", part); !strings.Contains(out, "async") || strings.Contains(out, "latency") {
		t.Errorf("--only Publish/async measures %s", out)
	}
	if _, err := os.Stat(part); err == nil {
		t.Error("a part of a run is written")
	}
}

func TestBenchRefuses(t *testing.T) {
	w := newWorld(t)
	for _, args := range [][]string{
		{"--reps", "0"}, {"--size", "-1"}, {"--callers", "0"}, {"--rate", "0"}, {"--each", "0s"}, {"--only", "("}, {"--only", "^Nothing"},
	} {
		if _, errs, code := w.run(append([]string{"bench"}, args...)...); code != exitUsage {
			t.Errorf("%q exits with %d: %s", args, code, errs)
		}
	}
}

// The suite's verdict is the exit code's; a part of it writes no report.
func TestConform(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "reports")
	var rep conformance.Report
	if err := json.Unmarshal([]byte(w.must("conform", "mem://", "--only", "^Fidelity/", "--json", "--reports", dir)), &rep); err != nil {
		t.Fatal(err)
	}
	passed := rep.Totals[conformance.Passed]
	if passed < 8 || rep.Broker != "memory" {
		t.Errorf("%d properties of %s pass", passed, rep.Broker)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a part of a run is written")
	}
	out, errs, code := w.run("conform", "mem://", "--only", "^Fidelity/", "--known", "Fidelity/"+passing(t, rep)+"=it does not")
	if code != exitFound || !strings.Contains(errs, fmt.Sprintf("1 of %d properties fail", len(rep.Properties))) || !strings.Contains(out, "it does not") {
		t.Errorf("a property that passes although it is said to fail: exit %d, %s%s", code, out, errs)
	}
}

func passing(t *testing.T, rep conformance.Report) string {
	t.Helper()
	for _, p := range rep.Properties {
		if p.Status == conformance.Passed {
			return strings.TrimPrefix(p.Name, "Fidelity/")
		}
	}
	t.Fatal("no property passes")
	return ""
}

// A run that is ended says so, and writes nothing.
func TestInterruptedConform(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "reports")
	j := w.start(nil, "conform", "mem://", "--only", "^(Fidelity|Delivery|Retry)/", "-v", "--reports", dir)
	poll.Until(w.t, "a first property", func() bool { return strings.Contains(j.errs.String(), "Delivery/") })
	j.interrupt()
	j.ends(exitInterrupted)
	if !strings.Contains(j.errs.String(), "interrupted") {
		t.Errorf("it says %s", j.errs.String())
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a part of a run is written")
	}
}
