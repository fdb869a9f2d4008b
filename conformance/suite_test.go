package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestCatalogue(t *testing.T) {
	name := regexp.MustCompile(`^[A-Z][A-Za-z]+/[A-Z][A-Za-z]+$`)
	properties, broken, mutants := map[string]bool{}, map[string]bool{}, map[string]bool{}
	rare := 0
	for _, m := range conformance.Mutants() {
		if strings.Contains(m.Name, "every 100th") || strings.Contains(m.Name, "every 90th") {
			rare++
		}
		if mutants[m.Breaks+m.Name] {
			t.Errorf("the mutant %q of %s is there twice", m.Name, m.Breaks)
		}
		mutants[m.Breaks+m.Name], broken[m.Breaks] = true, true
	}
	for _, p := range conformance.Properties() {
		if properties[p.Name] {
			t.Errorf("%s is there twice", p.Name)
		}
		properties[p.Name] = true
		if !name.MatchString(p.Name) {
			t.Errorf("%s is not named Group/Property", p.Name)
		}
		if !strings.HasSuffix(p.Doc, ".") || strings.Contains(p.Doc, ". ") {
			t.Errorf("%s: its doc is to be one sentence: %q", p.Name, p.Doc)
		}
		if broken[p.Name] != (p.Pending == "") {
			t.Errorf("%s has a mutant: %v; one that is asked needs one, to show that it can fail, and one that waits (%s) none", p.Name, broken[p.Name], p.Pending)
		}
		if slices.ContainsFunc(p.Promises, func(n int) bool { return n < 1 || n > 22 }) {
			t.Errorf("%s: there are no promises %v", p.Name, p.Promises)
		}
	}
	if all := len(conformance.Mutants()); rare*5 < all {
		t.Errorf("%d of %d mutants strike about every 100th message only, one in five should", rare, all)
	}
	for name := range broken {
		if !properties[name] {
			t.Errorf("a mutant breaks %s, which is no property", name)
		}
	}
}

// checkIn runs the suite without package testing, but for the bubbles.
func checkIn(t *testing.T, h conformance.Harness) *conformance.Report {
	t.Helper()
	h.Wrap = func(_ conformance.T, f func()) { synctest.Test(t, func(*testing.T) { f() }) }
	rep, err := conformance.Check(context.Background(), h, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// changed is the memory harness with another driver.
func changed(f func(d pubsub.Driver) pubsub.Driver) conformance.Harness {
	h := onMemory()
	fresh := h.Fresh
	h.Fresh = func() conformance.Harness {
		sound := fresh()
		return conformance.Harness{Driver: func(ctx context.Context) (pubsub.Driver, error) {
			d, err := sound.Driver(ctx)
			return f(d), err
		}}
	}
	return h
}

// A modest driver claims nothing, and shows none of the optional interfaces.
type modest struct{ pubsub.Driver }

func (modest) Capabilities() pubsub.Capabilities { return pubsub.Capabilities{OptedDown: true} }

func TestUndeclaredIsRefused(t *testing.T) {
	rep := checkIn(t, changed(func(d pubsub.Driver) pubsub.Driver { return modest{d} }))
	refused := 0
	for _, p := range rep.Properties {
		switch {
		case p.Status == conformance.Failed:
			t.Errorf("%s fails on a broker that claims nothing: %s", p.Name, p.Reason)
		case strings.HasPrefix(p.Reason, "refused as it should be"):
			refused++
		case p.Status == conformance.NotRun && p.Reason == "":
			t.Errorf("%s was not run, and nobody says why", p.Name)
		}
	}
	if refused < 10 || rep.Totals[conformance.Passed] <= refused || rep.Totals[conformance.Gated] == 0 {
		t.Errorf("%d refusals were asserted; %v", refused, rep.Totals)
	}
}

// A careless driver breaks one property: it does not say that a topic is missing.
type careless struct{ pubsub.Driver }

func (careless) Classify(error) (pubsub.Code, bool) { return pubsub.ErrBroker, true }

func TestKnownFailing(t *testing.T) {
	t.Parallel()
	h := changed(func(d pubsub.Driver) pubsub.Driver { return careless{d} })
	const fails, passes = "Delivery/Unroutable", "Fidelity/NilAndEmpty"
	h.KnownFailing = map[string]string{fails: "issue 12", passes: "issue 13"}
	rep := checkIn(t, h)
	got := map[string]conformance.PropertyResult{}
	for _, p := range rep.Properties {
		got[p.Name] = p
	}
	if p := got[fails]; p.Status != conformance.KnownFailing || p.Reason != "issue 12" {
		t.Errorf("%s, which is known to fail, is reported as %s: %s", fails, p.Status, p.Reason)
	}
	if p := got[passes]; p.Status != conformance.Failed || !strings.Contains(p.Reason, "issue 13") {
		t.Errorf("%s, which passes although it is said to fail, is reported as %s: %s", passes, p.Status, p.Reason)
	}
	if p := got["Lifecycle/WrongUses"]; p.Status != conformance.Failed {
		t.Errorf("Lifecycle/WrongUses is reported as %s on a driver that knows no codes", p.Status)
	}
	if rep.OK() {
		t.Error("a report with failures is OK")
	}
	h.KnownFailing = map[string]string{"Delivery/Nonsense": "issue 14"}
	if _, err := conformance.Check(context.Background(), h, nil); err == nil || !strings.Contains(err.Error(), "Delivery/Nonsense") {
		t.Errorf("a known failure that is no property: %v", err)
	}
}

// What keeps the suite from asking is no verdict on the adapter, and says so.
func TestNoVerdict(t *testing.T) {
	pending := map[string]bool{}
	for _, p := range conformance.Properties() {
		pending[p.Name] = p.Pending != ""
	}
	for want, h := range map[string]conformance.Harness{
		"setup: connect: nobody there": {Driver: func(context.Context) (pubsub.Driver, error) { return nil, errors.New("nobody there") }},
		"panic: a bug":                 {Driver: func(context.Context) (pubsub.Driver, error) { panic("a bug") }},
		"harness: a bubble burst": {
			Driver: func(context.Context) (pubsub.Driver, error) { return nil, nil },
			Wrap:   func(conformance.T, func()) { panic("a bubble burst") },
		},
	} {
		rep, err := conformance.Check(context.Background(), h, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range rep.Properties {
			if pending[p.Name] {
				continue
			}
			if p.Status != conformance.Failed || !strings.HasPrefix(p.Reason, want) {
				t.Errorf("%s: %s %q, want a failure %q", p.Name, p.Status, p.Reason, want)
			}
		}
	}
	if _, err := conformance.Check(context.Background(), conformance.Harness{}, nil); err == nil {
		t.Error("a harness without a Driver was accepted")
	}
	h := onMemory()
	h.Kill = func(context.Context) error { return nil }
	if _, err := conformance.Check(context.Background(), h, nil); err == nil {
		t.Error("a harness with Kill and without Start was accepted")
	}
}

// What is encrypted is asked about with the harness's own KMS; without one that can be made nothing is said about the adapter.
func TestOwnKMS(t *testing.T) {
	var asked atomic.Int64
	h := onMemoryIn(t)
	h.Select = func(p conformance.Property) bool { return p.Name == "Security/CiphertextMoved" }
	fresh := h.Fresh
	h.Fresh = func() conformance.Harness {
		h := fresh()
		h.KMS = func() (security.KMS, error) {
			key, err := security.GenerateKey(security.HPKEP256, "own-1", "own")
			if err != nil {
				return nil, err
			}
			ring, err := security.NewKeyring(key)
			return countedKMS{ring.KMS("own"), &asked}, err
		}
		return h
	}
	rep, err := conformance.Check(context.Background(), h, nil)
	if err != nil || len(rep.Properties) != 1 || !rep.OK() || asked.Load() == 0 {
		t.Errorf("of %d properties with %d calls of the KMS: %+v, %v", len(rep.Properties), asked.Load(), rep.Properties, err)
	}
	h.Fresh = func() conformance.Harness {
		h := fresh()
		h.KMS = func() (security.KMS, error) { return nil, errors.New("no KMS today") }
		return h
	}
	rep, err = conformance.Check(context.Background(), h, nil)
	if err != nil || rep.OK() || !strings.Contains(fmt.Sprintf("%+v", rep.Properties), "setup: the harness has no KMS: no KMS today") {
		t.Errorf("without a KMS: %+v, %v", rep.Properties, err)
	}
}

// A countedKMS counts what it is asked.
type countedKMS struct {
	security.KMS
	asked *atomic.Int64
}

func (k countedKMS) Unwrap(ctx context.Context, kek string, wrapped, binding []byte) ([]byte, error) {
	k.asked.Add(1)
	return k.KMS.Unwrap(ctx, kek, wrapped, binding)
}

// A part of the suite asks those properties and no others, and says that it is a part; so does one that was ended.
func TestSelect(t *testing.T) {
	h := onMemoryIn(t)
	h.Select = func(p conformance.Property) bool { return p.Group() == "Order" }
	var asked []string
	ctx, cancel := context.WithCancelCause(context.Background())
	rep, err := conformance.Check(ctx, h, func(p conformance.PropertyResult) { asked = append(asked, p.Name) })
	if err != nil {
		t.Fatal(err)
	}
	if len(asked) == 0 || len(asked) != len(rep.Properties) || !rep.Partial() || !rep.OK() {
		t.Errorf("asked are %q, partial: %v, OK: %v", asked, rep.Partial(), rep.OK())
	}
	for _, name := range asked {
		if !strings.HasPrefix(name, "Order/") {
			t.Errorf("%s was not selected", name)
		}
	}
	stop := errors.New("stop")
	rep, err = conformance.Check(ctx, onMemoryIn(t), func(conformance.PropertyResult) { cancel(stop) })
	if !errors.Is(err, stop) || len(rep.Properties) != 1 || !rep.Partial() {
		t.Errorf("after a stop at the first property there are %d, partial: %v, and %v", len(rep.Properties), rep.Partial(), err)
	}
}
