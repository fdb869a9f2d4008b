package config

import (
	"fmt"
	"slices"
	"strings"
)

// remedy names what was probably meant, or all that there is.
func remedy(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(known) == 0 {
		return "there is none; add it, or leave it out"
	}
	known = slices.Sorted(slices.Values(known))
	return "it is one of " + strings.Join(known, ", ")
}

// nearest is what is known that differs in a third of the letters or less, "" if nothing.
func nearest(name string, known []string) string {
	best, least := "", max(len(name)/3, 1)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if n := distance(strings.ToLower(name), strings.ToLower(k)); n < least {
			best, least = k, n
		}
	}
	return best
}

// distance counts the letters to add, take away, change or swap with the next one (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// shown is a text of the file in quotes, unless it may be of a URL or a password.
func shown(s string) string {
	if len(s) > 60 || strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_.-+*> ", r))
	}) {
		return "what is there"
	}
	return fmt.Sprintf("%q", s)
}
