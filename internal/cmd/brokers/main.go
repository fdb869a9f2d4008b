// Command brokers starts brokers in containers for working by hand.
//
//	brokers up nats nats/cluster    start them, print their URLs, and leave them running
//	brokers down                    remove all that up has started
//	brokers with nats COMMAND...    start one, run the command with its URL in OMNIBUS_NATS_URL, whatever the variant, and remove it
//	brokers image nats kafka/4.0    print the official images of kinds or variants
//	brokers variants nats           print the variants of a kind, "default" first
//
// with uses a broker that runs already if the variant's own variable names one: OMNIBUS_NATS_CLUSTER_URL for nats/cluster. The command reads
// no input. An interrupt or SIGTERM ends it with all that it has started, as go run starts programs.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/testcontainers/testcontainers-go/log"

	"github.com/omnibus-go/omnibus/conformance/containers"
)

func main() {
	log.SetDefault(log.NewNoopLogger()) // errors say what there is to say
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	switch {
	case len(args) > 1 && args[0] == "up":
		for _, arg := range args[1:] {
			kind, variant, _ := strings.Cut(arg, "/")
			url, params, err := containers.Up(ctx, kind, variant)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%s=%s\n", containers.URLVariable(kind, variant), url)
			if params == (containers.Params{}) {
				continue
			}
			need, err := json.Marshal(params) //nolint:gosec // secrets of a throw-away broker, for who has asked for it
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "# clients need %s\n", need)
		}
		return nil
	case len(args) > 2 && args[0] == "with":
		kind, variant, _ := strings.Cut(args[1], "/")
		return containers.Lend(ctx, kind, variant, func(url string) error {
			cmd := exec.CommandContext(ctx, args[2], args[3:]...) //nolint:gosec // it is what the user wants to run
			cmd.Env = append(os.Environ(), containers.URLVariable(kind, "")+"="+url)
			cmd.Stdout, cmd.Stderr = out, os.Stderr
			return runAll(cmd)
		})
	case len(args) == 1 && args[0] == "down":
		return containers.Down(ctx)
	case len(args) > 1 && args[0] == "image":
		for _, arg := range args[1:] {
			kind, variant, _ := strings.Cut(arg, "/")
			image, err := containers.Image(kind, variant)
			if err != nil {
				return err
			}
			fmt.Fprintln(out, image)
		}
		return nil
	case len(args) == 2 && args[0] == "variants":
		for _, v := range containers.Variants(args[1]) {
			fmt.Fprintln(out, v)
		}
		return nil
	}
	return fmt.Errorf("brokers: want up KIND[/VARIANT]..., down, with KIND[/VARIANT] COMMAND..., image KIND[/VARIANT]... or variants KIND, not %q", args)
}

const patience = 10 * time.Second // of what was told to end
