package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/pubsub"
)

func (a *app) dlqCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "dlq",
		Short: "Look into dead letters, and send them again",
		Long: `dlq works on the dead letters of a group, TOPIC GROUP, or on a topic that dead letters are sent to, TOPIC alone. Looking takes nothing away. TOPIC is
that of the subscription, also where it is a pattern.

Replayed is not solved: a dead letter is open, then pending once it was replayed, then resolved when the group's handler succeeds, or failed-again.
What becomes of those in a topic nobody keeps, so that their state is unknown.`,
		Args: a.noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.dlqListCommand(), a.dlqGroupsCommand(), a.dlqShowCommand(), a.dlqWatchCommand(),
		a.dlqReplayCommand(), a.dlqResumeCommand(), a.dlqReplaysCommand(), a.dlqOutcomesCommand(),
		a.dlqControlCommand("pause", "Ask a running replay to send nothing for a while", (*dlq.Queue).PauseReplay),
		a.dlqControlCommand("continue", "Let a paused replay go on", (*dlq.Queue).ResumeReplay),
		a.dlqControlCommand("cancel", "Ask a running replay to end", (*dlq.Queue).CancelReplay),
		a.dlqWaitingCommand(), a.dlqRetryNowCommand(), a.dlqDeadLetterNowCommand(),
		a.dlqMarkCommand(), a.dlqExportCommand(), a.dlqImportCommand(), a.dlqDiscardCommand(), a.dlqRestoreCommand(), a.dlqAuditCommand())
	for _, sub := range c.Commands() {
		a.completing(sub, false)
	}
	return c
}

// letters opens the dead letters that the first arguments name, for the time of f.
func (a *app) letters(c *cobra.Command, args []string, f func(ctx context.Context, q *dlq.Queue) error) error {
	return a.opened(c, nil, func(ctx context.Context, b *pubsub.Broker) error {
		if len(args) == 1 {
			return f(ctx, dlq.OpenTopic(b, args[0]))
		}
		return f(ctx, dlq.Open(b, args[0], args[1]))
	})
}

// A filterFlags is dlq.Filter as flags.
type filterFlags struct {
	filter        dlq.Filter
	headers       []string
	since, before string
	states        []string
}

func (f *filterFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringArrayVar(&f.filter.IDs, "id", nil, "this dead letter; may be repeated")
	fs.StringVar(&f.filter.Topic, "failed-topic", "", "that failed in this topic")
	fs.StringVar(&f.filter.Group, "failed-group", "", "that failed in this group")
	fs.StringVar(&f.filter.Reason, "reason", "", "given up for this reason, such as max-attempts")
	fs.StringVar(&f.filter.Category, "category", "", "of the rule that the failure matched")
	fs.StringVar(&f.filter.ErrorType, "error-type", "", "with an error of this type")
	fs.StringVar(&f.filter.Fingerprint, "fingerprint", "", "of this kind, see groups")
	fs.StringVar(&f.filter.Error, "error", "", "whose error has this text in it")
	fs.StringVar(&f.filter.Type, "type", "", "of messages of this type")
	fs.StringVar(&f.filter.Key, "key", "", "of messages with this key")
	fs.StringArrayVarP(&f.headers, "header", "H", nil, "of messages with this header, name=value; may be repeated")
	fs.StringVar(&f.since, "since", "", "not before this time, or so long ago: 2026-01-31T12:00:00Z, 90m")
	fs.StringVar(&f.before, "before", "", "before this time, or longer ago")
	fs.StringSliceVar(&f.states, "state", nil, "with one of these states: "+strings.Join(stateNames(), ", "))
}

func stateNames() []string {
	return []string{string(dlq.StateOpen), string(dlq.StatePending), string(dlq.StateResolved), string(dlq.StateFailedAgain), string(dlq.StateDiscarded)}
}

// read is what the flags select.
func (f *filterFlags) read(a *app) (out dlq.Filter, err error) {
	out = f.filter
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok {
			return out, errors.New("a --header is name=value")
		}
		if out.Header == nil {
			out.Header = map[string]string{}
		}
		out.Header[name] = value
	}
	for _, t := range []struct {
		flag, text string
		to         *time.Time
	}{{"--since", f.since, &out.Since}, {"--before", f.before, &out.Before}} {
		if t.text == "" {
			continue
		}
		if *t.to, err = a.parseTime(t.text); err != nil {
			return out, fmt.Errorf("%s %w", t.flag, err)
		}
	}
	for _, s := range f.states {
		if !slices.Contains(stateNames(), s) {
			return out, fmt.Errorf("there is no state %q: they are %s", s, strings.Join(stateNames(), ", "))
		}
		out.States = append(out.States, dlq.State(s))
	}
	return out, nil
}

// empty says that the flags select everything.
func (f *filterFlags) empty() bool {
	x := f.filter
	return len(x.IDs)+len(f.headers)+len(f.states) == 0 &&
		x.Topic+x.Group+x.Reason+x.Category+x.ErrorType+x.Fingerprint+x.Error+x.Type+x.Key+f.since+f.before == ""
}

// parseTime reads a time, or a span back from now.
func (a *app) parseTime(s string) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return a.now().Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is neither a time such as 2026-01-31T12:00:00Z nor a span back such as 90m", s)
}

// A letter is a dead letter in JSON.
type letter struct {
	ID             text          `json:"id"`
	State          dlq.State     `json:"state,omitempty"`
	StateSince     *time.Time    `json:"state_since,omitempty"`
	StateBy        string        `json:"state_by,omitempty"`
	StateWhy       string        `json:"state_why,omitempty"`
	Position       string        `json:"position,omitempty"`
	Topic          text          `json:"topic,omitempty"`
	Group          text          `json:"group,omitempty"`
	SourcePosition text          `json:"source_position,omitempty"`
	AtSource       bool          `json:"at_source,omitempty"`
	Broker         text          `json:"broker,omitempty"`
	Format         dlq.Format    `json:"format"` // whose headers it has; "" = none that are known
	Reason         text          `json:"reason,omitempty"`
	Category       text          `json:"category,omitempty"`
	Policy         text          `json:"policy,omitempty"`
	Error          text          `json:"error,omitempty"`
	ErrorType      text          `json:"error_type,omitempty"`
	Fingerprint    text          `json:"fingerprint,omitempty"`
	Stack          text          `json:"stack,omitempty"`
	Attempts       int           `json:"attempts,omitempty"`
	History        []dlq.Attempt `json:"history,omitempty"`
	FirstFailed    *time.Time    `json:"first_failed,omitempty"`
	LastFailed     *time.Time    `json:"last_failed,omitempty"`
	Service        text          `json:"service,omitempty"`
	Host           text          `json:"host,omitempty"`
	Version        text          `json:"version,omitempty"`
	Trace          text          `json:"trace,omitempty"`
	Replays        int           `json:"replays,omitempty"`
	ReplayOf       text          `json:"replay_of,omitempty"`
	Bad            string        `json:"bad,omitempty"` // what of it cannot be read
	Message        message       `json:"message"`       // as it was before it was given up
}

func letterOf(r dlq.Record) letter {
	l := letter{
		ID: text(r.ID), State: r.State, StateSince: known(r.StateSince), StateBy: r.StateBy, StateWhy: r.StateWhy, Position: r.Position.String(),
		Topic: text(r.Topic), Group: text(r.Group), SourcePosition: text(r.SourcePosition), AtSource: r.AtSource, Broker: text(r.Broker), Format: r.Format,
		Reason: text(r.Reason), Category: text(r.Category), Policy: text(r.Policy), Error: text(r.Error), ErrorType: text(r.ErrorType), Fingerprint: text(r.Fingerprint),
		Stack: text(r.Stack), Attempts: r.Attempts, History: r.History, FirstFailed: known(r.FirstFailed), LastFailed: known(r.LastFailed),
		Service: text(r.Service), Host: text(r.Host), Version: text(r.Version), Trace: text(r.Trace), Replays: r.Replays, ReplayOf: text(r.ReplayOf),
		Message: messageOf("", &r.Message),
	}
	if r.Bad != nil {
		l.Bad = r.Bad.Error()
	}
	return l
}

// known is a time that is not zero.
func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// when is a time for people.
func when(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format("2006-01-02T15:04:05Z")
}

// short is one line of at most n characters.
func short(s text, n int) string {
	line := []rune(printable(string(s), false))
	if len(line) > n {
		return string(line[:n-1]) + "…"
	}
	return string(line)
}

// row is a dead letter in a table, under letterHead.
func (l *letter) row() []string {
	failed := l.LastFailed
	if failed == nil {
		failed = l.FirstFailed
	}
	return []string{short(l.ID, 40), string(l.State), when(failed), short(l.Message.Key, 20), short(l.Message.Type, 24), short(l.Reason, 16), short(l.Error, 60)}
}

func letterHead() []string {
	return []string{"id", "state", "failed", "key", "type", "reason", "error"}
}

// pretty writes all that is known of a dead letter.
func (l *letter) pretty(o *output) string {
	var b strings.Builder
	line := func(name, value string) {
		if value != "" && value != "-" {
			fmt.Fprintf(&b, "%s %s\n", o.paint(dim, fmt.Sprintf("%-13s", name)), strings.ReplaceAll(strings.TrimSuffix(printable(value, true), "\n"), "\n", "\n              "))
		}
	}
	line("id", string(l.ID))
	line("state", strings.TrimSpace(string(l.State)+" "+l.StateBy+" "+l.StateWhy))
	line("failed in", strings.TrimSpace(string(l.Topic)+" "+string(l.Group)+" at "+string(l.SourcePosition)))
	line("reason", string(l.Reason))
	line("category", string(l.Category))
	line("policy", string(l.Policy))
	line("error", string(l.Error))
	line("error type", string(l.ErrorType))
	line("fingerprint", string(l.Fingerprint))
	if l.Attempts > 0 {
		line("attempts", strconv.Itoa(l.Attempts))
	}
	line("first failed", when(l.FirstFailed))
	line("last failed", when(l.LastFailed))
	for _, h := range l.History {
		line(fmt.Sprintf("  attempt %d", h.Number), h.At.UTC().Format("2006-01-02T15:04:05Z")+" "+h.ErrorType+": "+h.Error)
	}
	line("service", strings.TrimSpace(string(l.Service)+" "+string(l.Version)+" on "+string(l.Host)))
	line("trace", string(l.Trace))
	if l.Replays > 0 {
		line("replays", fmt.Sprintf("%d, of %s", l.Replays, l.ReplayOf))
	}
	line("stack", string(l.Stack))
	line("unreadable", l.Bad)
	if l.AtSource {
		line("message", "too large for this place: it is still with its group")
	}
	return b.String() + "\n" + o.pretty(l.Message)
}
