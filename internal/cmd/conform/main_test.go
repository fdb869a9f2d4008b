package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestConform(t *testing.T) {
	inBubbles := inMemory()
	inBubbles.Wrap = func(_ conformance.T, f func()) { synctest.Test(t, func(*testing.T) { f() }) }
	nobody := conformance.Harness{Driver: func(context.Context) (pubsub.Driver, error) { return nil, errors.New("nobody there") }}
	for name, c := range map[string]struct {
		h     conformance.Harness
		code  int
		files []string
		says  string
	}{
		"memory":     {inBubbles, 0, []string{"conformance-memory-command.json", "conformance-memory-command.xml", "index.html"}, " 0 failed, "},
		"nobody":     {nobody, 1, []string{"conformance-unknown-default.json", "conformance-unknown-default.xml", "index.html"}, "setup: connect: nobody there"},
		"no harness": {conformance.Harness{}, 2, nil, "Harness.Driver is nil"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var out, errOut bytes.Buffer
			if code := conform(c.h, dir, &out, &errOut); code != c.code {
				t.Errorf("it exits with %d, want %d\n%s%s", code, c.code, &errOut, &out)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var files []string
			for _, e := range entries {
				files = append(files, e.Name())
			}
			if !slices.Equal(files, c.files) {
				t.Errorf("it has written %v, want %v", files, c.files)
			}
			if said := out.String() + errOut.String(); !strings.Contains(said, c.says) {
				t.Errorf("it does not say %q:\n%s", c.says, said)
			}
			if n := strings.Count(errOut.String(), " s\n"); c.files != nil && n != len(conformance.Properties()) {
				t.Errorf("it tells of %d properties as it goes, of %d", n, len(conformance.Properties()))
			}
		})
	}
}

// Reports that cannot be written are no success.
func TestNowhereToWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := inMemory()
	h.Wrap = func(_ conformance.T, f func()) { panic("not asked") }
	var out, errOut bytes.Buffer
	if code := conform(h, filepath.Join(file, "reports"), &out, &errOut); code != 2 || !strings.Contains(errOut.String(), "conform: ") {
		t.Errorf("it exits with %d and says %q", code, errOut.String())
	}
}
