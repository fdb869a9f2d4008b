// Command testsum runs tests, says what ran against what, and closes with the line `N passed, N failed, N skipped`.
//
//	testsum -name unit -against memory -record build/steps -- go test -json ./...
//	testsum -plain -name quickstart -- go run ./examples/quickstart     one command, one test
//	testsum -not-run 'left out' -name nats -record build/steps            nothing: it counts as one skipped, with this reason
//	testsum -total build/steps lint vet     sums the recorded steps; the arguments are steps that failed
//	testsum -reports build/reports          prints the reports found there as a table, and makes a page of them
//	testsum -measured docs/measured.json -reports build/reports -readme README.md     puts them into the file that is committed, and its tables there
//
// It fails when the command does, when anything was counted as failed, and when nothing ran.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// A step is what was counted over one command.
type step struct {
	Name    string  `json:"name"`
	Against string  `json:"against"`
	Passed  int     `json:"passed"`
	Failed  int     `json:"failed"`
	Skipped int     `json:"skipped"`
	Seconds float64 `json:"seconds"`

	Failures []string `json:"failures,omitempty"` // each failed test with the first lines of what it said
}

func (s step) line() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", s.Passed, s.Failed, s.Skipped)
}

func (s step) ok() bool { return s.Failed == 0 && s.Passed > 0 }

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	fs := flag.NewFlagSet("testsum", flag.ContinueOnError)
	fs.SetOutput(errOut)
	name := fs.String("name", "tests", "what the step is called")
	against := fs.String("against", "", "what the tests ran against")
	record := fs.String("record", "", "folder that keeps the step for -total")
	show := fs.String("show", "", "print what this test says also when it passes")
	plain := fs.Bool("plain", false, "the command is one test: it passes when it exits with 0")
	notRun := fs.String("not-run", "", "run nothing, and record that, with this reason")
	total := fs.String("total", "", "sum the steps recorded in this folder")
	reports := fs.String("reports", "", "print the reports in this folder, and write its index.html")
	keep := fs.String("measured", "", "put the reports into this file instead")
	readme := fs.String("readme", "", "with -measured: write tables of that file between the marked lines of this one")
	if err := fs.Parse(args); err != nil {
		return 2
	}

	switch {
	case *total != "":
		return printTotal(*total, fs.Args(), out, errOut)
	case *keep != "" && *reports != "":
		return keepMeasured(*keep, *reports, *readme, out, errOut)
	case *reports != "":
		return printReports(*reports, out, errOut)
	case *notRun != "":
		s := step{Name: *name, Against: "nothing, not run: " + *notRun, Skipped: 1}
		fmt.Fprintf(out, "%s not run: %s\n", s.Name, *notRun)
		if *record == "" {
			return 0
		}
		if err := s.save(*record); err != nil {
			fmt.Fprintln(errOut, "testsum:", err)
			return 1
		}
		return 0
	case fs.NArg() == 0:
		fmt.Fprintln(errOut, "testsum: no command")
		return 2
	}

	s := step{Name: *name, Against: *against}
	start := time.Now()
	runErr := runCommand(ctx, fs.Args(), *plain, *show, &s, out, errOut)
	s.Seconds = time.Since(start).Seconds()
	switch {
	case *plain && runErr == nil:
		s.Passed++
	case runErr != nil && s.Failed == 0: // the one command, or something that is no test; or it was killed
		s.fails(fmt.Sprintf("FAIL %s: %v\n", s.Name, runErr), out)
	}
	if s.Passed+s.Failed+s.Skipped == 0 {
		fmt.Fprintf(out, "%s: no test ran\n", s.Name)
	}
	if *record != "" {
		if err := s.save(*record); err != nil {
			fmt.Fprintln(errOut, "testsum:", err)
			return 1
		}
	}
	fmt.Fprintf(out, "%s in %.1fs%s\n%s\n", s.Name, s.Seconds, s.suffix(), s.line())
	if !s.ok() {
		return 1
	}
	return 0
}

// fails counts a failure, prints what is to be said of it, and keeps its first lines for the total.
func (s *step) fails(text string, out io.Writer) {
	const enough = 8 // lines; all of them are above
	fmt.Fprint(out, text)
	s.Failed++
	lines := strings.SplitAfterN(text, "\n", enough+1)
	s.Failures = append(s.Failures, strings.Join(lines[:min(len(lines), enough)], ""))
}

func (s step) suffix() string {
	if s.Against == "" {
		return ""
	}
	return ", against " + s.Against
}

// runCommand runs args to its end; when ctx ends first, the command is interrupted, and killed 10 s later.
func runCommand(ctx context.Context, args []string, plain bool, show string, s *step, out, errOut io.Writer) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stderr = errOut
	if plain {
		cmd.Stdout = out
		return cmd.Run()
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := count(stdout, s, show, out)
	if err := cmd.Wait(); err != nil {
		return err
	}
	return readErr
}

func (s step) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, s.Name+".json"), b, 0o644)
}

// printTotal sums what was recorded. A step that failed without a record of a failure (lint, vet) counts as one failure.
func printTotal(dir string, failed []string, out, errOut io.Writer) int {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		fmt.Fprintln(errOut, "testsum:", err)
		return 1
	}
	var sum step
	fmt.Fprintln(out, "\nwhat ran")
	for _, file := range files {
		var s step
		b, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err != nil {
			fmt.Fprintf(errOut, "testsum: %s: %v\n", file, err)
			return 1
		}
		fmt.Fprintf(out, "  %-12s %s in %.1fs%s\n", s.Name, s.line(), s.Seconds, s.suffix())
		sum.Passed += s.Passed
		sum.Failed += s.Failed
		sum.Skipped += s.Skipped
		sum.Failures = append(sum.Failures, s.Failures...)
		if s.Failed > 0 {
			failed = slices.DeleteFunc(failed, func(name string) bool { return name == s.Name })
		}
	}
	if len(failed) > 0 {
		fmt.Fprintf(out, "  failed: %s\n", strings.Join(failed, ", "))
		sum.Failed += len(failed)
	}
	if len(sum.Failures) > 0 {
		fmt.Fprintf(out, "\nwhat failed\n%s", strings.Join(sum.Failures, ""))
	}
	fmt.Fprintln(out, sum.line())
	if !sum.ok() {
		return 1
	}
	return 0
}
