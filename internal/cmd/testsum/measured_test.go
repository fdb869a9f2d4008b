package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	benchReport = `{"schema": "omnibus.bench/1", "broker": "memory", "rows": [
		{"op": "publish", "impl": "raw", "msgs_per_s": 2e6, "ratio_to_raw": {"median": 1, "min": 0.9, "max": 1.1}},
		{"op": "publish", "impl": "omnibus", "msgs_per_s": 1234567.0, "ratio_to_raw": {"median": 0.62, "min": 0.5, "max": 0.7}, "unheard_of": [1e3]},
		{"op": "consume", "shape": "workers=1", "impl": "omnibus", "ratio_to_raw": {"median": 0.96, "min": 0.9, "max": 1}},
		{"op": "consume", "shape": "workers=64/handler=1ms", "impl": "omnibus", "ratio_to_raw": {"median": 0.97, "min": 0.9, "max": 1}},
		{"op": "roundtrip", "impl": "omnibus", "ratio_to_raw": {"median": 0.3, "min": 0.2, "max": 1}},
		{"op": "latency", "impl": "omnibus", "ratio_to_raw": {"median": 1.4, "min": 1, "max": 2}}]}`
	mutantsReport = `{"schema":"omnibus.mutants/1","mutants":[{"name":"a","caught_by":["X"]}],"properties_without_mutant":[]}`
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// measure collects dir and returns what the file then has, by the name of the report.
func measure(t *testing.T, file, dir string) map[string]string {
	t.Helper()
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"-measured", file, "-reports", dir}, &out, &errOut); code != 0 {
		t.Fatalf("exit %d: %s", code, &errOut)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Files   []string
		Reports []json.RawMessage
	}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for i, name := range m.Files {
		got[name] = compact(t, string(m.Reports[i]))
	}
	return got
}

func compact(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(s)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Reports are kept whole, newer ones replace those of their name, and those of others stay.
func TestMeasured(t *testing.T) {
	file := filepath.Join(t.TempDir(), "docs", "measured.json")
	first, second := t.TempDir(), t.TempDir()
	write(t, first, "bench-memory-default.json", benchReport)
	write(t, first, "mutants-memory-default.json", mutantsReport)
	got := measure(t, file, first)
	if len(got) != 2 || got["bench-memory-default.json"] != compact(t, benchReport) || got["mutants-memory-default.json"] != compact(t, mutantsReport) {
		t.Errorf("%q", got)
	}

	newer := strings.Replace(benchReport, "0.62", "0.71", 1)
	write(t, second, "bench-memory-default.json", newer)
	write(t, second, "bench-memory-other.json", benchReport)
	got = measure(t, file, second)
	if len(got) != 3 || got["bench-memory-default.json"] != compact(t, newer) || got["bench-memory-other.json"] != compact(t, benchReport) ||
		got["mutants-memory-default.json"] != compact(t, mutantsReport) {
		t.Errorf("%q", got)
	}
}

func TestMeasuredRefuses(t *testing.T) {
	for name, text := range map[string]string{"no JSON": "{", "no report": "{}", "an unknown kind": `{"schema": "omnibus.weather/1"}`, "": ""} {
		dir := t.TempDir()
		if name != "" {
			write(t, dir, "bench-memory-default.json", text)
		}
		file := filepath.Join(dir, "docs", "measured.json")
		var out, errOut bytes.Buffer
		if code := run(t.Context(), []string{"-measured", file, "-reports", dir}, &out, &errOut); code != 1 || errOut.Len() == 0 {
			t.Errorf("%q: exit %d, says %q", name, code, &errOut)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%q: the file was written", name)
		}
	}

	// a file that something else has written is not overwritten
	dir := t.TempDir()
	write(t, dir, "bench-memory-default.json", benchReport)
	for _, text := range []string{`{"reports": [{}]}`, `{"files": [], "reports": [], "notes": ""}`} {
		file := filepath.Join(t.TempDir(), "measured.json")
		write(t, filepath.Dir(file), "measured.json", text)
		var out, errOut bytes.Buffer
		if code := run(t.Context(), []string{"-measured", file, "-reports", dir}, &out, &errOut); code != 1 {
			t.Errorf("%s: exit %d", text, code)
		}
	}
}

func TestBenchReportInTheTable(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "bench-memory-default.json", benchReport)
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"-reports", dir}, &out, &errOut); code != 0 {
		t.Fatalf("exit %d: %s", code, &errOut)
	}
	for _, want := range []string{"bench-memory-default", "6 rows", "0.30 to 0.97 of what the raw client does"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, &out)
		}
	}
}

// The README shows what docs/measured.json has, and nothing else.
func TestTablesOfReadme(t *testing.T) {
	const root = "../../.."
	all, err := readMeasured(filepath.Join(root, "docs", "measured.json"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := withTables(got, all)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the tables in README.md are not those of docs/measured.json: run make measured")
	}
}

func TestTables(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "bench-nats-default.json", `{"schema": "omnibus.bench/1", "broker": "nats", "rows": [
		{"op": "consume", "shape": "workers=1", "callers": 1, "size": 256, "impl": "omnibus", "msgs_per_s": 900, "ratio_to_raw": {"median": 0.9, "min": 0.85, "max": 0.95}}]}`)
	write(t, dir, "conformance-nats-default.json", `{"schema": "omnibus.conformance/1", "broker": "nats", "variant": "default", "server_version": "2.15.2",
		"capabilities": {"Priority": false, "Partitions": true}, "properties": [{"name": "Order/PerKey", "status": "pass", "confirmed": 7}]}`)
	readme := filepath.Join(t.TempDir(), "README.md")
	text := "# Name\n"
	for _, p := range parts() {
		text += p.begin + "old\n" + p.end + "rest\n"
	}
	file := filepath.Join(t.TempDir(), "measured.json")
	var out, errOut bytes.Buffer
	args := []string{"-measured", file, "-reports", dir, "-readme", readme}
	if code := run(t.Context(), args, &out, &errOut); code == 0 {
		t.Error("a README that is not there is written")
	}
	for _, p := range parts() {
		write(t, filepath.Dir(readme), "README.md", strings.Replace(text, p.end, "", 1))
		errOut.Reset()
		if code := run(t.Context(), args, &out, &errOut); code == 0 || !strings.Contains(errOut.String(), strings.TrimSpace(p.begin)) {
			t.Errorf("a README without a place for tables: %s", &errOut)
		}
	}
	write(t, filepath.Dir(readme), "README.md", text)
	if code := run(t.Context(), args, &out, &errOut); code != 0 {
		t.Fatal(errOut.String())
	}
	got, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	rest, _ := strings.CutPrefix(string(got), "# Name\n")
	for i, row := range []string{"| partitions | omnibus |\n", "| nats: consume | 900/s | 0.90 (0.85 to 0.95) |\n"} {
		p := parts()[i]
		inside, ok := strings.CutPrefix(rest, p.begin)
		inside, rest, _ = strings.Cut(inside, p.end+"rest\n")
		if !ok || !strings.Contains(inside, row) || strings.Contains(inside, "old") {
			t.Errorf("between %q and %q stands %q", p.begin, p.end, inside)
		}
	}
	if rest != "" {
		t.Errorf("at the end stands %q", rest)
	}
}
