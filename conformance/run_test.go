package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

func nobodyThere(context.Context) (pubsub.Driver, error) { return nil, errors.New("nobody there") }

// A fake is a test as Run sees it, whose failures can be looked at. It runs the subtests that it is told to select.
type fake struct {
	*testing.T
	name    string
	selects func(name string) bool

	mu       sync.Mutex // subtests run side by side
	children []*fake
	errors   []string
	logs     []string
	skips    []string
}

func (f *fake) Name() string                 { return f.name }
func (f *fake) Logf(format string, a ...any) { f.logs = append(f.logs, fmt.Sprintf(format, a...)) }
func (f *fake) Failed() bool                 { return len(f.errors) > 0 }
func (f *fake) Errorf(format string, a ...any) {
	f.errors = append(f.errors, fmt.Sprintf(format, a...))
}

func (f *fake) Fatalf(format string, a ...any) {
	f.Errorf(format, a...)
	runtime.Goexit()
}

func (f *fake) Skipf(format string, a ...any) {
	f.skips = append(f.skips, fmt.Sprintf(format, a...))
	runtime.Goexit()
}

func (f *fake) Run(name string, body func(*fake)) bool {
	sub := &fake{T: f.T, name: f.name + "/" + name, selects: f.selects}
	if f.selects != nil && !f.selects(sub.name) {
		return true
	}
	f.mu.Lock()
	f.children = append(f.children, sub)
	f.mu.Unlock()
	sub.do(body)
	return !sub.Failed()
}

// do runs body in a goroutine that it may end.
func (f *fake) do(body func(*fake)) {
	done := make(chan struct{})
	go func() { defer close(done); body(f) }()
	<-done
}

func (f *fake) leaf(t *testing.T, property string) *fake {
	t.Helper()
	for _, p := range f.children {
		if p.name == f.name+"/"+property {
			return p
		}
	}
	t.Fatalf("%s was not run", property)
	return nil
}

// runFake runs the suite with a fake test, reports going to a folder that it returns.
func runFake(t *testing.T, h conformance.Harness, selects func(string) bool) (f *fake, dir string) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("OMNIBUS_REPORTS", dir)
	t.Setenv("SEED", "7")
	if h.Wrap == nil {
		h.Wrap = bubble(t)
	}
	f = &fake{T: t, name: "TestIt", selects: selects}
	f.do(func(f *fake) { conformance.Run(f, h) })
	return f, dir
}

func bubble(t *testing.T) func(conformance.T, func()) {
	t.Helper()
	return func(_ conformance.T, f func()) { synctest.Test(t, func(*testing.T) { f() }) }
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A run with failures fails its test, says how to see them again, and writes its reports all the same.
func TestRunOfFailures(t *testing.T) {
	h := changed(func(d pubsub.Driver) pubsub.Driver { return careless{d} })
	h.Wrap = nil
	h.KnownFailing = map[string]string{"Delivery/Unroutable": "issue 12", "Fidelity/NilAndEmpty": "issue 13"}
	f, dir := runFake(t, h, nil)

	fails := f.leaf(t, "Lifecycle/WrongUses")
	if all := strings.Join(fails.errors, "\n"); !strings.Contains(all, "SEED=7 go test") || !strings.Contains(all, "-run '^TestIt$/^Lifecycle$/^WrongUses$'") {
		t.Errorf("a failure does not say how to see it again: %q", all)
	}
	if p := f.leaf(t, "Fidelity/NilAndEmpty"); !p.Failed() {
		t.Error("a property passes that is known to fail, and its test passes too")
	}
	if p := f.leaf(t, "Delivery/Unroutable"); p.Failed() || !slices.Equal(p.skips, []string{"known-failing: issue 12"}) {
		t.Errorf("a property fails as it is known to: errors %q, skipped %q", p.errors, p.skips)
	}
	if got, want := files(t, dir), []string{"conformance-memory-default.json", "conformance-memory-default.xml"}; !slices.Equal(got, want) {
		t.Errorf("a run with failures has written %v, want %v", got, want)
	}
	doc := readJSON(t, filepath.Join(dir, "conformance-memory-default.json"))
	conformanceSchema().check(t, "report", doc)
	if n, _ := doc["totals"].(map[string]any)["fail"].(float64); n < 2 {
		t.Errorf("the report counts %v failures", n)
	}
	if x := readJUnit(t, filepath.Join(dir, "conformance-memory-default.xml")); x.Failures < 2 {
		t.Errorf("JUnit counts %d failures", x.Failures)
	}
	if log := strings.Join(f.logs, "\n"); !strings.Contains(log, "FAIL Lifecycle/WrongUses") {
		t.Errorf("the table does not end with the failures:\n%s", log)
	}
}

func TestRunOfSome(t *testing.T) {
	f, dir := runFake(t, onMemoryIn(t), func(name string) bool { return strings.HasSuffix(name, "Order/PerKey") })
	f.leaf(t, "Order/PerKey")
	if got := files(t, dir); len(got) > 0 {
		t.Errorf("a run of one property has written %v: it would replace the report of all", got)
	}
	log := strings.Join(f.logs, "\n")
	if want := fmt.Sprintf("%d properties were not selected", len(conformance.Properties())-1); !strings.Contains(log, want) || !strings.Contains(log, "1 passed") {
		t.Errorf("the table does not say %q:\n%s", want, log)
	}
}

func onMemoryIn(t *testing.T) conformance.Harness {
	t.Helper()
	h := onMemory()
	h.Wrap = bubble(t)
	return h
}

// A harness cannot make a property disappear, nor pass one that was not asked.
func TestHarnessThatCheats(t *testing.T) {
	for name, c := range map[string]struct {
		wrap func(t conformance.T, f func())
		want string
	}{
		"skips":  {func(t conformance.T, _ func()) { t.(*fake).Skipf("no time") }, "harness: Wrap ended the property's test"},
		"stops":  {func(conformance.T, func()) { runtime.Goexit() }, "harness: Wrap ended the property's test"},
		"leaves": {func(conformance.T, func()) {}, "harness: Wrap called its function 0 times"},
	} {
		t.Run(name, func(t *testing.T) {
			h := onMemory()
			h.Wrap = c.wrap
			f, dir := runFake(t, h, nil)
			for _, p := range conformance.Properties() {
				if p.Pending != "" { // nobody is asked
					continue
				}
				if got := f.leaf(t, p.Name); !got.Failed() || !strings.HasPrefix(got.errors[0], c.want) {
					t.Fatalf("%s: %q, want %q", p.Name, got.errors, c.want)
				}
			}
			if got := files(t, dir); !slices.Contains(got, "conformance-unknown-default.json") {
				t.Errorf("it has written %v", got)
			}
		})
	}
}

// Mutants that escape are reported as well: all do where there is no broker.
func TestMutantsThatEscape(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("OMNIBUS_REPORTS", dir)
	f := &fake{T: t, name: "TestMutants"}
	f.do(func(f *fake) { conformance.RunMutants(f, conformance.Harness{Driver: nobodyThere}) })
	all := len(conformance.Mutants())
	for _, m := range f.children {
		if !m.Failed() {
			t.Errorf("%s passes without a broker", m.name)
		}
	}
	mutantsSchema().check(t, "report", readJSON(t, filepath.Join(dir, "mutants-unknown-default.json")))
	x := readJUnit(t, filepath.Join(dir, "mutants-unknown-default.xml"))
	if x.Tests != all || x.Failures != all {
		t.Errorf("of %d mutants that escape JUnit has %d, and %d failures", all, x.Tests, x.Failures)
	}
}

func TestWrittenMutants(t *testing.T) {
	rep := conformance.MutantsReport{Schema: "omnibus.mutants/1", Unguarded: []string{"Time/Delay"}, Mutants: []conformance.MutantResult{
		{Name: "forgets", Breaks: "Delivery/ConfirmedIsReceived", CaughtBy: []string{"Delivery/ConfirmedIsReceived"}, FirstFailure: "1 lost"},
		{Name: "sleeps", Breaks: "Time/Delay", CaughtBy: []string{}},
	}}
	dir := t.TempDir()
	if err := rep.Write(dir); err != nil {
		t.Fatal(err)
	}
	mutantsSchema().check(t, "report", readJSON(t, filepath.Join(dir, "mutants-unknown-default.json")))
	x := readJUnit(t, filepath.Join(dir, "mutants-unknown-default.xml"))
	if len(x.Suites) != 2 || x.Suites[0].Failures != 0 || x.Suites[1].Failures != 1 || x.Suites[1].Cases[0].Failure.Message == "" {
		t.Errorf("JUnit: %+v", x)
	}
}
