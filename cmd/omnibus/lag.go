package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/pubsub"
)

type lagFlags struct {
	watch bool
	every time.Duration
	max   int64
}

func (a *app) lagCommand() *cobra.Command {
	f := lagFlags{}
	c := &cobra.Command{
		Use:   "lag [TOPIC GROUP]",
		Short: "Tell how far a group is behind",
		Long: `lag tells how many messages a group has not settled, all members together, and how old the oldest of them is. "exact" counts also what is with a
member, "partial" only what waits. Unknown is never 0. Without TOPIC and GROUP it tells it of all groups of the configuration.

With --max it exits with 3 when the lag is above that, or is not known. With --watch it goes on until an interrupt; on a terminal in place, elsewhere a
line each time.`,
		Example: `  omnibus lag
  omnibus lag orders billing
  omnibus lag orders billing --max 1000 --json`,
		Args: args(0, 2),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case f.every <= 0:
				return usageOf(c, errors.New("--every is to be more than 0"))
			case f.watch && f.max >= 0:
				return usageOf(c, errors.New("--watch and --max exclude each other"))
			}
			var groups []groupRef
			switch len(args) {
			case 2:
				groups = []groupRef{{args[0], args[1]}}
			case 1:
				return usageOf(c, errors.New("which group of the topic?"))
			default:
				t, err := a.topologyOfConfig()
				if err != nil {
					return err
				}
				for _, s := range t.Groups {
					groups = append(groups, groupRef{s.Topic, s.Group})
				}
			}
			if len(groups) == 0 {
				return needConfig(c, "which topic and group?")
			}
			return a.opened(c, nil, func(ctx context.Context, b *pubsub.Broker) error {
				if !f.watch {
					all, err := a.lags(ctx, b, groups)
					if err != nil {
						return err
					}
					return errors.Join(a.showLags(all), f.judge(all))
				}
				return a.watchLags(ctx, b, groups, f.every)
			})
		},
	}
	fs := c.Flags()
	fs.BoolVarP(&f.watch, "watch", "w", false, "go on until an interrupt")
	fs.DurationVar(&f.every, "every", 2*time.Second, "with --watch: how often to ask")
	fs.Int64Var(&f.max, "max", -1, "exit with 3 when the lag is above this; -1 = no bound")
	return c
}

// A lag is what lag says of a group.
type lag struct {
	groupRef
	At       time.Time  `json:"at"`
	Messages *int64     `json:"messages"` // null = unknown
	Kind     string     `json:"kind"`
	Oldest   *time.Time `json:"oldest,omitempty"` // when it was published
}

// lags asks for each group. One that the broker does not know ends it.
func (a *app) lags(ctx context.Context, b *pubsub.Broker, groups []groupRef) ([]lag, error) {
	ctx, cancel := a.within(ctx)
	defer cancel()
	all := make([]lag, 0, len(groups))
	for _, g := range groups {
		l, err := b.Lag(ctx, g.Topic, g.Group)
		if err != nil {
			return nil, err
		}
		one := lag{groupRef: g, At: a.now().UTC(), Kind: l.Kind.String()}
		if l.Kind != pubsub.LagUnknown {
			one.Messages = &l.Messages
		}
		if !l.Oldest.IsZero() {
			t := l.Oldest.UTC()
			one.Oldest = &t
		}
		all = append(all, one)
	}
	return all, nil
}

func (f lagFlags) judge(all []lag) error {
	var bad []string
	for _, l := range all {
		switch {
		case f.max < 0:
		case l.Messages == nil:
			bad = append(bad, fmt.Sprintf("the lag of %s on %s is not known", l.Group, l.Topic))
		case *l.Messages > f.max:
			bad = append(bad, fmt.Sprintf("%s on %s is %d messages behind, more than %d", l.Group, l.Topic, *l.Messages, f.max))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return &foundError{strings.Join(bad, "; ")}
}

func (a *app) showLags(all []lag) error {
	if a.out.json {
		for _, l := range all {
			if err := a.out.value(l); err != nil {
				return err
			}
		}
		return nil
	}
	return a.out.write(a.lagTable(all))
}

func (a *app) lagTable(all []lag) string {
	rows := make([][]string, 0, len(all))
	for _, l := range all {
		messages, oldest := "unknown", ""
		if l.Messages != nil {
			messages = strconv.FormatInt(*l.Messages, 10)
		}
		if l.Oldest != nil {
			oldest = round(l.At.Sub(*l.Oldest)).String() + " old"
		}
		rows = append(rows, []string{l.Topic, l.Group, messages, l.Kind, oldest})
	}
	return a.out.tableText([]string{"topic", "group", "behind", "known", "oldest"}, rows)
}

// watchLags shows the lags again and again until ctx ends, which is no error.
func (a *app) watchLags(ctx context.Context, b *pubsub.Broker, groups []groupRef, every time.Duration) error {
	up := ""
	return again(ctx, every, func() error {
		all, err := a.lags(ctx, b, groups)
		switch {
		case err != nil:
			return err
		case a.out.json:
			return a.showLags(all)
		case a.out.live:
			table := a.lagTable(all)
			err = a.out.write(up + strings.ReplaceAll(table, "\n", "\x1b[K\n"))
			up = fmt.Sprintf("\x1b[%dA", strings.Count(table, "\n"))
			return err
		}
		var text strings.Builder
		for _, l := range all {
			messages := "unknown"
			if l.Messages != nil {
				messages = strconv.FormatInt(*l.Messages, 10)
			}
			fmt.Fprintf(&text, "%s %s %s %s %s\n", l.At.Format(time.RFC3339), l.Topic, l.Group, messages, l.Kind)
		}
		return a.out.write(text.String())
	})
}
