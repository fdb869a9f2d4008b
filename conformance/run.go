package conformance

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Run checks every property against the broker of h, each as a subtest of t, and writes the report. It fails t where a property
// fails, or was not run without a reason. R is *testing.T; see Check for programs without package testing.
func Run[R Runner[R]](t R, h Harness) {
	t.Helper()
	rep, err := newReport(h)
	if err != nil {
		t.Fatalf("%v", err)
	}
	rep.test = t.Name()
	var mu sync.Mutex // of rep
	h.inTurn(h.selected(), func(p Property) {
		t.Run(p.Name, func(t R) {
			res := ended(p) // stays if the harness ends the test
			defer func() {
				mu.Lock()
				rep.add(res)
				mu.Unlock()
				announce(t, res, rep)
			}()
			res = check(context.Background(), t, h, p, rep.Seed, nil)
		})
	})
	rep.finish()
	var table strings.Builder
	rep.Table(&table)
	t.Logf("%s", table.String())
	if rep.Partial() {
		t.Logf("not all properties were selected: no report is written")
		return
	}
	if err := store(rep); err != nil {
		t.Errorf("%v", err)
	}
}

// selected are the properties that h asks for.
func (h Harness) selected() []Property {
	return slices.DeleteFunc(Properties(), func(p Property) bool { return h.Select != nil && !h.Select(p) })
}

// ended is the result of a property whose test ends before it has one: Wrap skipped or failed it.
func ended(p Property) PropertyResult {
	reason := harnessPrefix + "Wrap ended the property's test before the property had ended"
	return PropertyResult{Name: p.Name, Gate: p.Gate.Text, Status: Failed, Reason: reason, failures: []string{reason}}
}

// announce tells a test what became of its property.
func announce[R Runner[R]](t R, res PropertyResult, rep *Report) {
	t.Helper()
	for _, l := range res.logs {
		t.Logf("%s", l)
	}
	switch {
	case res.fails():
		for _, f := range res.failures {
			t.Errorf("%s", f)
		}
		t.Errorf("%s fails; to see it again: %s", res.Name, rep.rerun(res.Name))
	case res.Status != Passed:
		t.Skipf("%s: %s", res.Status, res.Reason)
	}
}

// Check checks every property against the broker of h, or those that h.Select takes, for programs that link no package testing. progress, unless it
// is nil, is told of each as it ends, one at a time. When ctx ends, those that run are ended and left out, and the report so far comes with the cause.
func Check(ctx context.Context, h Harness, progress func(PropertyResult)) (*Report, error) {
	rep, err := newReport(h)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // of rep
	props := h.selected()
	h.inTurn(props, func(p Property) {
		if ctx.Err() != nil {
			return
		}
		res := check(ctx, nil, h, p, rep.Seed, nil)
		if ctx.Err() != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		rep.add(res)
		if progress != nil {
			progress(res)
		}
	})
	rep.finish()
	if len(rep.Properties) < len(props) {
		return rep, context.Cause(ctx)
	}
	return rep, nil
}

func store(rep *Report) error {
	dir, err := ReportDir()
	if err != nil {
		return err
	}
	return rep.Write(dir)
}

// newReport begins a report, and refuses a harness that cannot be right.
func newReport(h Harness) (*Report, error) {
	if h.Driver == nil && h.Fresh == nil {
		return nil, fmt.Errorf("conformance: Harness.Driver is nil")
	}
	if (h.Kill == nil) != (h.Start == nil) {
		return nil, fmt.Errorf("conformance: Harness has one of Kill and Start; it needs both or none")
	}
	for name := range h.KnownFailing {
		if !slices.ContainsFunc(Properties(), func(p Property) bool { return p.Name == name }) {
			return nil, fmt.Errorf("conformance: Harness.KnownFailing names %q, which is no property", name)
		}
	}
	seed, err := seed()
	if err != nil {
		return nil, err
	}
	variant := h.Variant
	if variant == "" {
		variant = "default"
	}
	return &Report{
		Schema: "omnibus.conformance/1", Broker: unknownBroker, Variant: variant, ServerVersion: h.ServerVersion, ClientVersion: h.ClientVersion,
		Capabilities: map[string]any{}, Properties: []PropertyResult{}, begin: time.Now(),
		Go: runtime.Version(), Race: raceEnabled, Seed: seed, Totals: map[Status]int{Passed: 0, Failed: 0, KnownFailing: 0, Gated: 0, NotRun: 0},
	}, nil
}

// seed is SEED, else one that no other run has.
func seed() (uint64, error) {
	text := os.Getenv("SEED")
	if text == "" {
		return rand.Uint64() >> 11, nil // exact in a JSON number
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("conformance: SEED is %q, not a number", text)
	}
	return n, nil
}

// propertyTime bounds a property that has lost its way. Virtual clocks reach it at once.
const propertyTime = 30 * time.Minute

// check runs one property, against the mutation m where it is not nil. outer is the test that it runs in, if there is one.
func check(ctx context.Context, outer T, h Harness, p Property, seed uint64, m *mutation) (res PropertyResult) {
	res = PropertyResult{Name: p.Name, Gate: p.Gate.Text}
	if p.Pending != "" {
		res.Status, res.Reason = NotRun, p.Pending
		return res
	}
	if h.Wrap != nil {
		ctx = context.WithoutCancel(ctx) // nobody outside a bubble can end a context that was made in it
	}
	begin := time.Now()
	t := &trial{name: p.Name}
	var e *env
	known := h.KnownFailing[p.Name]
	func() {
		calls := 0
		defer func() {
			if r := recover(); r != nil { // a bubble that cannot end, for instance
				t.Errorf("%s%v", harnessPrefix, r)
			} else if calls != 1 {
				t.Errorf("%sWrap called its function %d times, not once", harnessPrefix, calls)
			}
		}()
		h.wrap(outer, func() {
			calls++
			if h.Fresh != nil {
				h = h.Fresh()
			}
			if !p.alone { // others use the broker meanwhile
				h.Kill, h.Start, h.Faults, h.Replicas = nil, nil, nil, nil
			}
			if m != nil {
				m.secrets, h.Replicas = h.Secrets, m.watch(h.Replicas)
			}
			ctx, cancel := context.WithTimeout(ctx, propertyTime)
			defer cancel()
			t.ctx = ctx
			e = &env{T: t, h: h, m: m, run: runName(p.Name), rng: newDice(seed, p.Name)}
			t.run(func() { e.examine(p, &res) })
		})
	}()
	res.Seconds = time.Since(begin).Seconds()
	res.failures, res.logs = t.failures, t.logs
	if e != nil && e.moot == "" {
		for _, l := range e.ledgers {
			l.figures(&res)
		}
	}
	if m != nil {
		res.handed = int(m.handed.Load())
		res.early = m.early()
	}
	if e != nil && e.moot != "" && len(res.failures) == 0 {
		res.Status, res.Reason = Gated, e.moot
	}
	judge(&res, known)
	return res
}

// examine decides whether the property can be asked, and asks it.
func (e *env) examine(p Property, res *PropertyResult) {
	d, err := e.h.Driver(e.Context())
	e.must(err, "connect")
	d = e.m.over(d)
	e.caps, e.adapter = d.Capabilities(), d.Name()
	res.caps, res.adapter = e.caps, e.adapter
	e.must(d.Close(e.Context()), "close a driver")
	if !p.Gate.Open(e.caps) {
		if p.refused == nil {
			res.Status, res.Reason = Gated, "the broker does not claim "+p.Gate.Text
			return
		}
		p.refused(e)
		res.Reason = "refused as it should be: the broker does not claim " + p.Gate.Text
		return
	}
	if p.needs != nil {
		if lacks := p.needs(e.h); lacks != "" {
			res.Status, res.Reason = NotRun, "a fault that the harness cannot cause: "+lacks
			return
		}
	}
	p.run(e)
}

// judge turns what happened into a status.
func judge(res *PropertyResult, known string) {
	if bad := res.Lost > 0 || res.Duplicates > res.DuplicateBound || res.OrderViolations > 0; bad && len(res.failures) == 0 {
		res.failures = []string{fmt.Sprintf("%d messages lost, %d duplicates of %d allowed, %d breaches of order",
			res.Lost, res.Duplicates, res.DuplicateBound, res.OrderViolations)}
	}
	switch {
	case len(res.failures) > 0 && known != "":
		res.Status, res.Reason = KnownFailing, known
	case len(res.failures) > 0:
		res.Status, res.Reason = Failed, res.failures[0]
	case res.Status != "":
	case known != "":
		res.Status, res.Reason = Failed, "passes, although Harness.KnownFailing names it: "+known
		res.failures = []string{res.Reason}
	default:
		res.Status = Passed
	}
}

// runName is a segment that no other run and property has.
func runName(property string) string {
	return fmt.Sprintf("t%x-%x", time.Now().UnixNano(), hash(property)^rand.Uint64())
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s)) // never fails
	return h.Sum64()
}
