// Command benchmarks measures omnibus against a broker's own client, Watermill and go-cloud in one run.
//
//	go run . -broker memory                    everything; writes bench-memory-default.json and .txt
//	go run . -broker memory -only Latency      the rows whose name matches, to the terminal only
//	go run . -broker memory -reps 1 -each 50ms a quick look, to the terminal only
//	OMNIBUS_NATS_URL=nats://... go run . -broker nats     on that broker; `make bench BROKER=nats` starts one, and BROKER=kafka a Kafka
//
// A row is one implementation in one kind of work: publish (async, in batches of 500, or callers that wait, until all is confirmed), consume
// (what was stored before, until the broker says that nothing is pending), latency (publish to handler at a fixed rate) and, in the process,
// round trips. It counts what the broker has confirmed and what handlers got, and a run that lost one message is void. "of raw" is the
// ratio to the broker's own client in the same repetition. What an implementation does not offer is named, with the reason, under the table.
//
// It is a module of its own, so that who uses omnibus gets none of the clients that it is compared with. A broker is one file here that
// says how each implementation is opened; internal/bench does the rest.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/internal/bench"
)

// A broker is who takes part on it, and in what.
type broker struct {
	variant string // if not said otherwise; "" = default
	version string // of the server, if there is one
	plugs   []bench.Plug
	shapes  []bench.Shape

	// warm works for about as long as so many repetitions take, so that the first rows are measured as the last ones. nil: there is no need.
	warm func(ctx context.Context, each time.Duration) error
}

// brokers connect to those that are a server of their own, by the URL in OMNIBUS_<NAME>_URL.
func brokers() map[string]func(context.Context) (broker, error) {
	return map[string]func(context.Context) (broker, error){
		"memory":   func(context.Context) (broker, error) { return memoryBroker(), nil },
		"nats":     natsBroker,
		"kafka":    kafkaBroker,
		"redis":    redisBroker,
		"rabbitmq": rabbitBroker,
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	all := brokers()
	names := strings.Join(slices.Sorted(maps.Keys(all)), ", ")
	fs := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	fs.SetOutput(errOut)
	name := fs.String("broker", "memory", "which broker: "+names)
	variant := fs.String("variant", "", "what the report is named after")
	reps := fs.Int("reps", bench.FewReps, "repetitions of each row; below the default no report is written")
	each := fs.Duration("each", 500*time.Millisecond, "about how long a repetition takes")
	only := fs.String("only", "", "measure only rows whose name matches this expression; no report is written")
	if err := fs.Parse(args); err != nil {
		return 2
	}
	fail := func(err error) int {
		fmt.Fprintln(errOut, "benchmarks:", err)
		return 1
	}
	open, ok := all[*name]
	if !ok {
		return fail(fmt.Errorf("no broker %q; there is %s", *name, names))
	}
	b, err := open(ctx)
	if err != nil {
		return fail(fmt.Errorf("%s: %w", *name, err))
	}
	o := bench.Options{Broker: *name, Server: b.version, Variant: cmp.Or(*variant, b.variant, "default"), Reps: *reps, Each: *each, Log: errOut}
	if *only != "" {
		re, err := regexp.Compile(*only)
		if err != nil {
			return fail(err)
		}
		o.Only = re
	}
	if b.warm != nil {
		if err := b.warm(ctx, *each); err != nil {
			return fail(fmt.Errorf("warming %s up: %w", *name, err))
		}
	}
	rep, err := bench.Run(ctx, o, b.plugs, b.shapes)
	if rep != nil {
		rep.Table(out)
	}
	switch {
	case err != nil:
		return fail(fmt.Errorf("the run is void:\n%w", err))
	case rep.Partial():
		fmt.Fprintln(out, "only a part was run: no report is written")
		return 0
	}
	dir, err := conformance.ReportDir()
	if err == nil {
		err = rep.Write(dir)
	}
	if err != nil {
		return fail(err)
	}
	return 0
}
