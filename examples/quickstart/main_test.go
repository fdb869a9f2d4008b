package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

type result struct {
	code     int
	out, err string
}

func quickstart(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errOut bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

// row returns the numbers behind a group's name in the summary: handled, retries, dead letters, duplicates, out of order.
func (r result) row(t *testing.T, group string) []int {
	t.Helper()
	for line := range strings.Lines(r.out) {
		f := strings.Fields(line)
		if len(f) != 6 || f[0] != group {
			continue
		}
		var ns []int
		for _, x := range f[1:] {
			n, err := strconv.Atoi(x)
			if err != nil {
				t.Fatal(err)
			}
			ns = append(ns, n)
		}
		return ns
	}
	t.Fatalf("no line for %s in\n%s%s", group, r.out, r.err)
	return nil
}

func TestSampleOrders(t *testing.T) {
	// what should come out, from the orders themselves
	var n, billDead, billRetries, replayed, shipDead, shipRetries int
	for line := range bytes.Lines(sample) {
		var o Order
		if err := json.Unmarshal(line, &o); err != nil {
			t.Fatal(err)
		}
		n++
		var sum int64
		negative, sofa := false, false
		for _, it := range o.Items {
			sum += it.Quantity * it.Cents
			negative = negative || it.Quantity < 0
			sofa = sofa || it.SKU == "SOFA-3"
		}
		switch {
		case negative, sum != o.Cents, o.Payment == "tok_declined":
			billDead++
		case o.Payment == "tok_timeout":
			billDead++
			replayed++
			billRetries += 3
		case o.Payment == "tok_timeout_twice":
			billRetries += 2
		case o.Payment == "tok_timeout_once":
			billRetries++
		}
		switch {
		case slices.Contains([]string{"AQ", "XX", "BV"}, o.Country):
			shipDead++
		case sofa:
			shipRetries++
		}
	}
	if n < 1000 || billDead == 0 || replayed == 0 || billRetries == 0 || shipDead == 0 || shipRetries == 0 {
		t.Fatalf("the sample shows too little: %d orders, %d, %d, %d, %d", n, billDead, billRetries, shipDead, shipRetries)
	}

	r := quickstart(t, "")
	if r.code != 0 || r.err != "" {
		t.Fatalf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	if got, want := r.row(t, "billing"), []int{n - billDead, billRetries, billDead, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("billing: %v, want %v\n%s", got, want, r.out)
	}
	if got, want := r.row(t, "shipping"), []int{n - shipDead, shipRetries, shipDead, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("shipping: %v, want %v\n%s", got, want, r.out)
	}
	for _, want := range []string{
		strconv.Itoa(n) + " confirmed, 0 refused, 0 unknown",
		"permanent after 1 attempt ",
		"max-attempts after 4 attempts",
		errCountry.Error(), errTotal.Error(), errNegative.Error(), errDeclined.Error(), errGateway.Error(),
		fmt.Sprintf("replayed   %d of billing, where the gateway had failed and now answers: %d handled", replayed, replayed),
		"it adds up",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("the summary lacks %q\n%s", want, r.out)
		}
	}
}

// The README shows this program's output.
func TestReadmeIsTrue(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	r := quickstart(t, "")
	n := 0
	for line := range strings.Lines(string(readme)) {
		if strings.HasPrefix(line, "billing ") || strings.HasPrefix(line, "shipping ") {
			n++
			if !strings.Contains(r.out, line) {
				t.Errorf("README.md has %q; the program says\n%s", line, r.out)
			}
		}
	}
	if n != 2 {
		t.Errorf("README.md shows %d groups, want 2", n)
	}
}

const (
	good1 = `{"id":"a","customer":"c1","country":"DE","items":[{"sku":"x","quantity":2,"cents":150}],"cents":300,"payment":"tok_visa"}`
	good2 = `{"id":"b","customer":"c2","country":"XX","items":[{"sku":"x","quantity":1,"cents":150}],"cents":150,"payment":"tok_visa"}`
)

func TestStandardInputAndFile(t *testing.T) {
	orders := "\ufeff" + good1 + "\r\n\n" + good2 // a BOM, another line ending, an empty line, no last newline
	file := filepath.Join(t.TempDir(), "my.jsonl")
	if err := os.WriteFile(file, []byte(orders), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []result{quickstart(t, orders, "-"), quickstart(t, "", file)} {
		if r.code != 0 {
			t.Fatalf("exit %d\n%s%s", r.code, r.out, r.err)
		}
		if got, want := r.row(t, "billing"), []int{2, 0, 0, 0, 0}; !slices.Equal(got, want) {
			t.Errorf("billing: %v, want %v", got, want)
		}
		if got, want := r.row(t, "shipping"), []int{1, 0, 1, 0, 0}; !slices.Equal(got, want) {
			t.Errorf("shipping: %v, want %v", got, want)
		}
	}
}

// Broken lines are named with their numbers, the good ones among them are worked on, and the exit code tells.
func TestBrokenLines(t *testing.T) {
	r := quickstart(t, strings.Join([]string{
		good1,
		`{"id":"x"`,
		`[1,2]`,
		`{"id":"y","customer":"c","cents":99999999999999999999}`,
		`{"customer":"c"}`,
		good1,
		"\x00\xff\xfe",
		good2,
	}, "\n"), "-")
	if r.code != 1 {
		t.Errorf("exit %d, want 1", r.code)
	}
	for _, want := range []string{
		"standard input:2: unexpected end of JSON input",
		"standard input:3: json: cannot unmarshal array",
		"standard input:4: json: cannot unmarshal number 99999999999999999999",
		"standard input:5: an order needs an id and a customer",
		`standard input:6: order "a" was on line 1 already`,
		"standard input:7: invalid character",
		"6 lines of the input are no orders",
	} {
		if !strings.Contains(r.err, want) {
			t.Errorf("standard error lacks %q:\n%s", want, r.err)
		}
	}
	if got, want := r.row(t, "billing"), []int{2, 0, 0, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("billing: %v, want %v", got, want)
	}
}

func TestWrongUse(t *testing.T) {
	for _, c := range []struct {
		name, stdin string
		args        []string
		code        int
		says        string
	}{
		{"no orders", "\n\n", []string{"-"}, 1, "standard input: no orders"},
		{"only garbage", "nonsense", []string{"-"}, 1, "standard input:1: invalid character"},
		{"a line without end", good1 + "\n" + strings.Repeat("x", maxLine+1), []string{"-"}, 1, "line 2: longer than 1048576 bytes"},
		{"no such file", "", []string{"no-such-file.jsonl"}, 1, "no-such-file.jsonl: no such file"},
		{"a folder", "", []string{"."}, 1, "is a directory"},
		{"two files", "", []string{"a", "b"}, 2, "usage: quickstart"},
		{"unknown flag", "", []string{"-nope"}, 2, "flag provided but not defined"},
		{"help", "", []string{"-h"}, 0, "the broker's URL"},
		{"unknown scheme", "", []string{"-broker", "carrier-pigeon://x"}, 1, "known schemes: mem://"},
		{"no scheme", "", []string{"-broker", "localhost:9092"}, 1, "has no scheme"},
		{"no broker there", "", []string{"-broker", "nats://127.0.0.1:1"}, 1, "make brokers-up"},
		{"unknown parameter", "", []string{"-broker", "mem://x?colour=red"}, 1, `unknown parameter "colour"`},
		{"reserved topic", "", []string{"-topic", "omnibus.orders"}, 1, "reserved"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := quickstart(t, c.stdin, c.args...)
			if r.code != c.code || !strings.Contains(r.err, c.says) {
				t.Errorf("exit %d, want %d and %q in:\n%s", r.code, c.code, c.says, r.err)
			}
			if strings.Contains(r.out, "it adds up") {
				t.Error("it says that it adds up")
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errOut bytes.Buffer
	if code := run(ctx, nil, nil, &out, &errOut); code != 1 {
		t.Errorf("exit %d, want 1\n%s%s", code, &out, &errOut)
	}
}

// The check of the example must be able to fail.
func TestLedgerFindsWhatDoesNotAddUp(t *testing.T) {
	a, b := Order{ID: "a", Customer: "c"}, Order{ID: "b", Customer: "c"}
	fill := func() (*ledger, *account) {
		l := newLedger("g")
		l.sending(a)
		l.sending(b)
		l.sent("a", nil)
		l.sent("b", nil)
		l.publishedAll()
		return l, l.groups[0]
	}
	for _, c := range []struct {
		name    string
		work    func(*ledger, *account)
		letters []string
		want    string
	}{
		{"fine", func(l *ledger, g *account) { l.handled(g, a, 1, nil); l.handled(g, b, 1, nil) }, nil, ""},
		{"fine with a duplicate", func(l *ledger, g *account) {
			l.handled(g, a, 1, nil)
			l.handled(g, b, 1, nil)
			l.handled(g, a, 1, nil)
		}, nil, ""},
		{"fine with a dead letter", func(l *ledger, g *account) { l.deadLettered(g, "a"); l.handled(g, b, 1, nil) }, []string{"a"}, ""},
		{"lost", func(l *ledger, g *account) { l.handled(g, a, 1, nil) }, nil, "1 orders neither handled"},
		{"failed and gone", func(l *ledger, g *account) { l.handled(g, a, 1, errTotal); l.handled(g, b, 1, nil) }, nil, "1 orders neither handled"},
		{"handled and dead", func(l *ledger, g *account) {
			l.handled(g, a, 1, nil)
			l.handled(g, b, 1, nil)
			l.deadLettered(g, "a")
		}, []string{"a"}, "handled and also in the dead letters"},
		{"announced but not there", func(l *ledger, g *account) {
			l.deadLettered(g, "a")
			l.handled(g, b, 1, nil)
		}, nil, "1 dead letters announced, 0 found"},
		{"out of order", func(l *ledger, g *account) { l.handled(g, b, 1, nil); l.handled(g, a, 1, nil) }, nil, "overtook"},
		{"not published", func(l *ledger, g *account) {
			l.handled(g, a, 1, nil)
			l.handled(g, b, 1, nil)
			l.sent("c", errTotal)
		}, nil, "1 orders were not published"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, g := fill()
			c.work(l, g)
			got := l.problems(map[string][]string{"g": c.letters})
			if c.want == "" && len(got) > 0 || c.want != "" && !strings.Contains(strings.Join(got, "\n"), c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
