package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/omnibus-go/omnibus/conformance/report"
)

// A measured is docs/measured.json: the latest report of each kind, broker and variant, whole and as written.
type measured struct {
	Files   []string          `json:"files"` // <kind>-<broker>-<variant>.json, one for each report: not every kind of report says what it is of
	Reports []json.RawMessage `json:"reports"`
}

// A part of a README is generated, between two lines.
type part struct {
	begin, end string
	write      func(*report.Set, io.Writer)
}

func parts() []part {
	return []part{
		{"<!-- capabilities: written by make measured -->\n", "<!-- end of capabilities -->\n", (*report.Set).Capabilities},
		{"<!-- measured: written by make measured -->\n", "<!-- end of measured -->\n", (*report.Set).Markdown},
	}
}

// keepMeasured puts the reports of dir into file, and tables of all that file then has into readme, if one is named. What file has of others,
// measured at another time or machine, stays.
func keepMeasured(file, dir, readme string, out, errOut io.Writer) int {
	fail := func(err error) int {
		fmt.Fprintln(errOut, "testsum:", err)
		return 1
	}
	all, err := readMeasured(file)
	if err != nil {
		return fail(err)
	}
	found, err := report.Read(os.DirFS(dir))
	switch {
	case err != nil:
		return fail(err)
	case found.Empty():
		return fail(fmt.Errorf("no reports in %s", dir))
	case len(found.Others) > 0:
		return fail(fmt.Errorf("%s.json: %s", found.Others[0].Name, found.Others[0].Why))
	}
	found.Table(out)
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return fail(err)
	}
	for _, f := range names {
		b, err := os.ReadFile(f)
		if err != nil {
			return fail(err)
		}
		all[filepath.Base(f)] = b
	}
	var m measured
	for _, name := range slices.Sorted(maps.Keys(all)) {
		m.Files = append(m.Files, name)
		m.Reports = append(m.Reports, all[name])
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fail(err)
	}
	if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
		return fail(err)
	}
	fmt.Fprintf(out, "%s has %d reports, %d of them new\n", file, len(all), len(names))
	if readme == "" {
		return 0
	}
	text, err := os.ReadFile(readme)
	if err == nil {
		text, err = withTables(text, all)
	}
	if err == nil {
		err = os.WriteFile(readme, text, 0o644) //nolint:gosec // the caller names it
	}
	if err != nil {
		return fail(fmt.Errorf("%s: %w", readme, err))
	}
	return 0
}

// withTables is a README with the tables of these reports.
func withTables(readme []byte, all map[string]json.RawMessage) ([]byte, error) {
	files := map[string][]byte{}
	for name, text := range all {
		files[name] = text
	}
	set := report.Of(files)
	for _, p := range parts() {
		before, rest, ok := bytes.Cut(readme, []byte(p.begin))
		_, after, ends := bytes.Cut(rest, []byte(p.end))
		if !ok || !ends {
			return nil, fmt.Errorf("it has no lines %q and %q for tables to stand between", strings.TrimSpace(p.begin), strings.TrimSpace(p.end))
		}
		var tables bytes.Buffer
		p.write(set, &tables)
		readme = slices.Concat(before, []byte(p.begin), tables.Bytes(), []byte("\n"+p.end), after)
	}
	return readme, nil
}

func readMeasured(file string) (map[string]json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	var m measured
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		err = dec.Decode(&m)
	}
	if err == nil && len(m.Files) != len(m.Reports) {
		err = fmt.Errorf("%d files and %d reports", len(m.Files), len(m.Reports))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for i, name := range m.Files {
		all[name] = m.Reports[i]
	}
	return all, nil
}
