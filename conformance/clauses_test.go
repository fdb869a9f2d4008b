package conformance_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

// The contract and the suite say the same: each clause has a property that asks for it, or one that says what it waits for, and each
// property belongs to a clause.
func TestClauses(t *testing.T) {
	reasons := []string{"needs a broker with a network: "}
	properties := map[string]conformance.Property{}
	groups := map[string]bool{}
	for _, p := range conformance.Properties() {
		properties[p.Name] = p
		groups[p.Group()] = true
		if p.Pending != "" && !slices.ContainsFunc(reasons, func(r string) bool {
			what, ok := strings.CutPrefix(p.Pending, r)
			return ok && what != ""
		}) {
			t.Errorf("%s waits for %q, which is none of %q and what exactly", p.Name, p.Pending, reasons)
		}
	}
	covered := map[string]bool{}
	seen := map[string]int{}
	for _, c := range conformance.Clauses() {
		if !groups[c.Group] || c.Text == "" {
			t.Errorf("the clause %q is in the group %q", c.Text, c.Group)
		}
		seen[c.Group+": "+c.Text]++
		if len(c.Properties) == 0 {
			t.Errorf("%s, %q: no property asks for it", c.Group, c.Text)
		}
		for _, name := range c.Properties {
			if _, ok := properties[name]; !ok {
				t.Errorf("%s, %q: there is no property %s", c.Group, c.Text, name)
			}
			covered[name] = true
		}
	}
	for name := range properties {
		if !covered[name] {
			t.Errorf("%s belongs to no clause", name)
		}
	}
	for group := range groups {
		if !slices.ContainsFunc(conformance.Clauses(), func(c conformance.Clause) bool { return c.Group == group }) {
			t.Errorf("the group %s has properties and no clauses", group)
		}
	}
	for text, n := range seen {
		if n > 1 && text != "Fidelity: empty" { // payloads, and headers
			t.Errorf("%q is there %d times", text, n)
		}
	}
}

// Each report names what is not run yet, with what it waits for, and is fine all the same.
func TestPendingIsReported(t *testing.T) {
	pending := map[string]string{}
	for _, p := range conformance.Properties() {
		if p.Pending != "" {
			pending[p.Name] = p.Pending
		}
	}
	if len(pending) == 0 {
		t.Fatal("nothing is pending")
	}
	rep := checkIn(t, changed(func(d pubsub.Driver) pubsub.Driver { return modest{d} }))
	for _, p := range rep.Properties {
		if why, ok := pending[p.Name]; ok {
			delete(pending, p.Name)
			if p.Status != conformance.NotRun || p.Reason != why {
				t.Errorf("%s is reported as %s: %s", p.Name, p.Status, p.Reason)
			}
		}
	}
	if len(pending) > 0 {
		t.Errorf("the report does not name %v", pending)
	}
	if !rep.OK() {
		t.Error("what waits for something makes a report bad")
	}
}
