package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// An app is the command with all that it touches: tests give it buffers and variables of their own, and run several commands on one, which
// then meet on the same mem://name.
type app struct {
	in     io.Reader
	out    *output
	getenv func(string) string
	mux    pubsub.Mux
	now    func() time.Time

	url, config string
	timeout     time.Duration
	verbose     bool

	secrets []string // of the URLs in use: they stand in no error
}

func newApp(in io.Reader, out, errOut io.Writer, getenv func(string) string) *app {
	return &app{in: in, out: newOutput(out, errOut, getenv), getenv: getenv, mux: brokers.All(), now: time.Now}
}

// run runs one command line, without the program's name, and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	a.url, a.config, a.timeout, a.verbose, a.out.json, a.out.failed, a.secrets = "", "", 0, false, false, nil, nil
	root := a.root()
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		a.out.json = a.out.json || asksForJSON(args) // it may stand behind what could not be read
		return usageOf(c, err)
	})
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out.w)
	root.SetErr(a.out.errW)
	err := root.ExecuteContext(ctx)
	a.out.endProgress()
	if failed := a.out.failed; failed != nil && (err == nil || errors.Is(err, failed)) {
		err = failed // whatever came between says that of it: the broker is not to blame
	}
	if err == nil {
		return exitOK
	}
	c := describe(err)
	if !errors.Is(err, errToldAlready) {
		c.Message, c.Hint = a.clean(c.Message), a.clean(c.Hint)
		a.out.complain(c)
	}
	return c.Exit
}

// asksForJSON says whether a command line has --json, wherever.
func asksForJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json") || slices.Contains(args, "--json=true")
}

// root builds the commands anew: cobra keeps the flags of a run in them.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "omnibus",
		Short: "Ask, feed, read and measure a message broker",
		Long: `omnibus works on any broker that the Go module omnibus opens: Kafka, RabbitMQ, Redis Streams, NATS, and one in memory.

The broker is the URL of --url, else of the variable OMNIBUS_URL, else of the configuration file: --config, else OMNIBUS_CONFIG, else omnibus.yaml
in the working directory. A password is better kept out of the command line, which others on the machine can see: put it into OMNIBUS_URL, or into
a file that the URL or the configuration names.

With --json each command writes JSON to standard output, one value a line where there are many, and its error as JSON to standard error. Colour
and progress are for terminals only; NO_COLOR switches the colour off. An interrupt ends a command in order: what runs is finished, what is held
goes back to the broker. A second one ends it at once.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          a.noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return c.Help()
		},
	}
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	f := root.PersistentFlags()
	f.StringVar(&a.url, "url", "", "URL of the broker, such as nats://host:4222 (default: OMNIBUS_URL, else that of the configuration)")
	f.StringVar(&a.config, "config", "", "configuration file (default: OMNIBUS_CONFIG, else omnibus.yaml if there is one)")
	f.DurationVar(&a.timeout, "timeout", 10*time.Second, "how long the broker may take for an answer")
	f.BoolVar(&a.out.json, "json", false, "write JSON")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "write what the engine logs to standard error")
	root.AddCommand(a.pingCommand(), a.completing(a.pubCommand(), false), a.completing(a.subCommand(), false), a.completing(a.topicsCommand(), true),
		a.completing(a.ensureCommand(), false), a.completing(a.lagCommand(), false), a.conformCommand(), a.benchCommand(), a.configCommand(), a.dlqCommand(), a.keysCommand())
	return root
}

// noArgs and atMost refuse arguments without repeating them: one may be a URL with a password.
func (a *app) noArgs(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasSubCommands() {
		a.conceal(args[0])
		like := ""
		if all := c.SuggestionsFor(args[0]); len(all) > 0 {
			like = ": do you mean " + strings.Join(all, " or ") + "?"
		}
		return usageOf(c, fmt.Errorf("there is no command %q%s", a.clean(args[0]), like))
	}
	return usageOf(c, fmt.Errorf("it takes no arguments, not %d", len(args)))
}

func args(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usageOf(c, fmt.Errorf("an argument is missing: %s", strings.TrimPrefix(c.UseLine(), "omnibus ")))
		case most >= 0 && len(args) > most:
			return usageOf(c, fmt.Errorf("%d arguments are too many: %s", len(args), strings.TrimPrefix(c.UseLine(), "omnibus ")))
		}
		return nil
	}
}

// opened opens the broker for the time of f, and closes it whatever f says. Of the configuration it takes the URL alone, not the middleware nor other
// settings: the layers need the service's program. change may edit the options.
func (a *app) opened(c *cobra.Command, change func(*pubsub.Options), f func(ctx context.Context, b *pubsub.Broker) error) error {
	url, err := a.brokerURL()
	if err != nil {
		return err
	}
	opts := &pubsub.Options{Service: "omnibus", Manage: pubsub.Verify}
	if a.verbose {
		opts.Logger = slog.New(slog.NewTextHandler(a.out.errW, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if change != nil {
		change(opts)
	}
	ctx, cancel := a.within(c.Context())
	b, err := a.mux.Open(ctx, url, opts)
	cancel()
	if err != nil {
		return err
	}
	return errors.Join(f(c.Context(), b), b.Close())
}

// within bounds one answer of the broker.
func (a *app) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, a.timeout, errTimeout)
}

// brokerURL is the URL of --url, else of OMNIBUS_URL, else of the configuration.
func (a *app) brokerURL() (string, error) {
	for _, url := range []string{a.url, a.getenv("OMNIBUS_URL")} {
		if url != "" {
			a.conceal(url)
			return url, nil
		}
	}
	path := a.configPath()
	if path == "" {
		return "", usage(errors.New("which broker?"), "give --url, or set OMNIBUS_URL, such as nats://127.0.0.1:4222; or give a --config")
	}
	c, err := a.load(path)
	if err != nil {
		return "", err
	}
	return c.File().Broker, nil
}

// version is that of the module, or the revision that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision := ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	if v := info.Main.Version; v != "" && v != "(devel)" || revision == "" {
		return v
	}
	return revision
}
