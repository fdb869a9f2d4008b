package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Each command of the session in docs/dlq.md is one that there is, with the flags that it has there; brokertest has run them.
func TestDeadLetterPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "dlq.md"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(page)) {
		line, ok := strings.CutPrefix(line, "$ omnibus ")
		if !ok {
			continue
		}
		n++
		words, err := split(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		if at := slices.Index(words, "|"); at >= 0 {
			words = words[:at]
		}
		c, rest, err := newWorld(t).app.root().Find(words)
		if err == nil {
			err = c.ParseFlags(rest)
		}
		if err == nil {
			err = c.ValidateArgs(c.Flags().Args())
		}
		if err != nil || !c.Runnable() {
			t.Errorf("omnibus %s: %v", line, err)
		}
	}
	if n < 9 {
		t.Errorf("docs/dlq.md has %d commands", n)
	}
}
