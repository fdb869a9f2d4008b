package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/omnibus-go/omnibus/internal/poll"
)

// leaves are the commands that do something, in the order of the help.
func leaves(c *cobra.Command) (all []*cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.Name() == "help" || sub.Name() == "completion" || sub.Hidden {
			continue
		}
		if sub.HasSubCommands() {
			all = append(all, leaves(sub)...)
		} else {
			all = append(all, sub)
		}
	}
	return all
}

// Each command has examples, and each of them works as it is written.
func TestExamples(t *testing.T) {
	// what only an interrupt ends, or what is about a replay that runs
	without := map[string]bool{"omnibus dlq watch": true, "omnibus dlq pause": true, "omnibus dlq continue": true, "omnibus dlq cancel": true, "omnibus dlq outcomes": true}
	for _, c := range leaves(newWorld(t).app.root()) {
		if (c.Example == "") != without[c.CommandPath()] {
			t.Errorf("%s has the example %q", c.CommandPath(), c.Example)
		}
		for line := range strings.Lines(c.Example) {
			line = strings.TrimSpace(line)
			t.Run(line, func(t *testing.T) {
				w := given(t, 3)
				w.env["OMNIBUS_URL"] = ""
				for name, content := range map[string]string{
					"omnibus.yaml": "broker: mem://test\ntopics: {orders: null, payments: null}\nsubscriptions: {billing: {topic: orders}}\n",
					"payloads.txt": "one\ntwo\n", "messages.jsonl": `{"payload":"x","headers":[{"name":"a","value":"b"}]}` + "\n",
				} {
					if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				w.must("ensure")
				letters := w.letters()
				if err := os.WriteFile("letters.jsonl", []byte(w.must("dlq", "export", "orders", "billing")), 0o644); err != nil {
					t.Fatal(err)
				}
				keyrings(t)
				w.sign("orders.keys", "orders", "payments", "m1")
				if err := os.WriteFile("signed.jsonl", []byte(w.must("sub", "payments", "--from", "earliest", "--count", "1", "--json")), 0o644); err != nil {
					t.Fatal(err)
				}
				w.must("dlq", "replay", "orders", "billing", "--key", "a", "--yes", "--journal", "replay.journal")
				w.consume("orders", "billing", true)
				w.must("pub", "orders", "waits", "--key", "c")
				var got strings.Builder
				w.script(&got, strings.NewReplacer("DEADLETTER", string(letters[0].ID), "FINGERPRINT", string(letters[0].Fingerprint)).Replace(line))
				if strings.Contains(got.String(), "[exit ") {
					t.Errorf("%s\n%s", line, got.String())
				}
			})
		}
	}
}

// docs/cli.md is what the commands say of themselves.
func TestDocs(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join("..", "..", "docs", "cli.md")
	want := document(w.app.root())
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the commands say: go test ./cmd/omnibus -run TestDocs -update", file)
	}
}

func document(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# The command omnibus\n\n<!-- Made by go test ./cmd/omnibus -run TestDocs -update. -->\n\n")
	b.WriteString("```sh\ngo install github.com/omnibus-go/omnibus/cmd/omnibus@latest\n```\n\n" + root.Long + "\n\n")
	b.WriteString("| command | what it does |\n|---|---|\n")
	for _, c := range leaves(root) {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
	}
	b.WriteString("| `omnibus completion bash\\|zsh\\|fish\\|powershell` | Print the completion for a shell: topics and groups come from the configuration |\n")
	b.WriteString("\n## Exit codes\n\n| code | meaning |\n|---|---|\n")
	for _, x := range exits() {
		fmt.Fprintf(&b, "| %d | %s |\n", x.Code, x.Means)
	}
	b.WriteString("\nWith `--json` an error is one line on standard error: `{\"error\": {\"code\", \"message\", \"hint\", \"exit\"}}`. The code is that of " +
		"`pubsub.Error`, or `usage`, `found` or `failed`.\n\n## Flags of all commands\n\n")
	flags(&b, root.PersistentFlags(), nil)
	selecting := &cobra.Command{}
	(&filterFlags{}).add(selecting)
	b.WriteString("\n## Flags that select dead letters\n\nAll that is set must hold.\n\n")
	flags(&b, selecting.Flags(), nil)
	for _, c := range leaves(root) {
		fmt.Fprintf(&b, "\n## %s\n\n%s.\n\n", c.CommandPath(), c.Short)
		fmt.Fprintf(&b, "```\n%s\n```\n", c.UseLine())
		if c.Long != "" {
			fmt.Fprintf(&b, "\n%s\n", paragraphs(c.Long))
		}
		if c.Example != "" {
			b.WriteString("\n```sh\n")
			for line := range strings.Lines(c.Example) {
				b.WriteString(strings.TrimSpace(line) + "\n")
			}
			b.WriteString("```\n")
		}
		without := selecting.Flags()
		if c.Flags().Lookup("failed-topic") == nil {
			without = nil
		} else {
			b.WriteString("\nIt has the [flags that select dead letters](#flags-that-select-dead-letters).\n")
		}
		flags(&b, c.LocalNonPersistentFlags(), without)
	}
	return b.String()
}

// paragraphs puts lines that are set in into a block of their own.
func paragraphs(long string) string {
	var b strings.Builder
	in := false
	for line := range strings.Lines(long) {
		if set := strings.HasPrefix(line, "  "); set != in {
			if set {
				b.WriteString("\n")
			}
			b.WriteString("```\n")
			if in = set; !set {
				b.WriteString("\n")
			}
		}
		b.WriteString(strings.TrimPrefix(line, "  "))
	}
	return b.String()
}

// flags writes a table of flags, but for those that are explained elsewhere.
func flags(b *strings.Builder, fs, without *pflag.FlagSet) {
	var rows strings.Builder
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || without != nil && without.Lookup(f.Name) != nil {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		text := "--" + f.Name
		if f.Shorthand != "" {
			text = "-" + f.Shorthand + ", " + text
		}
		if name != "" {
			text += " " + name
		}
		if d := f.DefValue; d != "" && d != "0" && d != "false" && d != "[]" && d != "0s" && d != "-1" {
			usage += " (default: " + d + ")"
		}
		fmt.Fprintf(&rows, "| `%s` | %s |\n", text, strings.ReplaceAll(usage, "|", `\|`))
	})
	if rows.Len() > 0 {
		if !strings.HasSuffix(b.String(), "\n\n") {
			b.WriteString("\n")
		}
		b.WriteString("| flag | meaning |\n|---|---|\n" + rows.String())
	}
}

// The shell completes topics and groups of the configuration, without a broker.
func TestCompletion(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	file := "broker: nats://127.0.0.1:1\ntopics: {orders: null, payments: null}\nsubscriptions: {billing: {topic: orders}, audit: {topic: orders}}\n"
	if err := os.WriteFile(configName, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"pub":               "orders\npayments\n",
		"dlq list orders":   "audit\nbilling\n",
		"topics orders":     "payments\n",
		"dlq list payments": "",
		"config check":      "", // files, which the shell knows
	} {
		out, _, _ := w.run(append(append([]string{"__complete"}, strings.Fields(line)...), "")...)
		got, directive, _ := strings.Cut(out, ":")
		if files := line == "config check"; got != want || strings.HasPrefix(directive, "0") != files {
			t.Errorf("%q is completed by %q and the directive %q, want %q", line, got, directive, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := w.must("completion", shell); !strings.Contains(out, "omnibus") || len(out) < 1000 {
			t.Errorf("the completion for %s is %q", shell, out)
		}
	}
}

// Each code of pubsub has an exit code, and none has two.
func TestExitCodes(t *testing.T) {
	seen := map[int]bool{}
	var all []string
	for _, x := range exits() {
		if seen[x.Code] || x.Means == "" {
			t.Errorf("exit code %d", x.Code)
		}
		seen[x.Code] = true
		for _, c := range x.of {
			all = append(all, c.Error())
		}
	}
	want := "invalid, unavailable, timed out, unauthenticated, denied, not found, conflict, not supported, unroutable, too large, exhausted, refused by middleware, unconfirmed, canceled"
	if got := strings.Join(all, ", "); got != want {
		t.Errorf("exit codes are given to %s, want %s; the others are exit 1", got, want)
	}
}

func TestSecrets(t *testing.T) {
	for url, want := range map[string]string{
		"nats://host":                           "",
		"nats://user@host":                      "",
		"nats://u:pa%2Fss@h1:1,h2:2/x":          "pa%2Fss pa/ss",
		"amqp://u:a:b@h/v?x=1":                  "a:b",
		"nats://h?token=t%2Bk&name=x":           "t%2Bk t+k",
		"kafka://h:1,h:2?sasl_password=s&tls=1": "s",
	} {
		if got := strings.Join(secretsOf(url), " "); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
	w := newWorld(t)
	w.env["OMNIBUS_URL"] = "nats://u:hunter2@h1:1,h2:2?strem=hunter2"
	if out, errs, code := w.run("ping"); code != exitUsage || strings.Contains(out+errs, "hunter2") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if got := w.app.clean("it says hunter2, for amqp://a:b@h"); got != "it says ***, for amqp://***@h" {
		t.Errorf("cleaned is %q", got)
	}
}

// Each command line of README.md works as it is written, on a broker in memory.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(readme)) {
		if !strings.HasPrefix(line, "omnibus ") {
			continue
		}
		n++
		line = strings.TrimSpace(line)
		t.Run(line, func(t *testing.T) {
			w := given(t, 3)
			w.env["OMNIBUS_URL"] = ""
			words, err := split(strings.ReplaceAll(line, "nats://127.0.0.1:4222", "mem://test"))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(words, "--watch") {
				w.must(words[1:]...)
				return
			}
			j := w.start(nil, words[1:]...) // which only an interrupt ends
			poll.Until(w.t, "an answer", func() bool { return j.out.String()+j.errs.String() != "" })
			j.interrupt()
			j.ends(exitOK)
		})
	}
	if n == 0 {
		t.Error("README.md has no command line")
	}
}
