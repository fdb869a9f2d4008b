package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/pubsub"
)

var update = flag.Bool("update", false, "write what the commands say into testdata and docs/cli.md")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A world is an app with variables, an input and outputs of its own. Its mem://name are those of no other world.
type world struct {
	t    *testing.T
	app  *app
	env  map[string]string
	out  buffer
	errs buffer
	ctx  context.Context
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, env: map[string]string{"OMNIBUS_URL": "mem://test"}, ctx: t.Context()}
	w.app = newApp(nil, &w.out, &w.errs, func(name string) string { return w.env[name] })
	return w
}

// run runs a command line, and returns what it has written and its exit code.
func (w *world) run(args ...string) (out, errs string, code int) {
	w.t.Helper()
	return w.runWith("", args...)
}

func (w *world) runWith(stdin string, args ...string) (out, errs string, code int) {
	w.t.Helper()
	w.out.Reset()
	w.errs.Reset()
	w.app.in = strings.NewReader(stdin)
	code = w.app.run(w.ctx, args)
	return w.out.String(), w.errs.String(), code
}

// must runs a command that is to succeed, and returns what it has written.
func (w *world) must(args ...string) string {
	w.t.Helper()
	out, errs, code := w.run(args...)
	if code != 0 {
		w.t.Fatalf("omnibus %s exits with %d: %s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// A buffer may be read while a command writes to it.
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

func (b *buffer) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

// TestTranscripts runs the command lines of testdata/*.txt, the files each in a world of its own, and compares what they say. A line of standard
// error begins with "! ", and an exit code other than 0 follows as "[exit N]". -update writes what they say now.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			t.Chdir(t.TempDir())
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				line = strings.TrimSuffix(line, "\n")
				if strings.HasPrefix(line, "#") {
					if got.Len() > 0 {
						got.WriteByte('\n')
					}
					fmt.Fprintln(&got, line)
				}
				if cmd, ok := strings.CutPrefix(line, "$ "); ok {
					if got.Len() > 0 && !strings.HasSuffix(got.String(), "\n\n") && !strings.HasPrefix(lastLine(got.String()), "#") {
						got.WriteByte('\n')
					}
					fmt.Fprintln(&got, line)
					w.script(&got, cmd)
				}
			}
			if got.String() == string(want) {
				return
			}
			if *update {
				if err := os.WriteFile(filepath.Join(w.home(), file), []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			gotLines, wantLines := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
			for i, l := range gotLines {
				if i >= len(wantLines) || l != wantLines[i] {
					t.Fatalf("%s:%d: got\n%s\nwant\n%s", file, i+1, strings.Join(gotLines[i:], "\n"), strings.Join(wantLines[min(i, len(wantLines)):], "\n"))
				}
			}
			t.Errorf("%s has more than what is said: %s", file, strings.Join(wantLines[len(gotLines):], "\n"))
		})
	}
}

func lastLine(s string) string {
	s = strings.TrimSuffix(s, "\n")
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// script runs one line: omnibus with arguments, perhaps after "printf TEXT |"; cat FILE; a variable's assignment; or what a service does:
// fail, handle or postpone TOPIC GROUP, sign KEYRING OWNER TOPIC ID.
func (w *world) script(got *strings.Builder, line string) {
	words, err := split(line)
	if err != nil {
		w.t.Fatalf("%s: %v", line, err)
	}
	stdin := ""
	if len(words) > 3 && words[0] == "printf" && words[2] == "|" {
		stdin, words = strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\\`, `\`).Replace(words[1]), words[3:]
	}
	if name, value, ok := strings.Cut(words[0], "="); ok && len(words) == 1 {
		w.env[name] = value
		return
	}
	if words[0] == "write" && len(words) == 2 {
		if err := os.WriteFile(words[1], []byte(stdin), 0o644); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	if len(words) == 3 && (words[0] == "fail" || words[0] == "handle") {
		w.consume(words[1], words[2], words[0] == "fail")
		return
	}
	if len(words) == 3 && words[0] == "postpone" {
		w.postpone(words[1], words[2])
		return
	}
	if len(words) == 5 && words[0] == "sign" {
		w.sign(words[1], words[2], words[3], words[4])
		return
	}
	if n := len(words); n > 2 && words[n-2] == "<" {
		text, err := os.ReadFile(words[n-1])
		if err != nil {
			w.t.Fatal(err)
		}
		stdin, words = string(text), words[:n-2]
	}
	to := ""
	if n := len(words); n > 2 && words[n-2] == ">" {
		to, words = words[n-1], words[:n-2]
	}
	if words[0] != "omnibus" {
		w.t.Fatalf("%s: a script has omnibus, printf and variables", line)
	}
	out, errs, code := w.runWith(stdin, words[1:]...)
	if to != "" {
		if err := os.WriteFile(to, []byte(out), 0o644); err != nil {
			w.t.Fatal(err)
		}
		out = ""
	}
	got.WriteString(mask(out))
	for l := range strings.Lines(mask(errs)) {
		got.WriteString("! " + l)
	}
	if code != 0 {
		fmt.Fprintf(got, "[exit %d]\n", code)
	}
}

// A declined is the failure of what the tests give up.
type declinedError struct{ card string }

func (e *declinedError) Error() string { return "card declined: " + e.card }

// consume lets a service's handler have what waits for a group, and fail on all of it or on none.
func (w *world) consume(topic, group string, fails bool) {
	w.t.Helper()
	b, err := w.app.mux.Open(w.ctx, "mem://test", &pubsub.Options{Service: "billing", Manage: pubsub.Verify})
	if err != nil {
		w.t.Fatal(err)
	}
	defer b.Close()
	sub := pubsub.Subscription{Topic: topic, Group: group, Retry: pubsub.Policy{MaxAttempts: 2, Delays: []time.Duration{time.Millisecond}}}
	c, err := b.Subscribe(w.ctx, sub, func(_ context.Context, d *pubsub.Delivery) error {
		if fails {
			return &declinedError{string(d.Payload)}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	poll.Until(w.t, "the group's end", func() bool {
		lag, err := c.Lag(w.ctx)
		return err == nil && lag.Messages == 0
	})
	if err := c.Drain(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

// postpone lets a service's handler fail on what waits for a group, and have all of it retried in an hour.
func (w *world) postpone(topic, group string) {
	w.t.Helper()
	b, err := w.app.mux.Open(w.ctx, "mem://test", &pubsub.Options{Service: "billing", Manage: pubsub.Verify})
	if err != nil {
		w.t.Fatal(err)
	}
	defer b.Close()
	sub := pubsub.Subscription{Topic: topic, Group: group, Order: pubsub.OrderByKeyLoose, Retry: pubsub.Policy{Delays: []time.Duration{time.Hour}}}
	c, err := b.Subscribe(w.ctx, sub, func(_ context.Context, d *pubsub.Delivery) error { return &declinedError{string(d.Payload)} })
	if err != nil {
		w.t.Fatal(err)
	}
	poll.Until(w.t, "all to wait", func() bool {
		lag, err := c.Lag(w.ctx)
		for range b.Waiting(w.ctx, topic, group) {
			lag.Messages--
		}
		return err == nil && lag.Messages == 0
	})
}

// home is the folder of the package, wherever the test works now.
func (w *world) home() string {
	w.t.Helper()
	if homeDir == "" {
		w.t.Fatal("the working directory is not known")
	}
	return homeDir
}

var homeDir, _ = os.Getwd()

// mask replaces what differs from run to run.
func mask(s string) string {
	const changes = "TIME|TOOK|AGE|ID|PLAN|USER@HOST"
	for _, m := range [][2]string{
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`, "TIME"},
		{`answers in \S+`, "answers in TOOK"},
		{`"seconds":[0-9.e-]+`, `"seconds":N`},
		{`\S+ old\b`, "AGE old"},
		{`\b[0-9a-z]{12}0{6}[0-9a-z]{3}\b`, "ID"},
		{`\b[0-9a-z]+@[0-9A-Za-z_.-]+`, "USER@HOST"},
		{`\b[A-Z2-7]{26}\b`, "PLAN"},
		{`"host":"[^"]*"`, `"host":"HOST"`},
	} {
		s = regexp.MustCompile(m[0]).ReplaceAllString(s, m[1])
	}
	// a table is as wide as what it has: of one with something that changes only the order of its cells is compared
	if regexp.MustCompile(`\b(`+changes+`)\b.*  `).MatchString(s) || strings.HasPrefix(s, "id  ") || strings.HasPrefix(s, "at  ") {
		s = regexp.MustCompile(`(\S)  +`).ReplaceAllString(s, "$1  ")
	}
	return s
}

// split cuts a line into words as a shell does, as far as the examples need it.
func split(line string) (words []string, err error) {
	var word strings.Builder
	in, quote := false, rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			in, quote = true, r
		case r == ' ':
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			in = true
			word.WriteRune(r)
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote is not closed")
	}
	if in {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, fmt.Errorf("it is empty")
	}
	return words, nil
}
