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

// A running is a replay that has not ended, in JSON.
type running struct {
	Plan    string    `json:"plan"`
	By      string    `json:"by"`
	Why     string    `json:"why,omitempty"`
	Started time.Time `json:"started"`
	Seen    time.Time `json:"seen"`
	Total   int       `json:"total"`
	Done    int       `json:"done"`
	Failed  int       `json:"failed"`
	Paused  bool      `json:"paused,omitempty"`
	Cancel  bool      `json:"cancel,omitempty"`
}

func (a *app) dlqReplaysCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "replays TOPIC GROUP",
		Short: "List replays that have not ended, of all processes",
		Long: `replays lists those that have begun and not said that they have ended. One whose process was killed looks like one that runs, but that it was last
seen long ago: who runs says something every ten seconds.`,
		Example: "  omnibus dlq replays orders billing",
		Args:    args(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.letters(c, args, func(ctx context.Context, q *dlq.Queue) error {
				all, err := q.Running(ctx)
				if err != nil {
					return err
				}
				var rows [][]string
				for _, r := range all {
					if a.out.json {
						if err := a.out.value(running(r)); err != nil {
							return err
						}
					}
					asked := ""
					switch {
					case r.Cancel:
						asked = "to cancel"
					case r.Paused:
						asked = "to pause"
					}
					rows = append(rows, []string{printable(r.Plan, false), printable(r.By, false), when(known(r.Started)), round(a.now().Sub(r.Seen)).String() + " ago",
						fmt.Sprintf("%d of %d", r.Done, r.Total), strconv.Itoa(r.Failed), asked, printable(r.Why, false)})
				}
				if a.out.json {
					return nil
				}
				return a.out.table([]string{"plan", "by", "started", "seen", "done", "failed", "asked", "why"}, rows)
			})
		},
	}
}

func (a *app) dlqControlCommand(name, text string, do func(*dlq.Queue, context.Context, string, dlq.Note) error) *cobra.Command {
	var n dlq.Note
	c := &cobra.Command{
		Use:   name + " TOPIC GROUP PLAN",
		Short: text,
		Long:  name + " asks the process that runs the plan, wherever it is; it looks about once a second. A plan that does not run is not found.",
		Args:  args(3, 3),
		RunE: func(c *cobra.Command, args []string) error {
			return a.letters(c, args[:2], func(ctx context.Context, q *dlq.Queue) error {
				if err := do(q, ctx, args[2], n); err != nil {
					return err
				}
				return a.done("asked", 1, "plan "+args[2]+" is asked to "+name)
			})
		},
	}
	c.Flags().StringVar(&n.Why, "why", "", "for the audit record")
	return c
}

// done says how many of something were done.
func (a *app) done(what string, n int, sentence string) error {
	if a.out.json {
		return a.out.value(map[string]int{what: n})
	}
	return a.out.write(printable(sentence, false) + "\n")
}

// outcomes are what became of what a plan has replayed.
type outcomes struct {
	Pending     int `json:"pending"`
	Resolved    int `json:"resolved"`
	FailedAgain int `json:"failed_again"`
}

func (a *app) dlqOutcomesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "outcomes TOPIC GROUP PLAN",
		Short: "Tell what the handlers made of what a plan has replayed",
		Long:  `outcomes counts what is pending, what the handler has succeeded on, and what has failed again. It exits with 3 when any has failed again.`,
		Args:  args(3, 3),
		RunE: func(c *cobra.Command, args []string) error {
			return a.letters(c, args[:2], func(ctx context.Context, q *dlq.Queue) error {
				o, err := q.Outcomes(ctx, args[2])
				if err != nil {
					return err
				}
				if a.out.json {
					err = a.out.value(outcomes(o))
				} else {
					err = a.out.printf("%d resolved, %d pending, %d failed again\n", o.Resolved, o.Pending, o.FailedAgain)
				}
				if err == nil && o.FailedAgain > 0 {
					err = &foundError{fmt.Sprintf("%d messages have failed again", o.FailedAgain)}
				}
				return err
			})
		},
	}
}

func (a *app) dlqMarkCommand() *cobra.Command {
	var n dlq.Note
	c := &cobra.Command{
		Use:     "mark TOPIC GROUP FINGERPRINT STATUS",
		Short:   "Say how far somebody has come with a group of dead letters",
		Long:    `mark gives the dead letters of one fingerprint a status: open, acknowledged, resolved or ignored. The dead letters stay as they are.`,
		Example: "  omnibus dlq mark orders billing FINGERPRINT acknowledged --why 'the partner is down'",
		Args:    args(4, 4),
		RunE: func(c *cobra.Command, args []string) error {
			status := dlq.GroupStatus(args[3])
			switch status {
			case dlq.GroupOpen, dlq.GroupAcknowledged, dlq.GroupResolved, dlq.GroupIgnored:
			default:
				return usageOf(c, errors.New("a status is open, acknowledged, resolved or ignored"))
			}
			return a.letters(c, args[:2], func(ctx context.Context, q *dlq.Queue) error {
				if err := q.SetGroup(ctx, args[2], status, n); err != nil {
					return err
				}
				return a.done("marked", 1, args[2]+" is "+args[3])
			})
		},
	}
	c.Flags().StringVar(&n.Why, "why", "", "a note, also for the audit record")
	return c
}

func (a *app) dlqExportCommand() *cobra.Command {
	var f filterFlags
	c := &cobra.Command{
		Use:   "export TOPIC [GROUP]",
		Short: "Write dead letters as JSON lines, byte for byte",
		Long: `export writes a line for each dead letter as it lies there, with every byte. Nothing of it is encrypted, and nothing is left out. import reads it, on
the same or another broker.`,
		Example: "  omnibus dlq export orders billing > letters.jsonl",
		Args:    args(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			filter, err := f.read(a)
			if err != nil {
				return usageOf(c, err)
			}
			return a.letters(c, args, func(ctx context.Context, q *dlq.Queue) error {
				n, err := q.Export(ctx, writer(func(line []byte) error { return a.out.write(string(harmless(line))) }), filter)
				if err == nil && a.out.progressing {
					a.out.notef("%d dead letters", n)
				}
				return err
			})
		},
	}
	f.add(c)
	return c
}

// A writer writes one line of text each time.
type writer func(line []byte) error

func (w writer) Write(p []byte) (int, error) {
	if err := w(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// An imported is what became of an import, in JSON.
type imported struct {
	Stored  int           `json:"stored"`
	There   int           `json:"there"`
	Invalid []invalidLine `json:"invalid,omitempty"`
}

type invalidLine struct {
	Line  int    `json:"line"`
	Error string `json:"error"`
}

func (a *app) dlqImportCommand() *cobra.Command {
	var n dlq.Note
	c := &cobra.Command{
		Use:   "import TOPIC [GROUP]",
		Short: "Add what export has written to dead letters",
		Long: `import reads standard input, and ends once the broker has confirmed all of it. What is there already is passed over, so it can be run again. A line
that cannot be read or stored does not stop the rest; then it exits with 3.`,
		Example: "  omnibus dlq import orders billing < letters.jsonl",
		Args:    args(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.letters(c, args, func(ctx context.Context, q *dlq.Queue) error {
				got, err := q.Import(ctx, a.in, n)
				said := imported{Stored: got.Stored, There: got.There}
				for _, l := range got.Invalid {
					said.Invalid = append(said.Invalid, invalidLine{l.Line, strings.ReplaceAll(describe(l.Err).Message, "\n", ": ")})
				}
				if a.out.json {
					err = errors.Join(err, a.out.value(said))
				} else {
					a.out.sayf("%d stored, %d were there already\n", said.Stored, said.There)
					for _, l := range said.Invalid {
						a.out.notef("line %d: %s", l.Line, printable(l.Error, false))
					}
				}
				if err == nil && len(said.Invalid) > 0 {
					err = &foundError{counted(len(said.Invalid), "line") + " cannot be read or stored"}
				}
				return err
			})
		},
	}
	c.Flags().StringVar(&n.Why, "why", "", "for the audit record")
	return c
}

func (a *app) dlqDiscardCommand() *cobra.Command {
	return a.dlqEachCommand("discard", "Let dead letters count as done with",
		"discard lets the selected dead letters count as done with: no replay selects them any more. They stay until their retention is over, and restore takes it back.",
		"  omnibus dlq discard orders billing --key bob --why 'a test account'", "discarded", (*dlq.Queue).Discard)
}

func (a *app) dlqRestoreCommand() *cobra.Command {
	return a.dlqEachCommand("restore", "Take a discard back",
		"restore takes a discard back, of the selected dead letters that are discarded. Each has the state again that it had.",
		"  omnibus dlq restore orders billing --all", "restored", (*dlq.Queue).Restore)
}

func (a *app) dlqEachCommand(name, text, long, example, past string, do func(*dlq.Queue, context.Context, dlq.Filter, dlq.Note) (int, error)) *cobra.Command {
	var f filterFlags
	var n dlq.Note
	all := false
	c := &cobra.Command{
		Use:     name + " TOPIC GROUP",
		Short:   text,
		Long:    long + " What is meant is to be said: by flags that select, or by --all.",
		Example: example,
		Args:    args(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			filter, err := f.read(a)
			if err == nil && f.empty() != all {
				err = errors.New("say which: by a flag that selects, or by --all")
			}
			if err != nil {
				return usageOf(c, err)
			}
			return a.letters(c, args, func(ctx context.Context, q *dlq.Queue) error {
				count, err := do(q, ctx, filter, n)
				if err != nil {
					return err
				}
				return a.done(past, count, fmt.Sprintf("%d %s", count, past))
			})
		},
	}
	f.add(c)
	c.Flags().BoolVar(&all, "all", false, "all of them")
	c.Flags().StringVar(&n.Why, "why", "", "for the audit record")
	return c
}

// An entry is an audit record in JSON.
type entry struct {
	ID        string          `json:"id"`
	Operation dlq.Operation   `json:"operation"`
	At        time.Time       `json:"at"`
	By        text            `json:"by,omitempty"`
	Why       text            `json:"why,omitempty"`
	IDs       []string        `json:"ids,omitempty"`
	Messages  []string        `json:"messages,omitempty"`
	Plan      string          `json:"plan,omitempty"`
	Group     text            `json:"group,omitempty"`
	Status    dlq.GroupStatus `json:"status,omitempty"`
	Total     int             `json:"total,omitempty"`
	Done      int             `json:"done,omitempty"`
	Failed    int             `json:"failed,omitempty"`
	Text      text            `json:"text,omitempty"`
}

func (a *app) dlqAuditCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "audit TOPIC GROUP",
		Short:   "Tell what was done to the dead letters, and by whom",
		Long:    `audit lists what was done, the oldest first, and what the engine has told: a resolved entry is a handler's success on a replay.`,
		Example: "  omnibus dlq audit orders billing\n  omnibus dlq audit orders billing --json",
		Args:    args(2, 2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.letters(c, args, func(ctx context.Context, q *dlq.Queue) error {
				var rows [][]string
				for e, err := range q.Audit(ctx) {
					if err != nil {
						return err
					}
					l := entry{e.ID, e.Operation, e.At.UTC(), text(e.By), text(e.Why), e.IDs, e.Messages, e.Plan, text(e.Group), e.Status, e.Total, e.Done, e.Failed, text(e.Text)}
					if a.out.json {
						if err := a.out.value(l); err != nil {
							return err
						}
						continue
					}
					rows = append(rows, []string{when(&l.At), short(text(l.Operation), 40), short(l.By, 40), l.what(), short(l.Why, 60)})
				}
				if a.out.json {
					return nil
				}
				return a.out.table([]string{"at", "what", "by", "of", "why"}, rows)
			})
		},
	}
}

// what is what an entry is about, in a few words.
func (e *entry) what() string {
	var parts []string
	add := func(is bool, s string) {
		if is {
			parts = append(parts, s)
		}
	}
	add(len(e.IDs) == 1, printable(strings.Join(e.IDs, ""), false))
	add(len(e.IDs) > 1, fmt.Sprintf("%d dead letters", len(e.IDs)))
	add(len(e.IDs) == 0 && len(e.Messages) > 0, counted(len(e.Messages), "message"))
	add(e.Plan != "", "plan "+printable(e.Plan, false))
	add(e.Group != "", short(e.Group, 40)+" "+short(text(e.Status), 40))
	add(e.Done+e.Failed > 0, fmt.Sprintf("%d done, %d failed", e.Done, e.Failed))
	add(e.Text != "", short(e.Text, 60))
	return strings.Join(parts, ", ")
}
