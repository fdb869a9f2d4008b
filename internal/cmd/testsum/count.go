package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"
)

// An event is one line of `go test -json`.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output and build-fail
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
}

type testKey struct{ pkg, test string }

// count reads `go test -json`, prints a line per package and the output of what failed, and counts tests without subtests
// in them as well as subtests: every leaf once. A package that fails without a failed test (build, panic, timeout, exit in
// TestMain) counts as one failure. show names a test whose output is printed also when it passes.
func count(r io.Reader, s *step, show string, out io.Writer) error {
	c := counter{
		show:   show,
		step:   s,
		out:    out,
		output: map[testKey][]string{},
		open:   map[testKey]bool{},
		bad:    map[testKey]bool{},
		leaf:   map[string]tally{},
		build:  map[string][]string{},
	}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				fmt.Fprintf(out, "%s", line) // not from the test tool: shown as it is
			} else {
				c.add(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

type tally struct{ passed, failed, skipped int }

type counter struct {
	show   string
	step   *step
	out    io.Writer
	output map[testKey][]string // of tests that have no verdict yet; "" is the package's own
	open   map[testKey]bool     // tests that have subtests
	bad    map[testKey]bool     // tests of which a subtest has failed
	leaf   map[string]tally     // by package
	build  map[string][]string  // compiler output by import path
}

func (c *counter) add(e event) {
	k := testKey{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		c.build[e.ImportPath] = append(c.build[e.ImportPath], e.Output)
	case "run":
		for above := range ancestors(e.Test) {
			c.open[testKey{e.Package, above}] = true
		}
		c.output[k] = nil
	case "output":
		c.output[k] = append(c.output[k], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			c.endPackage(e)
		} else {
			c.endTest(k, e.Action)
		}
	}
}

// endTest counts a leaf; a test with subtests counts only when it fails by itself, not through them.
func (c *counter) endTest(k testKey, verdict string) {
	t := c.leaf[k.pkg]
	switch {
	case verdict == "fail":
		text := fmt.Sprintf("--- FAIL %s %s\n%s", k.pkg, k.test, indent(c.output[k]))
		if c.bad[k] {
			fmt.Fprint(c.out, text)
		} else {
			t.failed++
			c.step.fails(text, c.out)
		}
		for above := range ancestors(k.test) {
			c.bad[testKey{k.pkg, above}] = true
		}
	case verdict == "skip":
		t.skipped++
		fmt.Fprintf(c.out, "--- SKIP %s %s\n%s", k.pkg, k.test, indent(notes(c.output[k])))
	case !c.open[k]:
		t.passed++
	}
	if verdict == "pass" && k.test == c.show {
		fmt.Fprint(c.out, indent(notes(c.output[k])))
	}
	c.leaf[k.pkg] = t
	delete(c.output, k)
	delete(c.bad, k) // with -count the name comes again
}

func (c *counter) endPackage(e event) {
	t := c.leaf[e.Package]
	if e.Action == "fail" && t.failed == 0 {
		t.failed = 1
		c.step.fails(fmt.Sprintf("--- FAIL %s\n%s", e.Package, indent(c.build[e.FailedBuild])), c.out)
	}
	if e.Action == "fail" {
		for k, lines := range c.output { // what ran when the process ended, and the goroutines that it printed
			if k.pkg == e.Package && len(notes(lines)) > 0 {
				fmt.Fprintf(c.out, "    %s:\n%s", cmp.Or(k.test, "output of the package"), indent(notes(lines)))
			}
		}
	}
	c.step.Passed += t.passed
	c.step.Skipped += t.skipped
	state := map[string]string{"pass": "ok  ", "fail": "FAIL", "skip": "none"}[e.Action]
	if e.Action != "skip" { // skip: no test files
		d := time.Duration(e.Elapsed * float64(time.Second)).Round(10 * time.Millisecond)
		fmt.Fprintf(c.out, "%s %-60s %4d passed %3d failed %3d skipped %8v\n", state, e.Package, t.passed, t.failed, t.skipped, d)
	}
}

// ancestors are the tests that a subtest may lie in: one that has a slash in its own name skips some of them.
func ancestors(test string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range test {
			if test[i] == '/' && !yield(test[:i]) {
				return
			}
		}
	}
}

// notes drops the lines that the test tool writes itself.
func notes(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
		l = strings.TrimSpace(l)
		return strings.HasPrefix(l, "=== ") || strings.HasPrefix(l, "--- ")
	})
}

func indent(lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("    " + strings.TrimRight(l, "\n") + "\n")
	}
	return b.String()
}
