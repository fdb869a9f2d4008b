package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/conformance/report"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
	"github.com/omnibus-go/omnibus/redisstreams"
)

type conformFlags struct {
	reports, only, variant, server string
	known                          []string
}

func (a *app) conformCommand() *cobra.Command {
	var f conformFlags
	c := &cobra.Command{
		Use:   "conform [URL]",
		Short: "Prove that a broker keeps its promises, property by property",
		Long: `conform runs the conformance suite against the broker: each property states one promise of the module, and the suite publishes, consumes, cuts
its own connections and counts. It takes some minutes and leaves topics behind whose names begin with t and a number: give it a broker that is not
in production. It cannot restart the broker or cut its network; properties that need that are reported as not run, with the reason.

The report is written to --reports as JSON and JUnit XML, and with all others there as one page, index.html. With --only a part is asked, and
nothing is written. It exits with 3 when a property fails.`,
		Example: `  omnibus conform --only '^Fidelity/'
  omnibus conform --only Order/PerKey --json`,
		Args: args(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.url = args[0]
			}
			return a.conform(c, f)
		},
	}
	fs := c.Flags()
	fs.StringVar(&f.reports, "reports", "omnibus-reports", "folder for the reports")
	fs.StringVar(&f.only, "only", "", "regular expression: ask only the properties whose names match")
	fs.StringVar(&f.variant, "variant", "", "what the report is named after beside the broker, such as cluster (default: default)")
	fs.StringVar(&f.server, "server-version", "", "of the broker, for the report")
	fs.StringArrayVar(&f.known, "known", nil, "PROPERTY=REASON: it is known to fail; may be repeated")
	return c
}

func (a *app) conform(c *cobra.Command, f conformFlags) error {
	h, err := a.harness(f)
	if err != nil {
		return err
	}
	if err := a.opened(c, nil, func(context.Context, *pubsub.Broker) error { return nil }); err != nil { // else each property would say it
		return err
	}
	total := len(conformance.Properties())
	if h.Select != nil {
		total = len(slices.DeleteFunc(conformance.Properties(), func(p conformance.Property) bool { return !h.Select(p) }))
	}
	if total == 0 {
		return usageOf(c, fmt.Errorf("no property has a name that --only matches"))
	}
	began, done, failed := time.Now(), 0, 0
	show := func() {
		a.out.setProgress(true, func() string {
			s := bar(done, total, time.Since(began))
			if failed > 0 {
				s += fmt.Sprintf(", %d failed", failed)
			}
			return s
		})
	}
	show()
	rep, err := conformance.Check(c.Context(), h, func(p conformance.PropertyResult) {
		done++
		if p.Status == conformance.Failed {
			failed++
		}
		if a.verbose {
			a.out.notef("%-40s %-13s %6.2f s", p.Name, p.Status, p.Seconds)
		}
		show()
	})
	if err != nil {
		return err
	}
	a.out.endProgress()
	if a.out.json {
		err = a.out.value(rep)
	} else {
		rep.Table(tabled{a.out}) // what cannot be written is the run's error
	}
	if err == nil && !rep.Partial() {
		err = a.keep(rep.Write, f.reports)
	}
	if err == nil && !rep.OK() {
		bad := slices.DeleteFunc(slices.Clone(rep.Properties), func(p conformance.PropertyResult) bool { return p.Status != conformance.Failed })
		err = &foundError{fmt.Sprintf("%d of %d properties fail", len(bad), len(rep.Properties))}
	}
	return err
}

// A tabled is what tables are written to. Who asks for its Stat finds out whether it is a terminal.
type tabled struct{ out *output }

func (t tabled) Write(p []byte) (int, error) {
	if err := t.out.write(string(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (t tabled) Stat() (fs.FileInfo, error) {
	if f, ok := t.out.w.(*os.File); ok {
		return f.Stat()
	}
	return nil, fs.ErrInvalid
}

// keep writes a report to a folder, and makes the page of all that are there.
func (a *app) keep(write func(dir string) error, dir string) error {
	if err := write(dir); err != nil {
		return err
	}
	if _, err := report.Make(dir); err != nil {
		return err
	}
	if !a.out.json {
		return a.out.printf("\nas a page: %s\n", filepath.Join(dir, report.PageName))
	}
	return nil
}

// harness is what the suite can do to a broker of which it knows only the URL.
func (a *app) harness(f conformFlags) (conformance.Harness, error) {
	h := conformance.Harness{Variant: f.variant, ServerVersion: f.server, KnownFailing: map[string]string{}}
	raw, err := a.brokerURL()
	if err != nil {
		return h, err
	}
	if f.only != "" {
		re, err := regexp.Compile(f.only)
		if err != nil {
			return h, usage(fmt.Errorf("--only: %w", err), "")
		}
		h.Select = func(p conformance.Property) bool { return re.MatchString(p.Name) }
	}
	scheme, _, _ := strings.Cut(raw, "://")
	if scheme == "nats" {
		const why = "the topics of one stream share its retention, bytes and replicas: one with others needs a Broker with another ?stream="
		h.KnownFailing["Groups/TopicDisagrees"], h.KnownFailing["DeadLetters/BrowsingTakesNothing"] = why, why
	}
	for _, k := range f.known {
		name, why, ok := strings.Cut(k, "=")
		if !ok || why == "" {
			return h, usage(errors.New("a --known is PROPERTY=REASON"), "")
		}
		h.KnownFailing[name] = why
	}
	if scheme == "mem" {
		h.Fresh = inMemory
		return h, nil
	}
	d, module := dial(raw)
	if d == nil { // opening it says what there is
		h.Driver = func(ctx context.Context) (pubsub.Driver, error) {
			b, err := a.mux.Open(ctx, raw, nil)
			if err == nil {
				err = errors.Join(errors.New("the suite has no driver for this URL"), b.Close())
			}
			return nil, err
		}
		return h, nil
	}
	h.Driver, h.ClientVersion, h.Secrets = d, versionOf(module), secretsOf(raw)
	h.OpenURL = func(ctx context.Context, parameters url.Values) (*pubsub.Broker, error) {
		u := raw
		if len(parameters) > 0 {
			sep := "?"
			if strings.Contains(u, "?") {
				sep = "&"
			}
			u += sep + parameters.Encode()
		}
		return a.mux.Open(ctx, u, nil)
	}
	return h, nil
}

// inMemory gives each property a broker of its own, which can crash.
func inMemory() conformance.Harness {
	s := memory.NewServer(memory.Config{})
	return conformance.Harness{
		Driver:      func(context.Context) (pubsub.Driver, error) { return s.Driver(), nil },
		Kill:        func(context.Context) error { s.Crash(); return nil },
		Start:       func(context.Context) error { s.Restart(); return nil },
		DeleteTopic: func(_ context.Context, topic string) error { s.DeleteTopic(topic); return nil },
	}
}

// adapterOf is what reports call the adapter for a URL.
func adapterOf(raw string) string {
	scheme, _, _ := strings.Cut(raw, "://")
	for name, o := range map[string]pubsub.Opener{
		"memory": memory.Opener(), "nats": nats.Opener(), "kafka": kafka.Opener(), "rabbitmq": rabbitmq.Opener(), "redis": redisstreams.Opener(),
	} {
		if slices.Contains(o.Schemes, scheme) {
			return name
		}
	}
	return "unknown"
}

// dial finds the driver for a URL, and the module of the client below it; nil = nobody has it.
func dial(raw string) (func(context.Context) (pubsub.Driver, error), string) {
	scheme, _, _ := strings.Cut(raw, "://")
	has := func(o pubsub.Opener) bool { return slices.Contains(o.Schemes, scheme) }
	switch {
	case has(nats.Opener()):
		return driverOf(raw, nats.ParseURL), "github.com/nats-io/nats.go"
	case has(kafka.Opener()):
		return driverOf(raw, kafka.ParseURL), "github.com/IBM/sarama"
	case has(rabbitmq.Opener()):
		return driverOf(raw, rabbitmq.ParseURL), "github.com/rabbitmq/amqp091-go"
	case has(redisstreams.Opener()):
		return driverOf(raw, redisstreams.ParseURL), "github.com/redis/go-redis/v9"
	}
	return nil, ""
}

func driverOf[C interface {
	Driver(ctx context.Context) (pubsub.Driver, error)
}](raw string, parse func(string) (C, error)) func(context.Context) (pubsub.Driver, error) {
	return func(ctx context.Context) (pubsub.Driver, error) {
		cfg, err := parse(raw)
		if err != nil {
			return nil, err
		}
		return cfg.Driver(ctx)
	}
}

// versionOf is that of a module that this program was built with.
func versionOf(module string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == module {
			return m.Version
		}
	}
	return ""
}
