package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/dlq"
)

// A waiting is a retry that waits at the broker, in JSON.
type waiting struct {
	ID      text      `json:"id"` // for retry-now and dead-letter-now
	Due     time.Time `json:"due"`
	Attempt int       `json:"attempt"` // the next one
	Message message   `json:"message"`
}

// addWaiting adds what selects retries that wait.
func addWaiting(c *cobra.Command, f *dlq.WaitingFilter) {
	fs := c.Flags()
	fs.StringVar(&f.Type, "type", "", "of messages of this type")
	fs.StringVar(&f.Key, "key", "", "of messages with this key")
}

func (a *app) dlqWaitingCommand() *cobra.Command {
	var f dlq.WaitingFilter
	var count int
	c := &cobra.Command{
		Use:   "waiting TOPIC GROUP",
		Short: "List messages that wait at the broker for their retry",
		Long: `waiting lists what has failed, and is retried when it is due; it is no dead letter. What a member holds in its process until the retry, as an order by key
demands, is not listed. The broker must be able to, see Waiting of omnibus ping: listed or managed.`,
		Example: "  omnibus dlq waiting orders billing\n  omnibus dlq waiting orders billing --key alice --json",
		Args:    args(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.letters(c, args, func(ctx context.Context, q *dlq.Queue) error {
				var rows [][]string
				n := 0
				for w, err := range q.Waiting(ctx, f) {
					if err != nil {
						return err
					}
					l := waiting{text(w.ID), w.Due.UTC(), w.Attempt, messageOf(w.Topic, &w.Message)}
					if a.out.json {
						if err := a.out.value(l); err != nil {
							return err
						}
					}
					rows = append(rows, []string{printable(string(l.ID), false), when(&l.Due), strconv.Itoa(l.Attempt), short(l.Message.Key, 20), short(l.Message.Type, 24), short(l.Message.ID, 40)})
					if n++; n == count {
						break
					}
				}
				if a.out.json {
					return nil
				}
				return a.out.table([]string{"id", "due", "attempt", "key", "type", "message"}, rows)
			})
		},
	}
	addWaiting(c, &f)
	c.Flags().IntVarP(&count, "count", "n", 0, "end after so many; 0 = no bound")
	return c
}

func (a *app) dlqRetryNowCommand() *cobra.Command {
	return a.dlqReleaseCommand("retry-now", "Let messages that wait for their retry be retried at once",
		"retry-now lets the group have messages at once that waiting lists. One whose retry comes meanwhile is left alone, and on NATS one that is due within 2 s.",
		"  omnibus dlq retry-now orders billing --all --why 'the gateway is back'", "retried", (*dlq.Queue).RetryNow)
}

func (a *app) dlqDeadLetterNowCommand() *cobra.Command {
	return a.dlqReleaseCommand("dead-letter-now", "Give up messages that wait for their retry",
		`dead-letter-now makes dead letters of the group of messages that waiting lists, with the reason operator. Each is stored and confirmed before its retry is
removed. One whose retry comes meanwhile is left alone, and on NATS one that is due within 2 s.`,
		"  omnibus dlq dead-letter-now orders billing --key bob --why 'a test account'", "dead-lettered", (*dlq.Queue).DeadLetterNow)
}

func (a *app) dlqReleaseCommand(name, text, long, example, past string,
	do func(*dlq.Queue, context.Context, dlq.WaitingFilter, dlq.Note) (dlq.Released, error)) *cobra.Command {
	var f dlq.WaitingFilter
	var n dlq.Note
	all := false
	c := &cobra.Command{
		Use:     name + " TOPIC GROUP [ID]...",
		Short:   text,
		Long:    long + " What is meant is to be said: by the IDs that waiting shows, by flags that select, or by --all. Waiting of omnibus ping must be managed.",
		Example: example,
		Args:    args(2, -1),
		RunE: func(c *cobra.Command, args []string) error {
			f.IDs = args[2:]
			if (len(f.IDs) == 0 && f.Type+f.Key == "") != all {
				return usageOf(c, errors.New("say which: by IDs, by a flag that selects, or by --all"))
			}
			return a.letters(c, args[:2], func(ctx context.Context, q *dlq.Queue) error {
				got, err := do(q, ctx, f, n)
				if err != nil {
					return err
				}
				if a.out.json {
					return a.out.value(map[string]int{strings.ReplaceAll(past, "-", "_"): got.Done, "gone": got.Gone})
				}
				line := fmt.Sprintf("%d %s", got.Done, past)
				if got.Gone > 0 {
					line += fmt.Sprintf(", %d did not wait any more", got.Gone)
				}
				if err := a.out.write(line + "\n"); err != nil {
					return err
				}
				if known := got.Done + got.Gone; known < len(f.IDs) {
					a.out.notef("%d of the IDs wait for no retry, or not for one of this type and key: waiting lists what does", len(f.IDs)-known)
				}
				return nil
			})
		},
	}
	addWaiting(c, &f)
	c.Flags().BoolVar(&all, "all", false, "all of them")
	c.Flags().StringVar(&n.Why, "why", "", "for the audit record")
	return c
}
