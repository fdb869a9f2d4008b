package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/pubsub"
)

type replayFlags struct {
	filterFlags
	options dlq.Replay
	journal string
	plan    bool
	yes     bool
}

func (a *app) dlqReplayCommand() *cobra.Command {
	var f replayFlags
	c := &cobra.Command{
		Use:   "replay TOPIC [GROUP]",
		Short: "Send dead letters again, to the group that failed",
		Long: `replay selects dead letters, shows the plan, and sends exactly that once it is confirmed: with --yes, or on a terminal by answering. Each message goes
to the group that failed alone, byte for byte, or with --to to a topic, where every group gets it. Messages of one key keep their order. What is
pending, resolved or discarded is not selected unless --state names it.

With --canary so many go first, then ten times as many, then the rest; before each step it waits for what the handlers make of the one before, and
stops when more than --max-failed per cent fail again. With --dry-run nothing is sent.

A journal is written while it runs. Interrupted anywhere it loses nothing: dlq resume goes on. The journal is removed once it has gone through all
messages, but one that --journal names stays. It exits with 3 when a message could not be sent.`,
		Example: `  omnibus dlq replay orders billing --plan
  omnibus dlq replay orders billing --fingerprint FINGERPRINT --yes
  omnibus dlq replay orders billing --rate 100 --dry-run --json
  omnibus dlq replay orders billing --yes --json`,
		Args: args(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			filter, err := f.read(a)
			if err != nil {
				return usageOf(c, err)
			}
			return a.letters(c, args, func(ctx context.Context, q *dlq.Queue) error {
				j, err := newJournal(f.journal, a.now())
				if err != nil {
					return err
				}
				r := &replaying{a: a, q: q, f: &f, journal: j}
				plan, err := q.Plan(ctx, filter, r.options())
				if err != nil {
					return errors.Join(err, j.close(true))
				}
				if err := a.showPlan(plan, f); err != nil || f.plan || plan.Count == 0 {
					return errors.Join(err, j.close(true))
				}
				if !f.options.DryRun && !f.yes {
					if ok, err := a.confirm(ctx, "send "+counted(plan.Count, "message")+"? [y/N] "); !ok {
						return errors.Join(err, j.close(true))
					}
				}
				return r.run(ctx, plan, args)
			})
		},
	}
	f.filterFlags.add(c)
	f.add(c)
	fs := c.Flags()
	fs.StringVar(&f.options.Topic, "to", "", "send to this topic instead")
	fs.IntVar(&f.options.MaxReplays, "max-replays", 10, "leave out what was replayed so often; -1 = no bound")
	fs.BoolVar(&f.plan, "plan", false, "show the plan, and send nothing")
	fs.BoolVar(&f.options.DryRun, "dry-run", false, "send nothing, and say what could be sent")
	fs.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	return c
}

// add adds what replay and resume have in common.
func (f *replayFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.Float64Var(&f.options.Rate, "rate", 0, "messages a second; 0 = as fast as the broker confirms")
	fs.IntVar(&f.options.Canary.First, "canary", 0, "messages that go first; 0 = no canary")
	fs.IntVar(&f.options.Canary.Next, "canary-next", 0, "messages of the second step (default: ten times --canary)")
	fs.Float64Var(&f.options.Canary.MaxFailed, "max-failed", 0, "with --canary: per cent that may fail again")
	fs.DurationVar(&f.options.Canary.Within, "within", 0, "with --canary: how long the outcomes of a step may take (default: 1m)")
	fs.StringVar(&f.options.Turn, "turn", "", "topic in which processes take turns, so that one replays at a time")
	fs.StringVar(&f.options.Note.Why, "why", "", "for the audit record")
	if c.Name() == "replay" {
		fs.StringVar(&f.journal, "journal", "", "file that resume reads and that stays (default: omnibus-replay-TIME.journal, removed at the end)")
	}
}

func (a *app) dlqResumeCommand() *cobra.Command {
	var f replayFlags
	c := &cobra.Command{
		Use:   "resume TOPIC [GROUP] JOURNAL",
		Short: "Go on with a replay that was interrupted",
		Long: `resume reads the journal of a replay whose process has ended before its time, and sends what was not confirmed. Up to 256 messages were on their way
then: they are sent again with the same tokens, so that a broker with a window for duplicates stores them once. The journal stays. One process at a time writes to it: while the replay itself still runs, or
another resume, this is a conflict.`,
		Example: "  omnibus dlq resume orders billing replay.journal",
		Args:    args(2, 3),
		RunE: func(c *cobra.Command, args []string) error {
			last := len(args) - 1
			f.journal = args[last]
			return a.letters(c, args[:last], func(ctx context.Context, q *dlq.Queue) error {
				j, err := openJournal(f.journal)
				if err != nil {
					return err
				}
				r := &replaying{a: a, q: q, f: &f, journal: j}
				plan, err := q.Resume(ctx, j.file, r.options())
				if err != nil {
					return errors.Join(err, j.close(false))
				}
				return r.run(ctx, plan, args[:last])
			})
		},
	}
	f.add(c)
	return c
}

// A replaying is a replay that runs.
type replaying struct {
	a       *app
	q       *dlq.Queue
	f       *replayFlags
	journal *journal
	began   time.Time
}

func (r *replaying) options() dlq.Replay {
	o := r.f.options
	if !o.DryRun {
		o.Journal = r.journal
	}
	first := 0 // confirmed before this run
	o.Progress = func(done, total int) {
		if r.began.IsZero() {
			r.began, first = time.Now(), done-1
		}
		r.a.out.setProgress(done == total, func() string {
			return bar(done, total, time.Duration(float64(time.Since(r.began))*float64(done)/float64(max(done-first, 1))))
		})
	}
	return o
}

// A replayed is what came of a replay, in JSON.
type replayed struct {
	Plan     string    `json:"plan"`
	Total    int       `json:"total"`
	Replayed int       `json:"replayed"`
	Skipped  int       `json:"skipped"`
	Failed   int       `json:"failed"`
	DryRun   bool      `json:"dry_run,omitempty"`
	Failures []notSent `json:"failures,omitempty"`
	Journal  string    `json:"journal,omitempty"` // what resume goes on from
	Warning  string    `json:"warning,omitempty"`
}

type notSent struct {
	ID    text   `json:"id"`
	Error string `json:"error"`
}

// run sends what the plan has, and says what came of it.
func (r *replaying) run(ctx context.Context, plan *dlq.Plan, place []string) error {
	rep, err := plan.Run(ctx)
	r.a.out.endProgress()
	complete := err == nil
	if e := r.journal.close(complete && r.journal.own || r.f.options.DryRun); e != nil {
		err = errors.Join(err, e)
	}
	said := replayed{Plan: rep.Plan, Total: rep.Total, Replayed: rep.Replayed, Skipped: rep.Skipped, Failed: rep.Failed, DryRun: rep.DryRun}
	for _, x := range rep.Failures {
		said.Failures = append(said.Failures, notSent{text(x.ID), describe(x.Err).Message})
	}
	if rep.Untold != nil {
		said.Warning = rep.Untold.Error()
	}
	if !complete && r.journal.written {
		said.Journal = r.journal.path
	}
	if r.a.out.json {
		err = errors.Join(err, r.a.out.value(said))
	} else {
		r.tell(said)
		if said.Journal != "" {
			words := slices.Concat([]string{"omnibus", "dlq", "resume"}, place, []string{said.Journal})
			r.a.out.notef("nothing is lost; to go on: %s", printable(commandLine(words...), false))
		}
	}
	switch {
	case err == nil && rep.Failed > 0:
		return &foundError{fmt.Sprintf("%d of %d messages cannot be sent; they are dead letters as before", rep.Failed, rep.Total)}
	case err != nil && r.f.options.Canary.First > 0 && rep.Replayed > 0 && errors.Is(err, pubsub.ErrConflict):
		return &foundError{describe(err).Message}
	}
	return err
}

func (r *replaying) tell(said replayed) {
	verb := "replayed"
	if said.DryRun {
		verb = "could be replayed"
	}
	r.a.out.sayf("%d of %d %s, %d failed (plan %s)\n", said.Replayed, said.Total, verb, said.Failed, said.Plan)
	for _, x := range said.Failures {
		r.a.out.sayf("  %s: %s\n", short(x.ID, 60), printable(x.Error, false))
	}
	if said.Warning != "" {
		r.a.out.notef("%s: %s", paint(r.a.out.errColour, yellow, "not told"), printable(said.Warning, false))
	}
}

// A planned is a plan in JSON.
type planned struct {
	Plan    string   `json:"plan"`
	Count   int      `json:"count"`
	Skipped skipped  `json:"skipped"`
	Sample  []letter `json:"sample"`
}

type skipped struct {
	MaxReplays  int `json:"max_replays"`
	FailedAgain int `json:"failed_again"`
	AtSource    int `json:"at_source"`
	Settled     int `json:"settled"`
}

func (a *app) showPlan(p *dlq.Plan, f replayFlags) error {
	s := skipped(p.Skipped)
	if a.out.json {
		if !f.plan && p.Count > 0 {
			return nil // the report says it
		}
		out := planned{Plan: p.ID, Count: p.Count, Skipped: s, Sample: []letter{}}
		for _, r := range p.Sample {
			out.Sample = append(out.Sample, letterOf(r))
		}
		return a.out.value(out)
	}
	var left []string
	for _, x := range []struct {
		n    int
		what string
	}{
		{s.MaxReplays, "replayed too often already"}, {s.FailedAgain, "replayed, and here again as new dead letters"},
		{s.AtSource, "still with their group"}, {s.Settled, "pending, resolved or discarded"},
	} {
		if x.n > 0 {
			left = append(left, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	line := counted(p.Count, "message")
	if len(left) > 0 {
		line += "; left out: " + strings.Join(left, "; ")
	}
	if p.Count == 0 {
		return a.out.write(line + "\n")
	}
	var rows [][]string
	for _, r := range p.Sample {
		l := letterOf(r)
		rows = append(rows, l.row())
	}
	return a.out.write(line + ", such as\n" + a.out.tableText(letterHead(), rows))
}

// confirm asks on a terminal. Elsewhere nobody can answer.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	if !a.out.progressing || a.out.json {
		return false, usage(errors.New("nothing was sent: this is no terminal, and nobody can confirm it"), "--yes confirms it, --plan only shows it")
	}
	a.out.setProgress(true, func() string { return question })
	answer := make(chan string, 1)
	go func() { // left behind when ctx ends: a read cannot be interrupted
		line, _ := bufio.NewReader(a.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case s := <-answer:
		a.out.newline()
		if s == "y" || s == "yes" {
			return true, nil
		}
		return false, a.out.write("nothing was sent\n")
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}
