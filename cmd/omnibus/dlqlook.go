package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/dlq"
)

func (a *app) dlqListCommand() *cobra.Command {
	var f filterFlags
	var count int
	c := &cobra.Command{
		Use:   "list TOPIC [GROUP]",
		Short: "List dead letters, the oldest first",
		Long:  `list takes nothing away and counts nothing. What cannot be read is listed raw.`,
		Example: `  omnibus dlq list orders billing
  omnibus dlq list orders billing --since 24h --reason max-attempts --json`,
		Args: args(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			filter, err := f.read(a)
			if err != nil {
				return usageOf(c, err)
			}
			return a.letters(c, args, func(ctx context.Context, q *dlq.Queue) error {
				var rows [][]string
				n := 0
				for r, err := range q.List(ctx, filter) {
					if err != nil {
						return err
					}
					l := letterOf(r)
					if a.out.json {
						if err := a.out.value(l); err != nil {
							return err
						}
					} else {
						rows = append(rows, l.row())
					}
					if n++; n == count {
						break
					}
				}
				if a.out.json {
					return nil
				}
				return a.out.table(letterHead(), rows)
			})
		},
	}
	f.add(c)
	c.Flags().IntVarP(&count, "count", "n", 0, "end after so many; 0 = no bound")
	return c
}

// A letterGroup is dead letters of one kind in JSON.
type letterGroup struct {
	Fingerprint text              `json:"fingerprint"`
	Count       int               `json:"count"`
	States      map[dlq.State]int `json:"states"`
	First       *time.Time        `json:"first,omitempty"`
	Last        *time.Time        `json:"last,omitempty"`
	Reason      text              `json:"reason,omitempty"`
	Category    text              `json:"category,omitempty"`
	ErrorType   text              `json:"error_type,omitempty"`
	Error       text              `json:"error,omitempty"`
	Status      dlq.GroupStatus   `json:"status,omitempty"`
	StatusBy    string            `json:"status_by,omitempty"`
	Note        string            `json:"note,omitempty"`
	Reopened    bool              `json:"reopened,omitempty"`
	Sample      text              `json:"sample"` // the ID of the latest
}

func (a *app) dlqGroupsCommand() *cobra.Command {
	var f filterFlags
	c := &cobra.Command{
		Use:   "groups TOPIC [GROUP]",
		Short: "Count dead letters by the kind of their failure, the largest group first",
		Long: `groups counts by fingerprint: the category, the types of the error and the place of its origin, never its text. Each group has a status that mark
gives it: open, acknowledged, resolved or ignored. A resolved group is open again when it recurs.`,
		Example: "  omnibus dlq groups orders billing\n  omnibus dlq groups orders billing --state open --json",
		Args:    args(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			filter, err := f.read(a)
			if err != nil {
				return usageOf(c, err)
			}
			return a.letters(c, args, func(ctx context.Context, q *dlq.Queue) error {
				groups, err := q.Groups(ctx, filter)
				if err != nil {
					return err
				}
				var rows [][]string
				for _, g := range groups {
					l := letterGroup{text(g.Fingerprint), g.Count, g.States, known(g.First), known(g.Last), text(g.Reason), text(g.Category), text(g.ErrorType),
						text(g.Error), g.Status, g.StatusBy, g.Note, g.Reopened, text(g.Sample.ID)}
					if a.out.json {
						if err := a.out.value(l); err != nil {
							return err
						}
					}
					status := printable(string(l.Status), false)
					if l.Reopened {
						status += ", again"
					}
					rows = append(rows, []string{short(l.Fingerprint, 40), strconv.Itoa(l.Count), strconv.Itoa(l.States[dlq.StateOpen]), status, when(l.First), when(l.Last),
						short(l.Reason, 16), short(l.ErrorType, 30), short(l.Error, 60)})
				}
				if a.out.json {
					return nil
				}
				return a.out.table([]string{"fingerprint", "count", "open", "status", "first", "last", "reason", "error type", "error"}, rows)
			})
		},
	}
	f.add(c)
	return c
}

func (a *app) dlqShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show TOPIC [GROUP] ID",
		Short:   "Show all of one dead letter",
		Long:    `show tells why the message was given up, what its attempts said, what became of it, and the message as it was.`,
		Example: "  omnibus dlq show orders billing DEADLETTER\n  omnibus dlq show orders billing DEADLETTER --json",
		Args:    args(2, 3),
		RunE: func(c *cobra.Command, args []string) error {
			last := len(args) - 1
			return a.letters(c, args[:last], func(ctx context.Context, q *dlq.Queue) error {
				r, err := q.Show(ctx, args[last])
				if err != nil {
					return err
				}
				l := letterOf(r)
				if a.out.json {
					return a.out.value(l)
				}
				return a.out.write(l.pretty(a.out))
			})
		},
	}
}

func (a *app) dlqWatchCommand() *cobra.Command {
	var f filterFlags
	every, all := 2*time.Second, false
	c := &cobra.Command{
		Use:   "watch TOPIC [GROUP]",
		Short: "Tell of dead letters as they come, until an interrupt",
		Long:  `watch lists what is there after it began, or with --all everything, and looks again every --every. It reads all dead letters each time.`,
		Args:  args(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			filter, err := f.read(a)
			if err == nil && every <= 0 {
				err = errors.New("--every is to be more than 0")
			}
			if err != nil {
				return usageOf(c, err)
			}
			return a.letters(c, args, func(ctx context.Context, q *dlq.Queue) error {
				return a.watchLetters(ctx, q, filter, every, all)
			})
		},
	}
	f.add(c)
	c.Flags().DurationVar(&every, "every", every, "how often to look")
	c.Flags().BoolVar(&all, "all", false, "begin with those that are there")
	return c
}

func (a *app) watchLetters(ctx context.Context, q *dlq.Queue, filter dlq.Filter, every time.Duration, show bool) error {
	seen := map[string]struct{}{}
	return again(ctx, every, func() error {
		for r, err := range q.List(ctx, filter) {
			if err != nil {
				return err
			}
			if _, known := seen[r.ID]; known {
				continue
			}
			seen[r.ID] = struct{}{}
			if !show {
				continue
			}
			l := letterOf(r)
			if a.out.json {
				err = a.out.value(l)
			} else {
				row := l.row()
				err = a.out.printf("%s %s %s %s: %s\n", row[2], a.out.paint(bold, row[0]), a.out.paint(red, row[5]), short(l.Group, 40), row[6])
			}
			if err != nil {
				return err
			}
		}
		show = true
		return nil
	})
}
