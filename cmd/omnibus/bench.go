package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/conformance/report"
	"github.com/omnibus-go/omnibus/internal/bench"
	"github.com/omnibus-go/omnibus/internal/benchclient"
	"github.com/omnibus-go/omnibus/pubsub"
)

type benchFlags struct {
	reports, variant, only, server string
	reps, size, callers, rate      int
	each                           time.Duration
}

func (a *app) benchCommand() *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use:   "bench [URL]",
		Short: "Measure how fast a broker takes and gives messages",
		Long: `bench measures the broker through the module's own API with default settings: publishing until all is confirmed (handed over one by one, in batches
of 500, and by callers that wait), consuming what was stored until all is settled, and the delay from the call that publishes to the handler at a
fixed rate. Each row is warmed up and then repeated; the figures are medians, with the least and the most beside them. Only what the broker has
confirmed counts, and a run in which one message is missing is void.

It needs an idle broker that is not in production, and leaves topics behind whose names begin with "bench.". The report is written to --reports as
JSON, and with all others there as one page, index.html, with charts. With --only, or fewer than 5 repetitions, nothing is written.`,
		Example: `  omnibus bench --only Latency --reps 1 --each 50ms
  omnibus bench --only 'Publish/async' --reps 1 --each 50ms --json`,
		Args: args(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.url = args[0]
			}
			return a.bench(c, f)
		},
	}
	fs := c.Flags()
	fs.StringVar(&f.reports, "reports", "omnibus-reports", "folder for the reports")
	fs.StringVar(&f.only, "only", "", "regular expression: measure only the rows whose names match")
	fs.StringVar(&f.variant, "variant", "alone", "what the report is named after beside the broker")
	fs.StringVar(&f.server, "server-version", "", "of the broker, for the report")
	fs.IntVar(&f.reps, "reps", bench.FewReps, "repetitions of each row, after a warm-up")
	fs.DurationVar(&f.each, "each", 500*time.Millisecond, "about how long a repetition takes")
	fs.IntVar(&f.size, "size", 256, "bytes of a payload")
	fs.IntVar(&f.callers, "callers", 64, "goroutines that publish and wait, and handlers at once, of the rows with many")
	fs.IntVar(&f.rate, "rate", 1000, "messages a second of the row latency")
	return c
}

// shapes are the rows.
func (f benchFlags) shapes() []bench.Shape {
	return []bench.Shape{
		{Op: bench.Publish, Form: bench.Async, Callers: 1, Size: f.size},
		{Op: bench.Publish, Form: bench.Batched, Callers: 1, Size: f.size},
		{Op: bench.Publish, Form: bench.Blocking, Callers: 1, Size: f.size},
		{Op: bench.Publish, Form: bench.Blocking, Callers: f.callers, Size: f.size},
		{Op: bench.Consumed, Workers: 1, Defaults: true, Size: f.size},
		{Op: bench.Consumed, Workers: f.callers, Keys: 1000, Defaults: true, Size: f.size},
		{Op: bench.Latency, Callers: 16, Workers: 1, Rate: f.rate, Defaults: true, Size: f.size},
	}
}

// benchReport is the schema omnibus.bench/1 as package report reads it.
type benchReport struct {
	Schema        string            `json:"schema"`
	Broker        string            `json:"broker"`
	ServerVersion string            `json:"server_version"`
	Rows          []report.BenchRow `json:"rows"`
}

func (a *app) bench(c *cobra.Command, f benchFlags) error {
	for name, n := range map[string]int{"--reps": f.reps, "--size": f.size, "--callers": f.callers, "--rate": f.rate} {
		if n < 1 {
			return usageOf(c, fmt.Errorf("%s is to be at least 1", name))
		}
	}
	if f.each <= 0 {
		return usageOf(c, errors.New("--each is to be more than 0"))
	}
	raw, err := a.brokerURL()
	if err != nil {
		return err
	}
	o := bench.Options{Broker: adapterOf(raw), Server: f.server, Variant: f.variant, Reps: f.reps, Each: f.each, Log: io.Discard}
	if f.only != "" {
		if o.Only, err = regexp.Compile(f.only); err != nil {
			return usage(fmt.Errorf("--only: %w", err), "")
		}
	}
	if a.verbose {
		o.Log = a.out.errW
	}
	err = a.opened(c, nil, func(_ context.Context, b *pubsub.Broker) error {
		if b.Capabilities().Redelivery {
			return nil
		}
		return &pubsub.Error{Op: "bench", Broker: o.Broker, Code: pubsub.ErrUnsupported, Err: errors.New("messages that wait for a group"),
			Hint: "what nobody receives at once is not kept here, so there is nothing to count"}
	})
	if err != nil {
		return err
	}
	plug := bench.Plug{Impl: "omnibus", Settings: "defaults", Open: func(ctx context.Context) (*bench.Client, error) {
		b, err := a.mux.Open(ctx, raw, &pubsub.Options{Service: "omnibus"})
		if err != nil {
			return nil, err
		}
		return benchclient.New(b), nil
	}}
	all := f.shapes()
	rep := benchReport{Schema: "omnibus.bench/1", Broker: o.Broker, ServerVersion: f.server, Rows: []report.BenchRow{}}
	partial, began := false, time.Now()
	for i, sh := range all {
		a.out.setProgress(true, func() string { return bar(i, len(all), time.Since(began)) + ", " + sh.Name() })
		r, err := bench.Run(c.Context(), o, []bench.Plug{plug}, []bench.Shape{sh})
		if err != nil {
			return fmt.Errorf("the run is void: %w", err)
		}
		partial = partial || r.Partial()
		for _, row := range r.Rows {
			rep.Rows = append(rep.Rows, benchRow(row))
		}
	}
	a.out.endProgress()
	if len(rep.Rows) == 0 {
		return usageOf(c, errors.New("no row has a name that --only matches"))
	}
	if a.out.json {
		err = a.out.value(rep)
	} else {
		err = a.benchTable(rep)
	}
	if err != nil || partial {
		return err
	}
	return a.keep(func(dir string) error { return rep.write(dir, f.variant) }, f.reports)
}

// shares are what the delays of a latency row are told of.
func shares() []float64 { return []float64{0.5, 0.9, 0.99, 0.999, 0.9999, 1} }

func benchRow(row bench.Row) report.BenchRow {
	rates := row.Rates()
	out := report.BenchRow{
		Op: row.Op, Shape: row.Shape, Callers: row.Callers, Size: row.Size, Impl: row.Impl, Reps: row.Reps, MsgsPerS: row.MsgsPerS,
		CPUPerMsg: row.CPU, AllocsPerMsg: row.Allocs, P50: row.P50, P99: row.P99,
		Rates: &report.Ratio{Median: rates.Median, Min: rates.Min, Max: rates.Max},
	}
	if all := row.Delays(); len(all) > 0 {
		for _, p := range shares() {
			if float64(len(all))*(1-p) < 1 && p < 1 {
				continue // there are too few messages to say it
			}
			out.Delays = append(out.Delays, report.Delay{Share: p, Us: float64(bench.Percentile(all, p)) / 1e3})
		}
	}
	return out
}

func (a *app) benchTable(rep benchReport) error {
	var rows [][]string
	var delays []string
	for _, r := range rep.Rows {
		rows = append(rows, []string{r.Op, r.Shape, strconv.Itoa(r.Callers), strconv.Itoa(r.Size), fmt.Sprintf("%.0f", r.MsgsPerS),
			fmt.Sprintf("%.0f to %.0f", r.Rates.Min, r.Rates.Max)})
		for _, d := range r.Delays {
			name := "max"
			if d.Share < 1 {
				name = fmt.Sprintf("p%g", 100*d.Share)
			}
			delays = append(delays, name+" "+round(time.Duration(d.Us*1e3)).String())
		}
	}
	text := a.out.tableText([]string{"op", "shape", "callers", "bytes", "messages/s", "from least to most"}, rows)
	if len(delays) > 0 {
		text += "\nlatency: " + strings.Join(delays, ", ") + "\n"
	}
	return a.out.write(text)
}

func (r benchReport) write(dir, variant string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bench-"+r.Broker+"-"+filepath.Base(variant)+".json"), append(b, '\n'), 0o644)
}
