package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/bench"
	"github.com/omnibus-go/omnibus/internal/benchclient"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// serverURL is that of the server which the environment names. This module starts none: what does would be among its requirements.
func serverURL(t *testing.T, kind string) string {
	t.Helper()
	variable := "OMNIBUS_" + strings.ToUpper(kind) + "_URL"
	url := os.Getenv(variable)
	if url == "" {
		t.Fatalf("%s names no server: make benchmarks-%s starts one", variable, kind)
	}
	return url
}

// wantRows measures everything on a broker, briefly: so many rows have the implementations, and what is printed has those texts. It returns the log.
func wantRows(t *testing.T, broker, each string, want map[string]int, says ...string) (log string) {
	t.Helper()
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"-broker", broker, "-reps", "1", "-each", each}, &out, &errs); code != 0 {
		t.Fatalf("exit code %d\n%s", code, &errs)
	}
	rows := map[string]int{}
	for line := range strings.Lines(out.String()) {
		if f := strings.Fields(line); len(f) == 15 {
			rows[f[4]]++
		}
	}
	for impl, n := range want {
		if rows[impl] != n {
			t.Errorf("%s has %d rows, want %d", impl, rows[impl], n)
		}
	}
	for _, text := range says {
		if !strings.Contains(out.String(), text) {
			t.Errorf("the output does not say %q", text)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
	return errs.String()
}

// Every row of every implementation works, and each row's count is right; the figures are worth nothing.
func TestMemory(t *testing.T) {
	// what each leaves out is named in the table
	log := wantRows(t, "memory", "2ms", map[string]int{"raw": 24, "omnibus": 30, "watermill": 9, "gocloud": 9, "ideal": 1},
		"raw: pubsub.Driver", "gocloud, it knows no keys: 2 rows", "no report is written")
	for _, s := range memoryBroker().shapes {
		if !strings.Contains(log, s.Name()+" took ") {
			t.Errorf("%s was not measured", s.Name())
		}
	}
}

func TestReportIsWrittenByAWholeRunOnly(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("OMNIBUS_REPORTS", dir)
	var out, log bytes.Buffer
	if code := run(t.Context(), []string{"-each", "1ms", "-only", "Publish/async"}, &out, &log); code != 0 {
		t.Fatalf("exit code %d\n%s", code, &log)
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 {
		t.Errorf("a part of a run has left %v", files)
	}
	b := memoryBroker()
	r, err := bench.Run(t.Context(), bench.Options{Broker: "memory", Variant: "x", Reps: bench.FewReps, Each: time.Millisecond, Log: &log}, b.plugs, b.shapes[:1])
	if err != nil || r.Partial() {
		t.Fatalf("error %v, partial %v", err, r.Partial())
	}
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bench-memory-x.json", "bench-memory-x.txt"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestWrongUse(t *testing.T) {
	for _, args := range [][]string{{"-broker", "pigeon"}, {"-only", "("}, {"-reps", "0"}, {"-each", "x"}} {
		var out, log bytes.Buffer
		if code := run(t.Context(), args, &out, &log); code == 0 || log.Len() == 0 {
			t.Errorf("%v: exit code %d, says %q", args, code, &log)
		}
	}
}

// What the broker refuses counts as confirmed with nobody.
func TestRefusedIsNotConfirmed(t *testing.T) {
	open := map[string]func() *bench.Client{
		"raw": func() *bench.Client { return driverClient(memory.NewServer(memory.Config{MaxMessage: 100}).Driver()) },
		"omnibus": func() *bench.Client {
			b, err := memory.NewServer(memory.Config{MaxMessage: 100}).Open(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			return benchclient.New(b)
		},
	}
	small, large := bench.Message{ID: "1", Payload: make([]byte, 10)}, bench.Message{ID: "2", Payload: make([]byte, pubsub.Headroom+200)}
	for impl, o := range open {
		t.Run(impl, func(t *testing.T) {
			ctx, c := t.Context(), o()
			defer c.Close(ctx)
			if err := c.Prepare(ctx, "t", []string{"g"}); err != nil {
				t.Fatal(err)
			}
			if err := c.Publish(ctx, "t", large); err == nil {
				t.Error("Publish of what is too large is confirmed")
			}
			if n, err := c.PublishBatch(ctx, "t", []bench.Message{small, large, small}); n != 2 || err == nil {
				t.Errorf("PublishBatch confirms %d of 2, error %v", n, err)
			}
			var confirmed, failed int
			st, err := c.Stream(ctx, "t", func(n int, err error) {
				if err != nil {
					failed++
				} else {
					confirmed += n
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range []bench.Message{large, small, small} {
				if err := st.Send(m); err != nil {
					failed++
				}
			}
			if err := st.Flush(ctx); err != nil {
				failed++
			}
			if confirmed != 2 || failed == 0 {
				t.Errorf("Stream confirms %d of 2, %d failures", confirmed, failed)
			}
			if n, err := c.Pending(ctx, "t", "g"); n != 4 || err != nil {
				t.Errorf("%d pending, want 4; error %v", n, err)
			}
		})
	}
}
