package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

// shape says what a JSON value is made of: a kind, or the keys of an object with what they hold. A key of "*" stands for any.
type shape map[string]any

func (s shape) check(t *testing.T, at string, v any) {
	t.Helper()
	obj, ok := v.(map[string]any)
	if !ok {
		t.Errorf("%s is a %T, want an object", at, v)
		return
	}
	if all, open := s["*"]; open {
		for k, v := range obj {
			checkShape(t, at+"."+k, all, v)
		}
		return
	}
	if got, want := slices.Sorted(maps.Keys(obj)), slices.Sorted(maps.Keys(s)); !slices.Equal(got, want) {
		t.Errorf("%s has the keys %v, want %v", at, got, want)
	}
	for k, want := range s {
		checkShape(t, at+"."+k, want, obj[k])
	}
}

func checkShape(t *testing.T, at string, want, v any) {
	t.Helper()
	switch want := want.(type) {
	case shape:
		want.check(t, at, v)
	case []any: // of at least one
		list, ok := v.([]any)
		if !ok {
			t.Errorf("%s is a %T, want a list", at, v)
		}
		for i, e := range list {
			checkShape(t, fmt.Sprintf("%s[%d]", at, i), want[0], e)
		}
	case func(any) bool:
		if !want(v) {
			t.Errorf("%s is %v", at, v)
		}
	case string:
		if v != want {
			t.Errorf("%s is %v, want %q", at, v, want)
		}
	}
}

func text(v any) bool   { _, ok := v.(string); return ok }
func truth(v any) bool  { _, ok := v.(bool); return ok }
func number(v any) bool { _, ok := v.(float64); return ok }
func count(v any) bool  { n, ok := v.(float64); return ok && n >= 0 && n == float64(uint64(n)) }

// The schemas, as conformance.md states them. Whoever changes one needs a new number.
func conformanceSchema() shape {
	status := func(v any) bool {
		return slices.Contains([]any{"pass", "fail", "known-failing", "gated", "not-run"}, v)
	}
	return shape{
		"schema": "omnibus.conformance/1", "broker": text, "variant": text, "server_version": text, "client_version": text, "go": text,
		"race": truth, "seed": count, "seconds": number, "capabilities": shape{"*": func(v any) bool { return text(v) || truth(v) || number(v) }},
		"properties": []any{shape{
			"name": text, "gate": text, "status": status, "seconds": number, "reason": text, "confirmed": count, "received": count,
			"lost": count, "duplicates": count, "duplicate_bound": count, "order_violations": count,
		}},
		"totals": shape{"pass": count, "fail": count, "known-failing": count, "gated": count, "not-run": count},
	}
}

func mutantsSchema() shape {
	return shape{
		"schema":                    "omnibus.mutants/1",
		"mutants":                   []any{shape{"name": text, "breaks": text, "caught_by": []any{text}, "first_failure": text, "seconds": number}},
		"properties_without_mutant": []any{text},
	}
}

func readJSON(t *testing.T, file string) map[string]any {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// junit is what a build server reads of the XML.
type junit struct {
	Tests    int `xml:"tests,attr"`
	Failures int `xml:"failures,attr"`
	Skipped  int `xml:"skipped,attr"`
	Suites   []struct {
		Name       string `xml:"name,attr"`
		Tests      int    `xml:"tests,attr"`
		Failures   int    `xml:"failures,attr"`
		Skipped    int    `xml:"skipped,attr"`
		Properties []struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		} `xml:"properties>property"`
		Cases []struct {
			Class   string `xml:"classname,attr"`
			Name    string `xml:"name,attr"`
			Failure *struct {
				Message string `xml:"message,attr"`
				Text    string `xml:",chardata"`
			} `xml:"failure"`
			Skipped *struct {
				Message string `xml:"message,attr"`
			} `xml:"skipped"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

func readJUnit(t *testing.T, file string) junit {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var doc junit
	if err := xml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// A run with every status but not-run: a driver that claims no delays, and breaks two properties, one of which is known to fail.
func mixedRun(t *testing.T) *conformance.Report {
	t.Helper()
	t.Setenv("SEED", "42")
	h := changed(func(d pubsub.Driver) pubsub.Driver { return careless{d} })
	h.KnownFailing = map[string]string{"Delivery/Unroutable": "issue 12"}
	fresh := h.Fresh
	h.Fresh = func() conformance.Harness { // one property, VanishedTopic, needs DeleteTopic, which is left out here
		sound := fresh()
		return conformance.Harness{Driver: sound.Driver}
	}
	h.Variant, h.ServerVersion, h.ClientVersion = "one node / tls", "4.3", "1.2.0"
	return checkIn(t, h)
}

func TestWrittenReport(t *testing.T) {
	rep := mixedRun(t)
	dir := filepath.Join(t.TempDir(), "made", "on demand")
	if err := rep.Write(dir); err != nil {
		t.Fatal(err)
	}
	doc := readJSON(t, filepath.Join(dir, "conformance-memory-one-node---tls.json"))
	conformanceSchema().check(t, "report", doc)
	if doc["broker"] != "memory" || doc["variant"] != "one node / tls" || doc["seed"] != 42.0 || doc["server_version"] != "4.3" || doc["client_version"] != "1.2.0" {
		t.Errorf("%v %v, seed %v, server %v, client %v", doc["broker"], doc["variant"], doc["seed"], doc["server_version"], doc["client_version"])
	}
	if c := doc["capabilities"].(map[string]any); c["Durability"] != "memory" || c["LeaseMax"] != "forever" || c["History"] != true {
		t.Errorf("capabilities %v", c)
	}
	if n := len(doc["properties"].([]any)); n != len(conformance.Properties()) {
		t.Errorf("%d properties are in the report of %d", n, len(conformance.Properties()))
	}

	var again conformance.Report // what is written can be read
	if b, err := os.ReadFile(filepath.Join(dir, "conformance-memory-one-node---tls.json")); err != nil {
		t.Fatal(err)
	} else if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again.Totals, rep.Totals) || again.OK() {
		t.Errorf("read again: %v, OK %v", again.Totals, again.OK())
	}

	x := readJUnit(t, filepath.Join(dir, "conformance-memory-one-node---tls.xml"))
	total := rep.Totals
	skipped := total[conformance.KnownFailing] + total[conformance.Gated] + total[conformance.NotRun]
	if x.Tests != len(rep.Properties) || x.Failures != total[conformance.Failed] || x.Skipped != skipped || x.Failures == 0 || total[conformance.NotRun] == 0 {
		t.Errorf("JUnit has %d tests, %d failures, %d skipped; the report has %d properties, %v", x.Tests, x.Failures, x.Skipped, len(rep.Properties), total)
	}
	if len(x.Suites) != groupCount() {
		t.Errorf("JUnit has %d suites, the suite %d groups", len(x.Suites), groupCount())
	}
	var seen []string
	for _, s := range x.Suites {
		if got := fmt.Sprint(s.Properties); got != "[{broker memory} {variant one node / tls} {seed 42}]" {
			t.Errorf("%s has the properties %s", s.Name, got)
		}
		if s.Tests != len(s.Cases) {
			t.Errorf("%s says that it has %d tests, and has %d", s.Name, s.Tests, len(s.Cases))
		}
		for _, c := range s.Cases {
			if c.Class != "memory.one node . tls."+s.Name {
				t.Errorf("%s/%s has the class %q", s.Name, c.Name, c.Class)
			}
			switch name := s.Name + "/" + c.Name; name {
			case "Delivery/Unroutable":
				if c.Failure != nil || c.Skipped == nil || c.Skipped.Message != "known-failing: issue 12" {
					t.Errorf("%s, which is known to fail: %+v", name, c)
				}
				seen = append(seen, name)
			case "Lifecycle/VanishedTopic":
				if c.Skipped == nil || !strings.HasPrefix(c.Skipped.Message, "not-run: a fault that the harness cannot cause: ") {
					t.Errorf("%s, which the harness cannot ask: %+v", name, c)
				}
				seen = append(seen, name)
			case "Lifecycle/WrongUses":
				if c.Failure == nil || c.Failure.Message == "" || !strings.Contains(c.Failure.Text, "SEED=42") || !strings.Contains(c.Failure.Text, c.Failure.Message) {
					t.Errorf("%s, which fails: %+v", name, c)
				}
				seen = append(seen, name)
			}
		}
	}
	if len(seen) != 3 {
		t.Errorf("of the three that did not pass JUnit has %v", seen)
	}
}

func groupCount() int {
	groups := map[string]bool{}
	for _, p := range conformance.Properties() {
		groups[p.Group()] = true
	}
	return len(groups)
}

// A run that never reached its broker has a report as well.
func TestReportOfNobody(t *testing.T) {
	h := conformance.Harness{Driver: nobodyThere}
	rep, err := conformance.Check(context.Background(), h, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := rep.Write(dir); err != nil {
		t.Fatal(err)
	}
	conformanceSchema().check(t, "report", readJSON(t, filepath.Join(dir, "conformance-unknown-default.json")))
}

func TestTable(t *testing.T) {
	rep := &conformance.Report{
		Broker: "x", Variant: "v", ServerVersion: "7.1", Go: "go1", Race: true, Seed: 42,
		Totals: map[conformance.Status]int{"pass": 2, "fail": 1, "gated": 2, "not-run": 1},
		Properties: []conformance.PropertyResult{
			{Name: "Delivery/ConfirmedIsReceived", Status: "fail", Reason: "3 messages lost\nand more", Confirmed: 1000, Received: 997, Lost: 3},
			{Name: "Delivery/Unroutable", Status: "pass", Seconds: 7.25, Confirmed: 234},
			{Name: "Order/Strict", Status: "gated", Reason: "the broker does not claim Redelivery"},
			{Name: "Order/PerKey", Status: "gated", Reason: "the broker does not claim Redelivery"},
			{Name: "Faults/BrokerRestarts", Status: "not-run"},
			{Name: "Time/Delay", Status: "pass", Reason: "refused as it should be"},
		},
	}
	var out bytes.Buffer
	rep.Table(&out)
	got := out.String()
	lines := strings.Split(strings.TrimRight(got, "\n"), "\n")
	for _, want := range []string{
		"x 7.1 (v), go1, race detector on, seed 42",
		"Delivery 1 1 . . 7.2 1234 997 3 0/0 0",
		"gated Order/Strict Order/PerKey the broker does not claim Redelivery",
		"slowest Delivery/Unroutable 7.2 s",
		"2 passed, 1 failed, 0 known to fail, 2 gated, 1 not run",
		"FAIL Delivery/ConfirmedIsReceived",
		"promise 1 nil means accepted. Broken: " + conformance.Promises()[0].Breach,
		"seen 3 messages lost find it",
		"SEED=42",
		"cf. mutant an adapter fails so when it forgets every 100th message that it confirms",
		"FAIL Faults/BrokerRestarts",
		"seen not run, and nobody says why",
	} {
		if !strings.Contains(squeeze(got), squeeze(want)) {
			t.Errorf("the table lacks %q", want)
		}
	}
	if strings.Contains(got, "known-failing") {
		t.Error("the table has a column for known failures, of which there are none")
	}
	if strings.Contains(got, "\x1b") {
		t.Error("the table is in colour, although it goes to no terminal")
	}
	if i, j := strings.Index(got, "2 passed, 1 failed"), strings.Index(got, "FAIL "); i > j {
		t.Error("the failures do not come last")
	}
	for _, l := range lines {
		if len(l) > 120 {
			t.Errorf("a line has %d characters: %s", len(l), l)
		}
	}
	if t.Failed() {
		t.Log("\n" + got)
	}
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

// terminal is a writer that says of itself that it is one.
type terminal struct{ bytes.Buffer }

func (*terminal) Stat() (fs.FileInfo, error) { return terminalInfo{}, nil }

type terminalInfo struct{ fs.FileInfo }

func (terminalInfo) Mode() fs.FileMode { return fs.ModeDevice | fs.ModeCharDevice }

func TestColour(t *testing.T) {
	rep := &conformance.Report{Totals: map[conformance.Status]int{}, Properties: []conformance.PropertyResult{{Name: "Time/Delay", Status: "fail", Lost: 1}}}
	for env, want := range map[string]bool{"TERM=xterm": true, "TERM=dumb": false, "NO_COLOR=1": false, "NO_COLOR=": true} {
		t.Run(env, func(t *testing.T) {
			t.Setenv("TERM", "xterm")
			t.Setenv("NO_COLOR", "")
			name, value, _ := strings.Cut(env, "=")
			t.Setenv(name, value)
			var w terminal
			rep.Table(&w)
			starts := strings.Count(w.String(), "\x1b[") - strings.Count(w.String(), "\x1b[0m")
			if ends := strings.Count(w.String(), "\x1b[0m"); want != strings.Contains(w.String(), "\x1b[31mFAIL Time/Delay\x1b[0m") || starts != ends {
				t.Errorf("colours %v wanted; %d begin, %d end:\n%q", want, starts, ends, w.String())
			}
		})
	}
}

func TestOK(t *testing.T) {
	for _, c := range []struct {
		p    conformance.PropertyResult
		want bool
	}{
		{conformance.PropertyResult{Status: conformance.Passed}, true},
		{conformance.PropertyResult{Status: conformance.KnownFailing, Reason: "issue 1"}, true},
		{conformance.PropertyResult{Status: conformance.Gated}, true},
		{conformance.PropertyResult{Status: conformance.NotRun, Reason: "no broker"}, true},
		{conformance.PropertyResult{Status: conformance.NotRun}, false},
		{conformance.PropertyResult{Status: conformance.Failed, Reason: "lost"}, false},
	} {
		rep := conformance.Report{Properties: []conformance.PropertyResult{{Status: conformance.Passed}, c.p}}
		if rep.OK() != c.want {
			t.Errorf("a report with %+v: OK is %v", c.p, rep.OK())
		}
	}
	if (&conformance.Report{}).OK() {
		t.Error("a report in which nothing was asked is OK")
	}
}
