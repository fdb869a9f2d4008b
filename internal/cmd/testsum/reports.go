package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/omnibus-go/omnibus/conformance/report"
)

// printReports writes the page of the reports in a folder, and prints them as a table. It fails where a report cannot be read, not where a
// report tells of a failure: the run that wrote it has failed already.
func printReports(dir string, out, errOut io.Writer) int {
	s, err := report.Make(dir)
	switch {
	case err != nil:
		fmt.Fprintln(errOut, "testsum:", err)
		return 1
	case s.Empty():
		fmt.Fprintln(out, "no reports yet: make conformance BROKER=memory writes the first one")
		return 0
	}
	s.Table(out)
	fmt.Fprintf(out, "\nas a page: %s\n", filepath.Join(dir, report.PageName))
	code := 0
	for _, o := range s.Others {
		if o.Broken {
			fmt.Fprintf(errOut, "testsum: %s.json: %s\n", o.Name, o.Why)
			code = 1
		}
	}
	return code
}
