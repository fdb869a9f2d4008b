// Package brokertest_test runs the commands of the examples' README on real brokers: they print there what they print in the process.
package brokertest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance/containers"
)

// TestBrokers is run for one kind at a time by the Makefile, which knows what a machine has: -run TestBrokers/nats.
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
	for _, kind := range []string{"nats", "kafka", "rabbitmq", "redis"} {
		t.Run(kind, func(t *testing.T) {
			b := containers.ForTest(t, kind, "default")
			for _, c := range programs {
				name := filepath.Base(c[0])
				t.Run(name, func(t *testing.T) {
					program := filepath.Join(dir, name)
					if kind == "rabbitmq" && name == "replay" {
						if out, err := output(t, b.URL(), program, c[1:]...); err == nil || !strings.Contains(out, "not supported: history") {
							t.Errorf("there is no history on %s, and it ends with %v:\n%s", kind, err, out)
						}
						return
					}
					want := lines(t, "", program, c[1:]...)
					for range 2 { // an earlier run leaves nothing behind that troubles the next
						if got := lines(t, b.URL(), program, c[1:]...); len(got) == 0 || !slices.Equal(got, want) {
							t.Errorf("on %s:\n%s\nin the process:\n%s", kind, strings.Join(got, "\n"), strings.Join(want, "\n"))
						}
					}
				})
			}
			t.Run("many orders", func(t *testing.T) { testManyOrders(t, filepath.Join(dir, "orders"), b.URL()) })
		})
	}
}

// What becomes of 10,000 orders, of which one in twenty is given up, is the same on each broker, although of the whole service only the line of its file changes
// that names the broker.
func testManyOrders(t *testing.T, program, url string) {
	t.Helper()
	const n = 10_000
	file, err := os.ReadFile(filepath.Join(root, "examples", "orders", "omnibus.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	on := func(url string) string {
		line := regexp.MustCompile(`(?m)^broker: .*$`)
		if found := len(line.FindAll(file, -1)); found != 1 {
			t.Fatalf("%d lines name a broker", found)
		}
		path := filepath.Join(t.TempDir(), "omnibus.yaml")
		if err := os.WriteFile(path, line.ReplaceAllLiteral(file, []byte("broker: "+url)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := output(t, "", program, path, strconv.Itoa(n))
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return out
	}
	want, got := on("mem://"), on(url)
	if !strings.HasPrefix(want, fmt.Sprintf("%d outcomes, %d of them given up: ", 2*n, n/20)) || got != want {
		t.Errorf("on the broker: %s\nin the process: %s", got, want)
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
	out, err := output(t, url, program, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(program), err, out)
	}
	all := slices.Collect(strings.Lines(out))
	slices.Sort(all)
	return all
}

func output(t *testing.T, url, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "BROKER_URL="+url, "GORACE=atexit_sleep_ms=0") // else each waits a second at its end
	out, err := cmd.CombinedOutput()
	return string(out), err
}
