// Command conform asks the broker in memory every property of the conformance suite without package testing, in real time (3 minutes), and
// writes all reports: JSON, JUnit XML and the page.
//
//	go run ./internal/cmd/conform [-reports build/reports]
//
// It exits with 1 if a property fails, loses messages, or was not run without a reason, and with 2 if nothing could be asked or written.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/conformance/report"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

func main() {
	dir := flag.String("reports", "", "folder for the reports (default: OMNIBUS_REPORTS, else build/reports beside go.mod)")
	flag.Parse()
	os.Exit(conform(inMemory(), *dir, os.Stdout, os.Stderr))
}

// inMemory is the harness of the broker in memory: each property gets a server of its own.
func inMemory() conformance.Harness {
	return conformance.Harness{
		Variant: "command",
		Fresh: func() conformance.Harness {
			s := memory.NewServer(memory.Config{})
			return conformance.Harness{
				Driver:      func(context.Context) (pubsub.Driver, error) { return s.Driver(), nil },
				Kill:        func(context.Context) error { s.Crash(); return nil },
				Start:       func(context.Context) error { s.Restart(); return nil },
				DeleteTopic: func(_ context.Context, topic string) error { s.DeleteTopic(topic); return nil },
			}
		},
	}
}

// conform runs the suite, writes what came of it, and says what the command exits with.
func conform(h conformance.Harness, dir string, out, errOut io.Writer) int {
	failed := func(err error) int {
		fmt.Fprintln(errOut, "conform:", err)
		return 2
	}
	if dir == "" {
		var err error
		if dir, err = conformance.ReportDir(); err != nil {
			return failed(err)
		}
	}
	rep, err := conformance.Check(context.Background(), h, func(p conformance.PropertyResult) {
		fmt.Fprintf(errOut, "%-40s %-13s %6.2f s\n", p.Name, p.Status, p.Seconds)
	})
	if err != nil {
		return failed(err)
	}
	rep.Table(out)
	if err := rep.Write(dir); err != nil {
		return failed(err)
	}
	if _, err := report.Make(dir); err != nil {
		return failed(err)
	}
	fmt.Fprintf(out, "\nas a page: %s\n", filepath.Join(dir, report.PageName))
	if !rep.OK() {
		return 1
	}
	return 0
}
