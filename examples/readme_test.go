// Package examples_test keeps the list of examples true.
package examples_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// README.md has a command for each program there is, and each has a test of what it prints.
func TestReadmeListsEachProgram(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, m := range regexp.MustCompile("`go run \\./examples/([a-z]+)(?: [a-z/.]+)?`").FindAllSubmatch(readme, -1) {
		listed = append(listed, string(m[1]))
	}
	mains, err := filepath.Glob("*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var programs []string
	for _, file := range mains {
		dir := filepath.Dir(file)
		programs = append(programs, dir)
		if _, err := os.Stat(filepath.Join(dir, "main_test.go")); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(listed)
	if len(programs) == 0 || !slices.Equal(listed, programs) {
		t.Errorf("README.md lists %q, there are %q", listed, programs)
	}
}
