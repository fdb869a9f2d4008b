// Command brokers starts brokers in containers for working by hand.
//
//	brokers up nats nats/cluster    start them, print their URLs, and leave them running
//	brokers down                    remove all that up has started
//	brokers image nats              print the official image of a kind
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

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
			fmt.Fprintf(out, "OMNIBUS_%s_URL=%s\n", strings.ToUpper(strings.ReplaceAll(arg, "/", "_")), url)
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
	case len(args) == 1 && args[0] == "down":
		return containers.Down(ctx)
	case len(args) == 2 && args[0] == "image":
		image, err := containers.Image(args[1])
		if err == nil {
			fmt.Fprintln(out, image)
		}
		return err
	}
	return fmt.Errorf("brokers: want up KIND[/VARIANT]..., down, or image KIND, not %q", args)
}
