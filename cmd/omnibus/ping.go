package main

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/pubsub"
)

func (a *app) pingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ping",
		Short: "Ask the broker for an answer, and what it can do",
		Long: `ping connects, asks once, and says how long the answer took and what the connected server can do: the fields of pubsub.Capabilities, of
which pretty output has those that are not zero.`,
		Example: "  omnibus ping\n  omnibus ping --json",
		Args:    a.noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.opened(c, nil, func(ctx context.Context, b *pubsub.Broker) error {
				ctx, cancel := a.within(ctx)
				defer cancel()
				began := time.Now()
				if err := b.Ping(ctx); err != nil {
					return err
				}
				took := time.Since(began)
				caps := capabilities(b.Capabilities())
				if a.out.json {
					all := map[string]any{}
					for _, f := range caps {
						all[f.name] = f.value
					}
					return a.out.value(map[string]any{"seconds": took.Seconds(), "capabilities": all})
				}
				rows := [][]string{}
				for _, f := range caps {
					if !f.zero {
						rows = append(rows, []string{f.name, fmt.Sprint(f.value)})
					}
				}
				return a.out.write(a.out.paint(green, "it answers") + " in " + round(took).String() + "\n\n" + a.out.tableText([]string{"it can", ""}, rows))
			})
		},
	}
}

type field struct {
	name  string
	value any
	zero  bool
}

// capabilities are the fields of c as JSON and people can have them.
func capabilities(c pubsub.Capabilities) []field {
	var all []field
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		f := field{name: v.Type().Field(i).Name, value: v.Field(i).Interface(), zero: v.Field(i).IsZero()}
		switch x := f.value.(type) {
		case time.Duration:
			f.value = x.String()
			if x == pubsub.Forever {
				f.value = "forever"
			}
		case fmt.Stringer:
			f.value = x.String()
		}
		all = append(all, f)
	}
	return all
}
