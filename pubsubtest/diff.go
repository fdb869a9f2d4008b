package pubsubtest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	around   = 3  // equal lines that are shown around a difference
	maxLines = 80 // of one text
)

// asJSON decodes an object or an array; numbers keep all their digits.
func asJSON(b []byte) (v any, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		return nil, false
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, false
	}
	switch v.(type) {
	case map[string]any, []any:
		return v, true
	}
	return nil, false
}

func samePayload(a, b []byte) bool {
	x, ok := asJSON(a)
	y, ok2 := asJSON(b)
	if ok && ok2 {
		return reflect.DeepEqual(x, y)
	}
	return bytes.Equal(a, b)
}

// payload shows a payload: JSON with a line for each value, text as its lines, anything else in hexadecimal.
func payload(b []byte) []string {
	if len(b) == 0 {
		return []string{"empty"}
	}
	if v, ok := asJSON(b); ok {
		var out bytes.Buffer
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(v); err == nil {
			return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		}
	}
	if printable(b) {
		return strings.Split(string(b), "\n")
	}
	return strings.Split(strings.TrimSuffix(hex.Dump(b), "\n"), "\n")
}

func printable(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	return !bytes.ContainsFunc(b, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) })
}

// diffLines shows two texts as one, with what is only in want marked "- " and what is only in got marked "+ ".
func diffLines(got, want []string) (lines []string) {
	if len(got)*len(want) > 1<<22 { // nobody reads that much, and the table would be large
		return append(indent(shortened(want), "- "), indent(shortened(got), "+ ")...)
	}
	var plus []string
	flush := func() { lines, plus = append(lines, plus...), nil }
	for _, p := range longestCommon(len(got), len(want), func(i, j int) bool { return got[i] == want[j] }) {
		switch {
		case p[0] < 0:
			lines = append(lines, "- "+want[p[1]])
		case p[1] < 0:
			plus = append(plus, "+ "+got[p[0]])
		default:
			flush()
			lines = append(lines, "  "+got[p[0]])
		}
	}
	flush()
	return shortened(near(lines))
}

// near leaves out equal lines that are far from a difference.
func near(lines []string) (out []string) {
	skipped := 0
	for i, l := range lines {
		window := lines[max(0, i-around):min(len(lines), i+around+1)]
		if !slices.ContainsFunc(window, func(w string) bool { return w[0] != ' ' }) {
			skipped++
			continue
		}
		out = append(out, omission(skipped)...)
		skipped = 0
		out = append(out, l)
	}
	return append(out, omission(skipped)...)
}

func omission(n int) []string {
	switch n {
	case 0:
		return nil
	case 1:
		return []string{"  ... 1 equal line"}
	}
	return []string{fmt.Sprintf("  ... %d equal lines", n)}
}

func shortened(lines []string) []string {
	if len(lines) <= maxLines {
		return lines
	}
	return append(slices.Clone(lines[:maxLines]), fmt.Sprintf("... %d more lines", len(lines)-maxLines))
}

// longestCommon pairs the indexes of two lists so that as many as can be are equal and none cross: {i, j} are equal, {i, -1} is
// only in the first, {-1, j} only in the second list. It compares all with all only between where the lists begin and end to differ.
func longestCommon(n, m int, equal func(i, j int) bool) (pairs [][2]int) {
	first := 0
	for first < min(n, m) && equal(first, first) {
		pairs = append(pairs, [2]int{first, first})
		first++
	}
	tail := 0
	for tail < min(n, m)-first && equal(n-1-tail, m-1-tail) {
		tail++
	}
	rows, cols := n-tail-first, m-tail-first
	same := make([]bool, rows*cols)
	best := make([]int, (rows+1)*(cols+1)) // of what follows row i and column j
	at := func(i, j int) int { return best[i*(cols+1)+j] }
	for i := rows - 1; i >= 0; i-- {
		for j := cols - 1; j >= 0; j-- {
			b := max(at(i+1, j), at(i, j+1))
			if equal(first+i, first+j) {
				same[i*cols+j] = true
				b = at(i+1, j+1) + 1
			}
			best[i*(cols+1)+j] = b
		}
	}
	i, j := 0, 0
	for i < rows || j < cols {
		switch {
		case i < rows && j < cols && same[i*cols+j]:
			pairs = append(pairs, [2]int{first + i, first + j})
			i, j = i+1, j+1
		case j < cols && (i == rows || at(i, j+1) >= at(i+1, j)):
			pairs = append(pairs, [2]int{-1, first + j})
			j++
		default:
			pairs = append(pairs, [2]int{first + i, -1})
			i++
		}
	}
	for ; tail > 0; tail-- {
		pairs = append(pairs, [2]int{n - tail, m - tail})
	}
	return pairs
}

func indent(lines []string, by string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = by + l
	}
	return out
}
