package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

func soakSchema() shape {
	return shape{
		"schema": "omnibus.soak/1", "broker": text, "variant": text, "minutes": number,
		"schedules": []any{shape{
			"seed": count, "published": count, "confirmed": count, "unknown": count, "lost": count, "duplicates": count, "duplicate_bound": count,
			"order_violations": count, "reconnects": count, "goroutines_end": count, "rss_mb_end": count,
			"failures": []any{text},
			"faults":   []any{shape{"kind": text, "at_ms": count, "took_effect": truth, "in_flight_at_hit": count}},
		}},
	}
}

// soakFake soaks with a fake test, reports going to a folder that it returns.
func soakFake(t *testing.T, h conformance.Harness, minutes string) (f *fake, dir string) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("OMNIBUS_REPORTS", dir)
	t.Setenv("SEED", "7")
	t.Setenv("MINUTES", minutes)
	h.Wrap = bubble(t)
	f = &fake{T: t, name: "TestIt"}
	f.do(func(f *fake) { conformance.Soak(f, h) })
	return f, dir
}

// all is what the test and its subtests say.
func (f *fake) all() (errs string) {
	errs = strings.Join(f.errors, "\n")
	for _, c := range f.children {
		errs += "\n" + c.all()
	}
	return errs
}

func TestSoakReport(t *testing.T) {
	f, dir := soakFake(t, onMemory(), "0.001")
	if errs := strings.TrimSpace(f.all()); errs != "" {
		t.Error(errs)
	}
	doc := readJSON(t, filepath.Join(dir, "soak-memory-default.json"))
	soakSchema().check(t, "report", doc)
	schedules := doc["schedules"].([]any)
	first := schedules[0].(map[string]any)
	if first["seed"] != 7.0 || first["confirmed"].(float64) < 500 || first["rss_mb_end"].(float64) < 1 || first["goroutines_end"].(float64) < 1 {
		t.Errorf("the first schedule is %v", first)
	}
	if x := readJUnit(t, filepath.Join(dir, "soak-memory-default.xml")); x.Tests != len(schedules) || x.Failures != 0 {
		t.Errorf("JUnit has %d tests, %d failures", x.Tests, x.Failures)
	}
	again, _ := soakFake(t, onMemory(), "")
	if len(again.children) != 2 || again.Failed() {
		t.Errorf("without a time it runs %d schedules: %s", len(again.children), again.all())
	}
	if log := strings.Join(f.logs, ""); !strings.Contains(log, fmt.Sprintf("%d schedules, ", len(schedules))) || !strings.Contains(log, " with effect;") {
		t.Errorf("%q does not say how many schedules had an effect", log)
	}
}

// The same seed gives the same faults.
func TestSoakRepeats(t *testing.T) {
	kinds := func() (list []any) {
		_, dir := soakFake(t, onMemory(), "0.001")
		doc := readJSON(t, filepath.Join(dir, "soak-memory-default.json"))
		for _, f := range doc["schedules"].([]any)[0].(map[string]any)["faults"].([]any) {
			list = append(list, f.(map[string]any)["kind"])
		}
		return list
	}
	a, b := kinds(), kinds()
	if len(a) < 3 || len(a) != len(b) {
		t.Fatalf("%v and %v", a, b)
	}
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("%v and %v", a, b)
		}
	}
}

// A sloppySource is almost right: spoil may change what has come.
type sloppySource struct {
	pubsub.Source
	spoil func(s pubsub.Source, records []pubsub.Record) int
}

func (s sloppySource) Recv(ctx context.Context, buf []pubsub.Record, maxBytes int64) (int, []pubsub.LaneEvent, error) {
	n, events, err := s.Source.Recv(ctx, buf, maxBytes)
	return s.spoil(s.Source, buf[:n]), events, err
}

type sloppyDriver struct {
	pubsub.Driver
	spoil func(s pubsub.Source, records []pubsub.Record) int
}

func (d sloppyDriver) OpenSource(ctx context.Context, spec pubsub.SourceSpec) (pubsub.Source, error) {
	s, err := d.Driver.OpenSource(ctx, spec)
	if err != nil || spec.From.Kind != pubsub.PlaceMain {
		return s, err
	}
	return sloppySource{s, d.spoil}, nil
}

// Adapters that are almost right do not get through.
func TestSoakOfSloppyAdapters(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(seen *atomic.Int64, s pubsub.Source, records []pubsub.Record) int
		want  string
	}{
		"loses every 500th": {func(seen *atomic.Int64, s pubsub.Source, records []pubsub.Record) int {
			kept := records[:0]
			for _, r := range records {
				if seen.Add(1)%500 == 0 {
					_ = s.Settle(context.Background(), []pubsub.Settlement{{Token: r.Token, As: pubsub.SettleAck}}, make([]error, 1))
					continue
				}
				kept = append(kept, r)
			}
			return len(kept)
		}, "g lost "},
		"hands every 50th handful over the wrong way round": {func(seen *atomic.Int64, _ pubsub.Source, records []pubsub.Record) int {
			if len(records) > 1 && seen.Add(1)%50 == 0 {
				slices.Reverse(records)
			}
			return len(records)
		}, "g broke the order "},
	} {
		t.Run(name, func(t *testing.T) {
			h := onMemory()
			fresh := h.Fresh
			h.Fresh = func() conformance.Harness {
				one, seen := fresh(), new(atomic.Int64)
				open := one.Driver
				one.Driver = func(ctx context.Context) (pubsub.Driver, error) {
					d, err := open(ctx)
					return sloppyDriver{d, func(s pubsub.Source, records []pubsub.Record) int { return c.spoil(seen, s, records) }}, err
				}
				return one
			}
			f, dir := soakFake(t, h, "0.001")
			if errs := f.all(); !strings.Contains(errs, c.want) || !strings.Contains(errs, "1 of 1 schedules failed") || !strings.Contains(errs, "SEED=7 go test") {
				t.Errorf("%s", errs)
			}
			if x := readJUnit(t, filepath.Join(dir, "soak-memory-default.xml")); x.Failures != 1 {
				t.Errorf("JUnit counts %d failures", x.Failures)
			}
			if kept, _ := filepath.Glob(filepath.Join(dir, "*.history")); len(kept) != 1 {
				t.Errorf("histories: %v", kept)
			}
		})
	}
}

// A fault without effect counts for nothing, and one that cannot be ended fails.
func TestSoakWithoutEffect(t *testing.T) {
	for name, c := range map[string]struct {
		end  error
		want string
	}{
		"no effect": {nil, "had an effect, want four in five"},
		"no end":    {errors.New("still there"), "setup: end broker: nothing: still there"},
	} {
		t.Run(name, func(t *testing.T) {
			h := onMemory()
			fresh := h.Fresh
			h.Fresh = func() conformance.Harness {
				one := fresh()
				for range 30 { // more than the other kinds
					one.Faults = append(one.Faults, conformance.Fault{Name: "nothing", Strike: func(context.Context) (func(context.Context) (bool, error), error) {
						return func(context.Context) (bool, error) { return false, c.end }, nil
					}})
				}
				return one
			}
			if f, _ := soakFake(t, h, ""); !f.Failed() || !strings.Contains(f.all(), c.want) {
				t.Errorf("%q does not say %q", f.all(), c.want)
			}
		})
	}
}

// What removes a node's data happens to brokers only that have it elsewhere.
func TestSoakSparesTheOnlyCopy(t *testing.T) {
	h := onMemory()
	fresh := h.Fresh
	h.Fresh = func() conformance.Harness {
		one := fresh()
		for range 30 {
			one.Faults = append(one.Faults, conformance.Fault{Name: "wipe", Loses: true, Strike: func(context.Context) (func(context.Context) (bool, error), error) {
				return nil, errors.New("wiped")
			}})
		}
		return one
	}
	if f, _ := soakFake(t, h, ""); f.Failed() {
		t.Error(f.all())
	}
}

func TestSoakRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		harness conformance.Harness
		minutes string
		want    string
	}{
		"a time that is none": {onMemory(), "soon", `MINUTES is "soon"`},
		"no time":             {onMemory(), "0", `MINUTES is "0"`},
		"no broker":           {conformance.Harness{}, "", "Harness.Driver is nil"},
		"nobody there":        {conformance.Harness{Driver: nobodyThere}, "", "setup: connect: nobody there"},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := soakFake(t, c.harness, c.minutes)
			if !f.Failed() || !strings.Contains(f.all(), c.want) {
				t.Errorf("%q does not say %q", f.all(), c.want)
			}
		})
	}
}

// A program that has an address, and does not call Member, is told to.
func TestSoakWithoutMember(t *testing.T) {
	h := onMemory()
	fresh := h.Fresh
	h.Fresh = func() conformance.Harness {
		one := fresh()
		one.Address = "mem://"
		return one
	}
	if f, _ := soakFake(t, h, "0.0001"); !f.Failed() || !strings.Contains(f.all(), "Does the program call conformance.Member first?") {
		t.Errorf("%q does not say what is missing", f.all())
	}
}
