// Package brokertest_test runs the quickstart, as a newcomer would, on real brokers.
package brokertest_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance/containers"
)

// kinds are the brokers that the quickstart runs on, with what it calls them, given their version.
func kinds() map[string]func(version string) string {
	return map[string]func(string) string{
		"nats":     func(version string) string { return "NATS " + version },
		"kafka":    func(string) string { return "Kafka" },
		"rabbitmq": func(version string) string { return "RabbitMQ " + version },
		"redis":    func(version string) string { return "Redis " + version },
	}
}

// TestBrokers is run for one kind at a time by the Makefile, which knows what a machine has: -run TestBrokers/nats.
func TestBrokers(t *testing.T) {
	program := filepath.Join(t.TempDir(), "quickstart")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-race", "-o", program, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for kind, name := range kinds() {
		t.Run(kind, func(t *testing.T) {
			b := containers.OwnForTest(t, kind, "default")
			q := quickstart{program: program, url: b.URL(), topic: fmt.Sprintf("orders-%d", time.Now().UnixNano()), server: name(b.Version())}
			t.Run("again", q.testAgain)
			t.Run("interrupted", q.testInterrupted)
			t.Run("absent", q.testAbsent)
			t.Run("killed", func(t *testing.T) { q.testKilledBroker(t, b) })
		})
	}
}

// A quickstart is the program with the broker that it is to run on.
type quickstart struct {
	program, url, topic, server string
}

func (q quickstart) command(t *testing.T, args ...string) (cmd *exec.Cmd, output *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, q.program, append([]string{"-broker", q.url, "-topic", q.topic, "-wait", "2m"}, args...)...)
	output = &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = output, output
	return cmd, output
}

// rows are the figures of a summary that do not depend on the clock: handled, retries, dead letters, and what was replayed.
func rows(output string) []string {
	return regexp.MustCompile(`(?m)^(?:billing|shipping) +\d+ +\d+ +\d+ |^replayed .* handled`).FindAllString(output, -1)
}

// The sample gives on a real broker what it gives in the process, and the second time the same, although the first run has left its dead letters.
func (q quickstart) testAgain(t *testing.T) {
	t.Helper()
	inside := q
	inside.url = "mem://"
	cmd, out := inside.command(t)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := rows(out.String())
	if len(want) != 3 {
		t.Fatalf("no summary:\n%s", out)
	}
	for range 2 {
		cmd, out := q.command(t)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := rows(out.String()); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q, in the process %q", got, want)
		}
		for _, text := range []string{"it adds up", " of " + q.server + "\n"} {
			if !strings.Contains(out.String(), text) {
				t.Errorf("the summary lacks %q\n%s", text, out)
			}
		}
	}
}

// What a run leaves behind that was interrupted while it published does not trouble the next.
func (q quickstart) testInterrupted(t *testing.T) {
	cmd, out := q.command(t, "-")
	orders := q.feed(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-orders.some
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out.String(), "quickstart: interrupted") {
		t.Errorf("%v, want exit code 1 and that it was interrupted\n%s", err, out)
	}
	orders.end()
	q.testAgain(t)
}

func (q quickstart) testAbsent(t *testing.T) {
	scheme, _, _ := strings.Cut(q.url, "://")
	q.url = scheme + "://user:s3cr3t@127.0.0.1:1" // nobody listens there
	cmd, out := q.command(t)
	err := cmd.Run()
	if cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("%v, want exit code 1", err)
	}
	for _, text := range []string{"unavailable", "Is a broker running there?"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("it does not say %q\n%s", text, out)
		}
	}
	if strings.Contains(out.String(), "it adds up") || strings.Contains(out.String(), "s3cr3t") {
		t.Errorf("it says what it should not\n%s", out)
	}
}

// A broker that dies while orders are published and handled, and comes back, costs nothing but time.
func (q quickstart) testKilledBroker(t *testing.T, b *containers.Broker) {
	t.Helper()
	q.topic += "-killed"
	cmd, out := q.command(t, "-")
	orders := q.feed(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-orders.some
	if err := b.Kill(t.Context()); err != nil { // there were orders to publish all the while
		t.Fatal(err)
	}
	close(orders.rest)
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "it adds up") {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := fmt.Sprintf("%d confirmed, 0 refused, 0 unknown", orders.all.Load()); !strings.Contains(out.String(), want) {
		t.Errorf("it does not say %q\n%s", want, out)
	}
}

const some = 12_000 // orders

// A feed writes the sample many times into the program's standard input, each time with other ids: without an end, until the test
// says that the rest may come. So the input lasts for as long as something takes meanwhile, on any machine.
type feed struct {
	some chan struct{} // closed when some orders are read
	rest chan struct{} // closed by the test: some more, and the input ends
	all  atomic.Int64  // how many orders it was, known once the input has ended
	end  func()
}

func (q quickstart) feed(t *testing.T, cmd *exec.Cmd) *feed {
	t.Helper()
	sample, err := os.ReadFile("../orders.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	cmd.Stdin = r
	f := &feed{some: make(chan struct{}), rest: make(chan struct{}), end: func() { _ = r.Close() }} // never fails
	go func() {
		read, last := 0, 0
		for round := 0; ; round++ {
			for line := range bytes.Lines(sample) {
				line = bytes.Replace(line, []byte(`"id":"ord-`), fmt.Appendf(nil, `"id":"round-%d-`, round), 1)
				if _, err := w.Write(line); err != nil {
					return // the program has ended
				}
				if read++; read == some {
					close(f.some)
				}
				select {
				case <-f.rest:
					last = cmp.Or(last, read+some)
				default:
				}
				if read == last {
					f.all.Store(int64(read))
					_ = w.Close() // never fails
					return
				}
			}
		}
	}()
	return f
}
