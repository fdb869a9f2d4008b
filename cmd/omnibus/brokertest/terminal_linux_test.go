package brokertest_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/internal/pty"
	"github.com/omnibus-go/omnibus/pubsub"
)

var update = flag.Bool("update", false, "write what is shown into docs/dlq.md")

// TestTerminal is the session that docs/dlq.md shows: somebody looks into dead letters at a terminal, and replays them; the replay is killed, and goes on.
// -run TestTerminal/nats -update writes it.
func TestTerminal(t *testing.T) {
	program := build(t, "-race")
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			b := containers.ForTest(t, kind, "default")
			c := command{program: program, dir: t.TempDir(), url: b.URL(), topic: fmt.Sprintf("orders-%d", time.Now().UnixNano())}
			if *update {
				c.topic = "orders" // the broker is new, and the page is to be read
			}
			p := &person{command: c}
			t.Run("session", p.testSession)
			if *update && !t.Failed() {
				p.write(t, kind+" "+b.Version())
			}
		})
	}
}

const slow, declined, broken = 240, 30, 3 // how many messages fail in which way

func (p *person) testSession(t *testing.T) {
	c := p.command
	bank := c.bill(t)

	groups := p.types(t, nil, "dlq", "groups", c.topic, "billing")
	p.sees(t, groups, fmt.Sprintf(`^v1-\w+ +%d +%[1]d +open .* max-attempts .* the payment gateway timed out$`, slow), fmt.Sprintf(`^v1-\w+ +%d .* the card was declined$`, declined))
	list := p.types(t, nil, "dlq", "list", c.topic, "billing", "--category", "timeout", "--count", "3")
	id := p.sees(t, list, `^(\w\S+) +open .* the payment gateway timed out$`)
	p.types(t, nil, "dlq", "show", c.topic, "billing", id)

	bank.recover()
	// It is killed when a third of the messages has gone.
	killed := p.types(t, func(cmd *exec.Cmd, tty typist, s *screen) {
		if strings.HasSuffix(string(s.line), "[y/N] ") {
			tty.answer("y\n")
		}
		if done := doneOf(s); done > slow/3 {
			_ = cmd.Process.Kill()
		}
	}, "dlq", "replay", c.topic, "billing", "--category", "timeout", "--rate", "40", "--journal", "replay.journal", "--why", "the gateway is back")
	if done := doneOf(killed); done <= slow/3 || done == slow || len(killed.frames) < 10 || !strings.Contains(killed.frames[9].text, " left") {
		t.Fatalf("killed at %d of %d:\n%s", done, slow, killed.text(0))
	}
	running := p.types(t, nil, "dlq", "replays", c.topic, "billing")
	plan := p.sees(t, running, `^(\w{10,}) `)
	resumed := p.types(t, nil, "dlq", "resume", c.topic, "billing", "replay.journal", "--rate", "80")
	p.sees(t, resumed, fmt.Sprintf(`^%d of %[1]d replayed, 0 failed \(plan %s\)$`, slow, plan))
	if len(resumed.frames) < 5 {
		t.Errorf("the bar is drawn %d times", len(resumed.frames))
	}

	bank.wait(t)
	p.sees(t, p.types(t, nil, "dlq", "outcomes", c.topic, "billing", plan), fmt.Sprintf(`^%d resolved, 0 pending, 0 failed again$`, slow))
	p.sees(t, p.types(t, nil, "dlq", "groups", c.topic, "billing"), fmt.Sprintf(`^v1-\w+ +%d +0 +`, slow), fmt.Sprintf(`^v1-\w+ +%d +%[1]d +`, declined))
	p.types(t, nil, "dlq", "discard", c.topic, "billing", "--category", "declined", "--why", "the customers were told")
	p.sees(t, p.types(t, nil, "dlq", "audit", c.topic, "billing", "|", "grep", "-v", "-e", "resolved", "-e", "replayed"), ` replay-started .* the gateway is back$`, ` replay-ended `, ` discard .* the customers were told$`)
}

// doneOf is how many messages the bar says have gone.
func doneOf(s *screen) (done int) {
	if n := len(s.frames); n > 0 {
		_, text, _ := strings.Cut(s.frames[n-1].text, " %  ")
		_, _ = fmt.Sscanf(text, "%d of", &done)
	}
	return done
}

// A gateway times out until it recovers.
type gateway struct {
	mu   sync.Mutex
	well bool
	paid map[string]bool
}

type timeoutError struct{}

func (timeoutError) Error() string { return "the payment gateway timed out" }

type declinedError struct{}

func (declinedError) Error() string { return "the card was declined" }

type order struct {
	Customer string `json:"customer"`
	Cents    int    `json:"cents"`
}

// bill runs a service that gives up all of its orders, until its gateway recovers.
func (c command) bill(t *testing.T) *gateway {
	t.Helper()
	b, err := brokers.Open(t.Context(), c.url, &pubsub.Options{Service: "billing"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	bank := &gateway{paid: map[string]bool{}}
	orders := pubsub.Typed[order]{Type: "order.placed", Key: func(o order) string { return o.Customer }}
	gone := make(chan struct{}, slow+declined+broken)
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	sub := pubsub.Subscription{
		Topic: c.topic, Group: "billing", Concurrency: 16, Retry: pubsub.Policy{MaxAttempts: 3, Delays: []time.Duration{20 * time.Millisecond}},
		DeadLetter: pubsub.DeadLetter{OnDeadLetter: func(*pubsub.Delivery, error) { gone <- struct{}{} }},
	}
	sub.Rules = []pubsub.Rule{{Category: "timeout", When: is(timeoutError{}), Retry: sub.Retry}, {Category: "declined", When: is(declinedError{}), Retry: sub.Retry}}
	_, err = b.Subscribe(t.Context(), sub, orders.Handler(func(_ context.Context, o order, d *pubsub.Delivery) error {
		if o.Cents > 90_000 {
			return pubsub.Permanent(declinedError{})
		}
		bank.mu.Lock()
		defer bank.mu.Unlock()
		if !bank.well {
			return timeoutError{}
		}
		bank.paid[d.ID] = true
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	for i := range slow + declined + broken {
		o := order{Customer: fmt.Sprintf("c-%02d", i%60), Cents: 1999 + i}
		if i%9 == 8 && i/9 < declined {
			o.Cents = 99_999
		}
		m, err := orders.Message(o)
		if err != nil {
			t.Fatal(err)
		}
		m.ID = fmt.Sprintf("ord-%04d", i+1)
		if i >= slow+declined {
			m.Payload = []byte(`{"customer":`)
		}
		if err := b.Publish(t.Context(), c.topic, m); err != nil {
			t.Fatal(err)
		}
	}
	for range cap(gone) {
		select {
		case <-gone:
		case <-time.After(time.Minute):
			t.Fatal("not all of them are given up")
		}
	}
	return bank
}

func (g *gateway) recover() {
	g.mu.Lock()
	g.well = true
	g.mu.Unlock()
}

// wait waits until every message that timed out is paid.
func (g *gateway) wait(t *testing.T) {
	t.Helper()
	poll.Within(t, time.Minute, "the payment of all that timed out", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.paid) == slow
	})
}

// A person types commands at a terminal, and what he sees is kept for the page.
type person struct {
	command

	session strings.Builder
}

// A typist is the keyboard.
type typist struct{ master *os.File }

func (k typist) answer(text string) { _, _ = k.master.WriteString(text) } // what was not typed shows in what comes of it

// types runs the command with those arguments on a terminal, and tells watch of all that changes there.
func (p *person) types(t *testing.T, watch func(*exec.Cmd, typist, *screen), args ...string) *screen {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.program, args...)
	if slices.Contains(args, "|") {
		cmd = exec.CommandContext(ctx, "sh", "-c", "omnibus"+quoted(args))
	}
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "OMNIBUS_URL="+p.url, "TERM=xterm", "NO_COLOR=", "PATH="+filepath.Dir(p.program)+string(filepath.ListSeparator)+os.Getenv("PATH"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	tty.Close()
	if err != nil {
		t.Fatal(err)
	}
	s := newScreen()
	buf := make([]byte, 4<<10)
	for {
		n, readErr := master.Read(buf)
		if _, err := s.Write(buf[:n]); err != nil {
			t.Error(err)
		}
		if watch != nil {
			watch(cmd, typist{master}, s)
		}
		if readErr != nil {
			break // nobody has the terminal open any more
		}
	}
	killed := ""
	if err := cmd.Wait(); err != nil {
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || watch == nil || status.Signal() != syscall.SIGKILL {
			t.Fatalf("omnibus %s: %v\n%s", strings.Join(args, " "), err, s.text(0))
		}
		killed = "Killed\n"
	}
	fmt.Fprintf(&p.session, "$ omnibus%s\n%s%s\n", quoted(args), s.text(500*time.Millisecond), killed)
	return s
}

// quoted is arguments as a shell takes them.
func quoted(args []string) string {
	var b strings.Builder
	for _, a := range args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		b.WriteString(" " + a)
	}
	return b.String()
}

// sees fails the test unless a line of the screen matches each expression. It returns what the group of the first one has matched last.
func (p *person) sees(t *testing.T, s *screen, expressions ...string) (found string) {
	t.Helper()
	for i, e := range expressions {
		m := regexp.MustCompile(`(?m)`+e).FindAllStringSubmatch(s.text(0), -1)
		if m == nil {
			t.Fatalf("nothing like %q is in\n%s", e, s.text(0))
		}
		if last := m[len(m)-1]; i == 0 && len(last) > 1 {
			found = last[1]
		}
	}
	return found
}

// write puts the session into the page.
func (p *person) write(t *testing.T, server string) {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(me.Username+"@"+host, "ann@office", host, "office").Replace(p.session.String())
	page := filepath.Join("..", "..", "..", "docs", "dlq.md")
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- session: go test ./cmd/omnibus/brokertest -run TestTerminal/nats -update -->\n", "<!-- end of session -->\n"
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, ends := strings.Cut(rest, end)
	if !ok || !ends {
		t.Fatalf("%s has no place for the session", page)
	}
	on := "\nOn " + server + ":\n\n"
	if err := os.WriteFile(page, []byte(before+begin+on+"```console\n"+strings.TrimSuffix(text, "\n")+"```\n\n"+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
