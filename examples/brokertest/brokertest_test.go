// Package brokertest_test runs the commands of the examples' README on a real broker: they print there what they print in the process.
package brokertest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance/containers"
)

// TestBrokers is run for one kind at a time by the Makefile, which knows what a machine has: -run TestBrokers/nats. The adapters have their
// suites; that the examples run on another broker too is shown with one.
func TestBrokers(t *testing.T) {
	programs := commands(t)
	dir := t.TempDir()
	args := []string{"build", "-race", "-o", dir}
	for _, c := range programs {
		args = append(args, c[0])
	}
	build := exec.CommandContext(t.Context(), "go", args...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, kind := range []string{"nats"} {
		t.Run(kind, func(t *testing.T) {
			b := containers.ForTest(t, kind, "default")
			for _, c := range programs {
				t.Run(filepath.Base(c[0]), func(t *testing.T) {
					program := filepath.Join(dir, filepath.Base(c[0]))
					want := lines(t, "", program, c[1:]...)
					for range 2 { // an earlier run leaves nothing behind that troubles the next
						if got := lines(t, b.URL(), program, c[1:]...); len(got) == 0 || !slices.Equal(got, want) {
							t.Errorf("on %s:\n%s\nin the process:\n%s", kind, strings.Join(got, "\n"), strings.Join(want, "\n"))
						}
					}
				})
			}
		})
	}
}

const root = "../.." // where the commands are to be run

// commands are those of the README, without "go run"; the quickstart has its own test.
func commands(t *testing.T) (all [][]string) {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("\\| `go run ([^`]+)`").FindAllSubmatch(readme, -1) {
		if c := strings.Fields(string(m[1])); c[0] != "./examples/quickstart" {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		t.Fatal("the README has no commands")
	}
	return all
}

// lines are what a program prints, sorted: what several handlers print has no order.
func lines(t *testing.T, url, program string, args ...string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "BROKER_URL="+url, "GORACE=atexit_sleep_ms=0") // else each waits a second at its end
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(program), err, out)
	}
	all := slices.Collect(strings.Lines(string(out)))
	slices.Sort(all)
	return all
}
