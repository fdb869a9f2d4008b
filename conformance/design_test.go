package conformance_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
)

var update = flag.Bool("update", false, "write the promise table into DESIGN.md")

// The table of DESIGN.md says which properties hold each promise, and which mutants show that they can fail. It is generated from the suite.
func TestPromiseTable(t *testing.T) {
	const file, begin, end = "../DESIGN.md", "<!-- promises: go test ./conformance -run TestPromiseTable -update -->\n", "<!-- /promises -->"
	mutants := map[string][]string{}
	for _, m := range conformance.Mutants() {
		mutants[m.Breaks] = append(mutants[m.Breaks], m.Name)
	}
	var table strings.Builder
	table.WriteString("\n| promise | property | mutants that it catches |\n|---|---|---|\n")
	for _, promise := range conformance.Promises() {
		rows := 0
		for _, p := range conformance.Properties() {
			for _, n := range p.Promises {
				if n == promise.Number {
					caught := strings.Join(mutants[p.Name], "; ")
					if p.Pending != "" {
						caught = "not run yet: " + p.Pending
					}
					fmt.Fprintf(&table, "| %d. %s | %s | %s |\n", n, promise.Title, p.Name, caught)
					rows++
				}
			}
		}
		if rows == 0 {
			fmt.Fprintf(&table, "| %d. %s | none yet | |\n", promise.Number, promise.Title)
		}
	}
	table.WriteString("\n")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no promise table between its markers", file)
	}
	want := before + begin + table.String() + end + after
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Errorf("the promise table of %s is not that of the suite: go test ./conformance -run TestPromiseTable -update", file)
	}
}
