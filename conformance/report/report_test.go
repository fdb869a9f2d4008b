package report_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/conformance/report"
)

const hostile = `</script><script>alert("x")</script>`

// run is a report in which every property passes, but for those given.
func run(broker, variant string, others ...conformance.PropertyResult) *conformance.Report {
	r := &conformance.Report{
		Schema: "omnibus.conformance/1", Broker: broker, Variant: variant, ServerVersion: "4.3", Go: "go1.26", Race: true, Seed: 42,
		Capabilities: map[string]any{"Durability": "disk", "History": true, "Priority": false, "MaxMessage": 1048576},
	}
	for _, p := range conformance.Properties() {
		res := conformance.PropertyResult{Name: p.Name, Gate: p.Gate.Text, Status: conformance.Passed, Seconds: 0.25, Confirmed: 100, Received: 100, DuplicateBound: 8}
		for _, o := range others {
			if o.Name == p.Name {
				res = o
			}
		}
		r.Properties = append(r.Properties, res)
	}
	for _, o := range others {
		if strings.HasPrefix(o.Name, "Future/") {
			r.Properties = append(r.Properties, o)
		}
	}
	return r
}

func folder(t *testing.T, reports map[string]any) fstest.MapFS {
	t.Helper()
	dir := fstest.MapFS{}
	for name, v := range reports {
		text, ok := v.(string)
		if !ok {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		dir[name] = &fstest.MapFile{Data: []byte(text), ModTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	}
	return dir
}

// full is a folder with everything.
func full(t *testing.T) *report.Set {
	t.Helper()
	s, err := report.Read(folder(t, map[string]any{
		"conformance-rabbit-quorum.json": run("rabbit", "quorum",
			conformance.PropertyResult{Name: "Order/PerKey", Status: conformance.Failed, Reason: "message 3 before 2 " + hostile, Lost: 3, Duplicates: 9, DuplicateBound: 8, OrderViolations: 1},
			conformance.PropertyResult{Name: "Delivery/Unroutable", Status: conformance.Failed, Reason: "setup: connect: refused"},
			conformance.PropertyResult{Name: "Time/Priority", Gate: "Priority", Status: conformance.Gated, Reason: "the broker does not claim Priority"},
			conformance.PropertyResult{Name: "Future/Property", Gate: "Telepathy", Status: conformance.Passed},
		),
		"conformance-kafka-default.json": run("kafka", "default",
			conformance.PropertyResult{Name: "Order/Strict", Status: conformance.KnownFailing, Reason: "issue 12"},
			conformance.PropertyResult{Name: "Faults/BrokerRestarts", Status: conformance.NotRun, Reason: "a fault that the harness cannot cause: Kill and Start"},
		),
		"mutants-memory-default.json": &conformance.MutantsReport{Schema: "omnibus.mutants/1", Unguarded: []string{}, Mutants: []conformance.MutantResult{
			{Name: "shuffles", Breaks: "Order/PerKey", CaughtBy: []string{"Order/PerKey"}, FirstFailure: "12 before 11"},
			{Name: "sleeps", Breaks: "Time/Delay", CaughtBy: []string{}},
		}},
		"bench-kafka-default.json": `{"schema": "omnibus.bench/1", "broker": "kafka", "rows": [
			{"op": "publish", "shape": "async", "callers": 16, "size": 1024, "impl": "raw", "reps": 5, "msgs_per_s": 1000000, "ratio_to_raw": {"median": 1, "min": 0.9, "max": 1.1}},
			{"op": "publish", "shape": "async", "callers": 16, "size": 1024, "impl": "omnibus", "reps": 5, "msgs_per_s": 875000, "ratio_to_raw": {"median": 0.875, "min": 0.75, "max": 1}, "allocs_per_msg": 2.5},
			{"op": "latency", "shape": "rate=1000", "callers": 1, "size": 64, "impl": "omnibus", "ratio_to_raw": {"median": 5, "min": 4, "max": 6}, "p50_us": 120.4, "p99_us": null},
			{"op": "roundtrip", "shape": "async", "impl": "omnibus", "ratio_to_raw": null}]}`,
		"soak-kafka-default.json": `{"schema": "omnibus.soak/1", "broker": "kafka", "variant": "default", "schedules": [
			{"seed": 42, "faults": [{"kind": "cut", "at_ms": 1200, "took_effect": true, "in_flight_at_hit": 31}], "published": 2000, "confirmed": 1990,
				"unknown": 10, "lost": 0, "duplicates": 7, "duplicate_bound": 128, "order_violations": 0, "reconnects": 3, "goroutines_end": 9, "rss_mb_end": 40},
			{"seed": 43, "faults": [{"kind": "pause", "at_ms": 900, "took_effect": false, "in_flight_at_hit": 0}], "published": 10, "confirmed": 10, "lost": 2, "order_violations": 1}]}`,
		"other-kafka-default.json": `{"schema": "omnibus.other/1"}`,
		"notes.json":               `{}`,
		"torn.json":                `{"schema": "omnibus.confor`,
		"wrong.json":               `{"schema": "omnibus.conformance/1", "properties": 3}`,
		"bench-go.txt":             "no report",
	}))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRead(t *testing.T) {
	s := full(t)
	var got []string
	for _, c := range s.Conformance {
		got = append(got, c.Name+"="+c.Label())
		if c.Written.Year() != 2026 {
			t.Errorf("%s was written %v", c.Name, c.Written)
		}
	}
	for _, m := range s.Mutants {
		got = append(got, m.Name+"="+m.Label())
	}
	for _, b := range s.Bench {
		got = append(got, b.Name+"="+b.Label())
	}
	for _, k := range s.Soak {
		got = append(got, k.Name+"="+k.Label())
	}
	for _, o := range s.Others {
		got = append(got, fmt.Sprintf("%s (%v)", o.Name, o.Broken))
	}
	want := "conformance-kafka-default=kafka 4.3, conformance-rabbit-quorum=rabbit 4.3 quorum, mutants-memory-default=memory, " +
		"bench-kafka-default=kafka, soak-kafka-default=kafka, notes (false), other-kafka-default (false), torn (true), wrong (true)"
	if strings.Join(got, ", ") != want {
		t.Errorf("read %s\nwant %s", strings.Join(got, ", "), want)
	}
	if s.OK() || s.Empty() {
		t.Errorf("a set with failures: OK %v, empty %v", s.OK(), s.Empty())
	}
}

// Where a broker was measured alone the bars are rates and the delays a curve.
func TestAloneCharts(t *testing.T) {
	s := report.Of(map[string][]byte{"bench-nats-alone.json": []byte(`{"schema": "omnibus.bench/1", "broker": "nats", "rows": [
		{"op": "publish", "shape": "async", "impl": "omnibus", "msgs_per_s": 500, "msgs_per_s_of_reps": {"median": 500, "min": 400, "max": 600}},
		{"op": "publish", "shape": "batch500", "impl": "omnibus", "msgs_per_s": 1000, "msgs_per_s_of_reps": {"median": 1000, "min": 900, "max": 2000}},
		{"op": "latency", "shape": "rate=1000", "impl": "omnibus", "p50_us": 100, "delays": [{"share": 0.5, "us": 100}, {"share": 0.99, "us": 1000}, {"share": 1, "us": 10000}]}]}`)})
	var page bytes.Buffer
	if err := s.HTML(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<rect class="b" x="0" y="2" width="25" height="6"/>`,                   // 500 of 2000
		`<rect class="w" x="45" y="4.4" width="55" height="1.2"/>`,              // 900 to 2000
		`<polyline class="line" points="100.0,190.0 340.0,105.0 580.0,20.0 "/>`, // a decade each
		">1 ms</text>", ">p99</text>", ">max</text>",
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page has no %s", want)
		}
	}
	for what, text := range map[string]string{"a client that did not take part": `class="one"`, "who it was, of one": `>by</button>`, "bytes on the wire, of none": `>wire bytes</button>`} {
		if strings.Contains(page.String(), text) {
			t.Errorf("the page shows %s", what)
		}
	}
}

// A curve that begins between two powers of ten had the lower one drawn through its first dot.
func TestAxisOfCurve(t *testing.T) {
	s := report.Of(map[string][]byte{"bench-nats-alone.json": []byte(`{"schema": "omnibus.bench/1", "broker": "nats", "rows": [
		{"op": "latency", "shape": "rate=1000", "impl": "omnibus", "delays": [{"share": 0.5, "us": 5000}, {"share": 1, "us": 10000}]}]}`)})
	var page bytes.Buffer
	if err := s.HTML(&page); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`y="190" dy="4" text-anchor="end">1 ms</text>`, `y="20" dy="4" text-anchor="end">10 ms</text>`} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page has no %s", want)
		}
	}
}

func TestOK(t *testing.T) {
	for name, c := range map[string]struct {
		report any
		want   bool
	}{
		"passes":     {run("a", "default"), true},
		"fails":      {run("a", "default", conformance.PropertyResult{Name: "Time/Delay", Status: conformance.Failed}), false},
		"unasked":    {&conformance.Report{Schema: "omnibus.conformance/1"}, false},
		"caught":     {`{"schema": "omnibus.mutants/1", "mutants": [{"caught_by": ["Time/Delay"]}]}`, true},
		"escaped":    {`{"schema": "omnibus.mutants/1", "mutants": [{"caught_by": []}]}`, false},
		"unguarded":  {`{"schema": "omnibus.mutants/1", "properties_without_mutant": ["Time/Delay"]}`, false},
		"weathers":   {`{"schema": "omnibus.soak/1", "schedules": [{"faults": [{"took_effect": true, "in_flight_at_hit": 1}]}]}`, true},
		"loses":      {`{"schema": "omnibus.soak/1", "schedules": [{"lost": 1, "faults": [{"took_effect": true, "in_flight_at_hit": 1}]}]}`, false},
		"repeats":    {`{"schema": "omnibus.soak/1", "schedules": [{"duplicates": 2, "duplicate_bound": 1, "faults": [{"took_effect": true, "in_flight_at_hit": 1}]}]}`, false},
		"broken off": {`{"schema": "omnibus.soak/1", "schedules": [{"failures": ["setup: end cut: still there"], "faults": [{"took_effect": true, "in_flight_at_hit": 1}]}]}`, false},
		"too few":    {`{"schema": "omnibus.soak/1", "minutes": 20, "schedules": [{"faults": [{"took_effect": true, "in_flight_at_hit": 1}]}]}`, false},
		"effectless": {`{"schema": "omnibus.soak/1", "schedules": [{"faults": [{"took_effect": true}]}]}`, false},
		"unstruck":   {`{"schema": "omnibus.soak/1", "schedules": []}`, false},
		"unknown":    {`{"schema": "another/1"}`, true},
		"broken":     {`{`, false},
	} {
		s, err := report.Read(folder(t, map[string]any{"a.json": c.report}))
		if err != nil {
			t.Fatal(err)
		}
		if s.OK() != c.want {
			t.Errorf("%s: OK is %v", name, s.OK())
		}
	}
}

func pageOf(t *testing.T, s *report.Set) string {
	t.Helper()
	var out bytes.Buffer
	if err := s.HTML(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// seen is what a reader of the page sees: no tags, and white space as in a paragraph.
func seen(page string) string {
	page = regexp.MustCompile(`(?s)<(script|style)>.*?</(script|style)>`).ReplaceAllString(page, "")
	page = strings.ReplaceAll(page, "<wbr>", "")
	text := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(page, " ")
	return strings.Join(strings.Fields(html.UnescapeString(text)), " ")
}

func TestPage(t *testing.T) {
	page := pageOf(t, full(t))
	text := seen(page)
	for _, p := range conformance.Properties() {
		if !strings.Contains(text, p.Doc) || !strings.Contains(page, `id="`+p.Name+`"`) {
			t.Errorf("the page does not say what %s means", p.Name)
		}
	}
	for _, p := range conformance.Promises() {
		if !strings.Contains(text, p.Title) {
			t.Errorf("the page lacks promise %d", p.Number)
		}
	}
	all := len(conformance.Properties())
	for what, want := range map[string]string{
		"a name":                          "Order/ PerKey ✓ pass ✗ fail",
		"how many keep what they declare": "1 of 2 keeps what it declares.",
		"a broker that fails":             "rabbit 4.3 quorum ✗ 2 properties fail",
		"a broker with a known failure":   "kafka 4.3 default ! keeps what it declares, but for 1 known failure",
		"sums":                            fmt.Sprintf("confirmed %d,%03d ", (all-2)*100/1000, (all-2)*100%1000),
		"losses":                          "lost 3 duplicates 9 / ",
		"capabilities":                    "MaxMessage 1,048,576 1,048,576",
		"a gate":                          "Order = group, or Exclusive : it must hold on a broker that declares this.",
		"a failure's meaning":             "Promise 6, order per key at consume. " + conformance.Promises()[5].Breach,
		"how to see a known one again":    "TestConformance/Order/Strict$'",
		"how to see a failure again":      "SEED=42 go test -race -run 'TestConformance/Order/PerKey$'",
		"a failure of the harness":        "The suite could not ask its question: look at the harness",
		"a mutant":                        "… shuffles ✓ caught 12 before 11",
		"a mutant not tried":              "forgets every 100th message that it confirms (not tried in these reports)",
		"a mutant that escaped":           "Time/Delay sleeps ✗ escaped",
		"a property not known here":       "This version of the suite does not have the property.",
		"what was not run":                "a fault that the harness cannot cause: Kill and Start",
		"a ratio":                         "omnibus 0.88 0.75–1.00 875,000 – 2.50",
		"latency":                         "shorter is faster. ",
		"delays":                          "5.00 4.00–6.00 0 – 0.00 120 –",
		"nothing to compare with":         "There is no client of the broker's own",
		"a soak":                          "kafka 2 schedules, 1 with effect, 1 failed ✗ 1 of 2 schedules failed",
		"a schedule":                      "42 cut 2,000 1,990 10 0 7 / 128 0 3 9 40",
		"a schema not known":              "other-kafka-default.json : the schema omnibus.other/1 is not known here",
		"a torn file":                     "torn.json : unexpected end of JSON input",
		"when":                            "2026-01-02 03:04",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %s: %q", what, want)
		}
	}
	if n := strings.Count(page, `class="command"`); n != 3 {
		t.Errorf("%d failures say how to see them again, want 2 and a known one", n)
	}
	if !strings.Contains(page, `<rect class="b" x="0" y="2" width="70" height="6"/>`) { // 0.875 of 1.25
		t.Error("the bar of a ratio is not as long as it should be")
	}
	if !strings.Contains(page, `<td class="fig fail">3</td>`) && !strings.Contains(page, `fail:3|fail:9 / 8|fail:1`) {
		t.Error("losses are not picked out")
	}
	if t.Failed() {
		t.Log(text)
	}
}

// A page can be sent: it refers to nothing outside, and what a report says stays text.
func TestPageIsSelfContained(t *testing.T) {
	page := pageOf(t, full(t))
	if bad := regexp.MustCompile(`(?i)https?://|//[a-z]+\.|src=|url\(|@import|<link|<iframe|fetch\(|XMLHttpRequest`).FindString(page); bad != "" {
		t.Errorf("the page refers to something outside: %q", bad)
	}
	if n := strings.Count(page, "<script>"); n != 1 {
		t.Errorf("the page has %d scripts, want its own", n)
	}
	if strings.Contains(page, "alert(\"x\")") {
		t.Error("a report's text is not escaped")
	}
	if !strings.Contains(page, "prefers-color-scheme: dark") {
		t.Error("the page has no dark colours")
	}
}

// What is opened is closed.
func TestPageIsWellFormed(t *testing.T) {
	empty := &report.Set{}
	for name, s := range map[string]*report.Set{"full": full(t), "empty": empty} {
		page := regexp.MustCompile(`(?s)(<(?:script|style)>).*?(</(?:script|style)>)`).ReplaceAllString(pageOf(t, s), "$1$2")
		page = regexp.MustCompile(` (hidden|disabled|data-differs)([ >])`).ReplaceAllString(page, ` $1=""$2`) // as XML has it
		page = regexp.MustCompile(`<(meta|input|w?br)([^>]*)>`).ReplaceAllString(page, "<$1$2/>")
		dec := xml.NewDecoder(strings.NewReader(page))
		for {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
		}
	}
	if !strings.Contains(seen(pageOf(t, empty)), "No report of the conformance suite is here yet.") {
		t.Error("the page of an empty folder does not say that it is")
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	full(t).Table(&out)
	all := len(conformance.Properties())
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		fmt.Sprintf("conformance-kafka-default kafka 4.3 %d pass, 1 known-failing, 1 not-run", all-2),
		fmt.Sprintf("conformance-rabbit-quorum rabbit 4.3 quorum %d pass, 2 fail, 1 gated", all-2),
		"3 lost, 9 of ",
		"mutants-memory-default memory 1 of 2 caught 0 properties without a mutant",
		"soak-kafka-default kafka 2 schedules, 1 with effect, 1 failed 2000 confirmed, 10 unknown, 2 lost, 7 of 128 duplicates, 1 out of order, 3 reconnects",
		"bench-kafka-default kafka 4 rows 0.88 to 0.88 of what the raw client does",
		"torn not shown unexpected end of JSON input",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
}

func TestMake(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, report.PageName)
	for _, where := range []string{dir, filepath.Join(dir, "missing")} {
		s, err := report.Make(where)
		if err != nil || !s.Empty() {
			t.Errorf("%s: %+v, %v", where, s, err)
		}
		if _, err := os.Stat(page); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a page was made of nothing: %v", err)
		}
	}
	if err := run("kafka", "default").Write(dir); err != nil {
		t.Fatal(err)
	}
	s, err := report.Make(dir)
	if err != nil || !s.OK() || len(s.Conformance) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	text, err := os.ReadFile(page)
	if err != nil || !strings.Contains(seen(string(text)), "1 of 1 keeps what it declares.") {
		t.Errorf("the page says %.300q, %v", seen(string(text)), err)
	}
}
