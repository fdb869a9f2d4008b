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
	promises := []string{
		"nil means accepted", "everything else is an error", "order per key at publish", "the caller's message is untouched",
		"at least once, for groups", "order per key at consume", "bounded", "leases", "attempts", "delayed redelivery", "settle once",
		"undecodable messages", "drain", "reconnects", "no panic, no leak", "no silent downgrade", "same defaults", "typed errors",
		"given up means kept", "fidelity", "delay, priority, seek, lag, TTL", "attacks are refused",
	}
	mutants := map[string][]string{}
	for _, m := range conformance.Mutants() {
		mutants[m.Breaks] = append(mutants[m.Breaks], m.Name)
	}
	var table strings.Builder
	table.WriteString("\n| promise | property | mutants that it catches |\n|---|---|---|\n")
	for i, promise := range promises {
		rows := 0
		for _, p := range conformance.Properties() {
			for _, n := range p.Promises {
				if n == i+1 {
					fmt.Fprintf(&table, "| %d. %s | %s | %s |\n", n, promise, p.Name, strings.Join(mutants[p.Name], "; "))
					rows++
				}
			}
		}
		if rows == 0 {
			fmt.Fprintf(&table, "| %d. %s | none yet | |\n", i+1, promise)
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
