// Package brokertest_test runs the command omnibus, built and outside the repository, on real brokers.
package brokertest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

// TestBrokers is run for one kind at a time by the Makefile, which knows what a machine has: -run TestBrokers/nats.
func TestBrokers(t *testing.T) {
	program := build(t, "-race")
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			b := containers.ForTest(t, kind, "default")
			c := command{program: program, dir: t.TempDir(), url: b.URL(), topic: fmt.Sprintf("orders-%d", time.Now().UnixNano())}
			t.Run("messages", c.testMessages)
			t.Run("interrupted", c.testInterrupted)
			t.Run("letters", c.testLetters)
			t.Run("keys", c.testKeys)
			t.Run("measures", c.testMeasures)
			t.Run("absent", c.testAbsent)
		})
	}
}

func kinds() []string { return []string{"nats", "kafka", "rabbitmq", "redis"} }

// build builds the program, and returns where it is.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "omnibus")
	args := slices.Concat([]string{"build", "-o", program}, flags, []string{".."})
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// A command is the program with the broker that it is to run on.
type command struct {
	program, dir, url, topic string
}

func (c command) start(t *testing.T, stdin string, args ...string) (cmd *exec.Cmd, out, errs *buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, c.program, args...)
	cmd.Dir, cmd.Env = c.dir, append(os.Environ(), "OMNIBUS_URL="+c.url)
	out, errs = &buffer{}, &buffer{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out, errs
}

// run runs the program, which is to exit with that code.
func (c command) run(t *testing.T, want int, stdin string, args ...string) (out string) {
	t.Helper()
	cmd, o, e := c.start(t, stdin, args...)
	err := cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		t.Fatalf("omnibus %s exits with %d, want %d\n%s%s", strings.Join(args, " "), got, want, o, e)
	}
	return o.String()
}

// A buffer may be read while a process writes to it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func payloads(t *testing.T, out string) (all []string) {
	t.Helper()
	for line := range strings.Lines(out) {
		var m struct{ Payload string }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, m.Payload)
	}
	return all
}

func numbers(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func lines(all []string) string { return strings.Join(all, "\n") + "\n" }

func (c command) capabilities(t *testing.T) (caps struct {
	Capabilities struct {
		History bool
		Lag     string
		Waiting string
	}
}) {
	t.Helper()
	if err := json.Unmarshal([]byte(c.run(t, 0, "", "ping", "--json")), &caps); err != nil {
		t.Fatal(err)
	}
	return caps
}

// What is published is read, by a group once, and by who looks as often as he likes.
func (c command) testMessages(t *testing.T) {
	const n = 50
	caps := c.capabilities(t).Capabilities
	c.run(t, 6, "", "ensure", c.topic, "--verify")
	c.run(t, 0, "", "ensure", c.topic+"-other") // a broker of which nothing was ever asked may not know even where topics are
	c.run(t, 9, "", "pub", c.topic, "nobody")
	c.run(t, 0, "", "ensure", c.topic, "--group", "billing")
	c.run(t, 0, "", "ensure", c.topic, "--group", "billing", "--verify")
	c.run(t, 6, "", "sub", c.topic, "--group", "stranger")
	c.run(t, 0, lines(numbers(0, n)), "pub", c.topic, "--lines", "--key", "a")
	if caps.History {
		for range 2 {
			if got := payloads(t, c.run(t, 0, "", "sub", c.topic, "--from", "earliest", "--json")); !slices.Equal(got, numbers(0, n)) {
				t.Errorf("kept is %q", got)
			}
		}
		got := payloads(t, c.run(t, 0, "", "sub", c.topic, "--from", "earliest", "--follow", "--count", fmt.Sprint(n), "--json"))
		if !slices.Equal(got, numbers(0, n)) {
			t.Errorf("followed is %q", got)
		}
		c.testFollowed(t)
	} else {
		c.run(t, 8, "", "sub", c.topic, "--from", "earliest")
	}
	got := payloads(t, c.run(t, 0, "", "sub", c.topic, "--group", "billing", "--count", "20", "--json"))
	got = append(got, payloads(t, c.run(t, 0, "", "sub", c.topic, "--group", "billing", "--idle", "5s", "--json"))...)
	if !slices.Equal(got, numbers(0, n)) {
		t.Errorf("the group gets %q", got)
	}
	var lag struct {
		Messages *int64
		Kind     string
	}
	if err := json.Unmarshal([]byte(c.run(t, 0, "", "lag", c.topic, "billing", "--json")), &lag); err != nil {
		t.Fatal(err)
	}
	if lag.Kind != caps.Lag || (lag.Messages == nil) != (caps.Lag == "unknown") || lag.Messages != nil && *lag.Messages != 0 {
		t.Errorf("lag is %+v, and the broker's is %s", lag, caps.Lag)
	}
	if out := c.run(t, 0, "", "topics", c.topic, c.topic+"-missing", "--json"); !strings.Contains(out, `"there"`) || !strings.Contains(out, `"missing"`) {
		t.Errorf("topics are %s", out)
	}
	listed := 0
	if strings.HasPrefix(c.url, "amqp") { // which tells nobody
		listed = 2
	}
	if out := c.run(t, listed, "", "topics", "--json"); strings.Contains(out, `"`+c.topic+`"`) != (listed == 0) || strings.Contains(out, "__") {
		t.Errorf("of the broker's topics it tells %s", out)
	}
	waiting := 0
	if caps.Waiting == "none" {
		waiting = 8
	}
	if out := c.run(t, waiting, "", "dlq", "waiting", c.topic, "billing", "--json"); out != "" {
		t.Errorf("when all is handled these wait: %s", out)
	}
}

// What is kept and what comes then is each shown once, whichever partition has it.
func (c command) testFollowed(t *testing.T) {
	t.Helper()
	const n = 60
	c.topic += "-followed"
	c.run(t, 0, "", "ensure", c.topic, "--partitions", "3")
	pub := func(from, to int) {
		for key := range 3 {
			c.run(t, 0, lines(numbers(from+(to-from)*key/3, from+(to-from)*(key+1)/3)), "pub", c.topic, "--lines", "--key", fmt.Sprint("key-", key))
		}
	}
	pub(0, n)
	reader, out, errs := c.start(t, "", "sub", c.topic, "--from", "earliest", "--follow", "--count", fmt.Sprint(2*n), "--json")
	poll.Within(t, time.Minute, "what is kept", func() bool { return strings.Count(out.String(), "\n") >= n })
	pub(n, 2*n)
	if err := reader.Wait(); err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	got, want := payloads(t, out.String()), numbers(0, 2*n)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("followed in partitions is %q", got)
	}
}

// SIGINT ends a reader in order: what it has written is acked, and nothing else is.
func (c command) testInterrupted(t *testing.T) {
	const n = 2000
	c.topic += "-interrupted"
	c.run(t, 0, "", "ensure", c.topic, "--group", "billing")
	c.run(t, 0, lines(numbers(0, n)), "pub", c.topic, "--lines", "--key", "a")
	cmd, out, errs := c.start(t, "", "sub", c.topic, "--group", "billing", "--follow", "--json")
	poll.Within(t, time.Minute, "a few messages", func() bool { return strings.Count(out.String(), "\n") > 20 })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	got := payloads(t, out.String())
	rest := payloads(t, c.run(t, 0, "", "sub", c.topic, "--group", "billing", "--idle", "5s", "--json"))
	if !slices.Equal(append(slices.Clone(got), rest...), numbers(0, n)) {
		t.Errorf("%d messages before the interrupt and %d after it are not the %d that were published, each once", len(got), len(rest), n)
	}

	tail, seen, errs := c.start(t, "", "sub", c.topic, "--json")
	poll.Within(t, time.Minute, "a message", func() bool {
		c.run(t, 0, "", "pub", c.topic, "now")
		return seen.String() != ""
	})
	if err := tail.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := tail.Wait(); err != nil || strings.Contains(seen.String(), `"payload":"0"`) {
		t.Errorf("%v: a tail shows %s%s", err, seen, errs)
	}
}

// fail lets a group's handler give up all that waits.
func (c command) fail(t *testing.T, n int) {
	t.Helper()
	b, err := brokers.Open(t.Context(), c.url, &pubsub.Options{Manage: pubsub.Verify})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	given := make(chan struct{}, n)
	_, err = b.Subscribe(t.Context(), pubsub.Subscription{Topic: c.topic, Group: "billing",
		DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(*pubsub.Delivery, error) { given <- struct{}{} }},
	}, func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errors.New("card declined")) })
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		select {
		case <-given:
		case <-time.After(time.Minute):
			t.Fatal("not all of them are given up")
		}
	}
}

// Dead letters are listed, sent again, resolved by their handler, exported and imported.
func (c command) testLetters(t *testing.T) {
	const n = 10
	c.topic += "-letters"
	c.run(t, 0, "", "ensure", c.topic, "--group", "billing")
	c.run(t, 0, lines(numbers(0, n)), "pub", c.topic, "--lines", "--key", "a")
	c.fail(t, n)
	for range 2 {
		if out := c.run(t, 0, "", "dlq", "list", c.topic, "billing", "--json", "--state", "open"); strings.Count(out, "\n") != n || !strings.Contains(out, "card declined") {
			t.Fatalf("dead letters are %s", out)
		}
	}
	exported := c.run(t, 0, "", "dlq", "export", c.topic, "billing")
	c.run(t, 0, "", "ensure", c.topic+"-copy", "--group", "billing")
	if out := c.run(t, 0, exported, "dlq", "import", c.topic+"-copy", "billing", "--json"); !strings.Contains(out, fmt.Sprintf(`"stored":%d`, n)) {
		t.Errorf("imported is %s", out)
	}
	c.run(t, 2, "", "dlq", "replay", c.topic, "billing")
	var rep struct {
		Plan     string
		Replayed int
	}
	if err := json.Unmarshal([]byte(c.run(t, 0, "", "dlq", "replay", c.topic, "billing", "--yes", "--json")), &rep); err != nil || rep.Replayed != n {
		t.Fatalf("%v: replayed is %+v", err, rep)
	}
	if got := payloads(t, c.run(t, 0, "", "sub", c.topic, "--group", "billing", "--count", fmt.Sprint(n), "--json")); !slices.Equal(got, numbers(0, n)) {
		t.Errorf("replayed is %q", got)
	}
	if out := c.run(t, 0, "", "dlq", "outcomes", c.topic, "billing", rep.Plan); out != fmt.Sprintf("%d resolved, 0 pending, 0 failed again\n", n) {
		t.Errorf("outcomes are %s", out)
	}
	resolved := 0
	audit := c.run(t, 0, "", "dlq", "audit", c.topic, "billing", "--json")
	for line := range strings.Lines(audit) {
		var e struct {
			Operation string
			IDs       []string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Operation == "resolved" {
			resolved += len(e.IDs)
		}
	}
	if resolved != n {
		t.Errorf("the audit is %s", audit)
	}
	if out := c.run(t, 0, "", "dlq", "replay", c.topic, "billing", "--plan", "--json"); !strings.Contains(out, `"count":0`) {
		t.Errorf("what is resolved is in another plan: %s", out)
	}
	if left, _ := filepath.Glob(filepath.Join(c.dir, "*")); len(left) > 0 {
		t.Errorf("left behind are %q", left)
	}
}

// The suite and the measurement run outside the repository.
func (c command) testMeasures(t *testing.T) {
	if out := c.run(t, 0, "", "conform", "--only", "^Fidelity/"); !strings.Contains(out, " 0 failed") {
		t.Errorf("it says %s", out)
	}
	if out := c.run(t, 0, "", "bench", "--reps", "1", "--each", "50ms", "--json"); strings.Count(out, `"op"`) != 7 || !strings.Contains(out, `"share":0.99`) {
		t.Errorf("measured is %s", out)
	}
}

func (c command) testAbsent(t *testing.T) {
	scheme, _, _ := strings.Cut(c.url, "://")
	cmd, out, errs := c.start(t, "", "ping", "--timeout", "2s", "--url", scheme+"://user:s3cr3t@127.0.0.1:1")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 4 || strings.Contains(out.String()+errs.String(), "s3cr3t") || errs.String() == "" {
		t.Errorf("it exits with %d: %s%s", code, out, errs)
	}
}
