package middleware

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// LogOptions tunes LogWith. The zero value is Log's.
type LogOptions struct {
	Attrs  func(*pubsub.Delivery) []slog.Attr // more of a message, such as its key or a header; nil = nothing more
	Redact func(slog.Attr) slog.Attr          // sees each attribute, the error's text too; what it returns is logged, the zero Attr is left out; nil = all as they are
}

// Log writes one line for each run of the handler, and for what happens around it:
//
//	debug  handled
//	info   snoozed, paused, handed back; a failure marked Expected; a message whose time to live was over; reconnected
//	warn   failed (it will be retried, or is out of attempts); lease lost; a message that could not be published; disconnected
//	error  given up by the handler; stored as a dead letter
//
// A line has topic, group, id, type, attempt, took, and where there are such outcome, again (after how long), correlation and err. It never has
// payload, headers or key, which may be somebody's data; an error's text may be too: see Redact.
//
// Do not use it to count: an Observe is for that. Do not use a logger whose handler writes to this Broker, or blocks for long: it is
// called from within the engine. Lines at debug for each message are as expensive as the handler that makes them.
//
// A success that is not logged costs about 90 ns and no allocation. It is told of events, which costs the engine two readings of the clock a message.
func Log(l *slog.Logger) pubsub.Middleware { return LogWith(l, LogOptions{}) }

// LogWith is Log with options.
func LogWith(l *slog.Logger, opts LogOptions) pubsub.Middleware {
	m := pubsub.Middleware{
		Name: "log", After: []string{"correlate", "rate-limit", "concurrency"},
		Why: "its lines would not know the correlation, and the handler's time would be what it waits for its turn",
	}
	if l == nil {
		m.Err = errors.New("the logger is nil; leave the layer out")
		return m
	}
	w := &logger{l, opts}
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			start := time.Now()
			err := next(ctx, d)
			if level, what := judge(ctx, err); l.Enabled(ctx, level) {
				w.run(ctx, level, what, d, time.Since(start), err)
			}
			return err
		}
	}
	m.Observe = w.event
	return m
}

type logger struct {
	*slog.Logger
	opts LogOptions
}

// judge says in which words and how loudly a run is told of.
func judge(ctx context.Context, err error) (slog.Level, string) {
	if err == nil {
		return slog.LevelDebug, "handled"
	}
	if pubsub.HandedBack(ctx) {
		if errors.Is(context.Cause(ctx), pubsub.ErrLeaseLost) {
			return slog.LevelWarn, "lease lost"
		}
		return slog.LevelInfo, "handed back"
	}
	level, what := slog.LevelWarn, "failed"
	switch o, _ := pubsub.OutcomeOf(err); o {
	case pubsub.OutcomePermanent:
		level, what = slog.LevelError, "given up"
	case pubsub.OutcomeSnooze:
		return slog.LevelInfo, "snoozed"
	case pubsub.OutcomePause:
		return slog.LevelInfo, "paused"
	}
	if pubsub.IsExpected(err) {
		level = slog.LevelInfo
	}
	return level, what
}

func (w *logger) run(ctx context.Context, level slog.Level, what string, d *pubsub.Delivery, took time.Duration, err error) {
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.String("topic", d.Topic), slog.String("group", d.Group), slog.String("id", d.ID))
	if d.Type != "" {
		attrs = append(attrs, slog.String("type", d.Type))
	}
	attrs = append(attrs, slog.Int("attempt", d.Attempt), slog.Duration("took", took))
	if id := CorrelationID(ctx); id != "" {
		attrs = append(attrs, slog.String("correlation", id))
	}
	if err != nil {
		o, again := pubsub.OutcomeOf(err)
		attrs = append(attrs, slog.String("outcome", o.String()))
		if again > 0 {
			attrs = append(attrs, slog.Duration("again", again))
		}
		attrs = append(attrs, slog.String("err", err.Error()))
	}
	if w.opts.Attrs != nil {
		attrs = append(attrs, w.opts.Attrs(d)...)
	}
	w.write(ctx, level, what, attrs)
}

func (w *logger) write(ctx context.Context, level slog.Level, what string, attrs []slog.Attr) {
	if w.opts.Redact != nil {
		for i := range attrs {
			attrs[i] = w.opts.Redact(attrs[i])
		}
	}
	w.LogAttrs(ctx, level, what, attrs...)
}

// event tells of what no handler sees.
func (w *logger) event(ev pubsub.Event) {
	level := slog.LevelInfo
	switch ev.Kind {
	case pubsub.EventPublished:
		if ev.Err == nil {
			return
		}
		level = slog.LevelWarn
	case pubsub.EventDeadLettered:
		if level = slog.LevelError; pubsub.IsExpected(ev.Err) {
			level = slog.LevelInfo
		}
	case pubsub.EventDisconnected:
		level = slog.LevelWarn
	case pubsub.EventReconnected, pubsub.EventExpired:
	default:
		return
	}
	ctx := context.Background()
	if !w.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 4)
	attrs = append(attrs, slog.String("topic", ev.Topic))
	if ev.Group != "" {
		attrs = append(attrs, slog.String("group", ev.Group))
	}
	if ev.Attempt > 0 {
		attrs = append(attrs, slog.Int("attempt", ev.Attempt))
	}
	if ev.Err != nil {
		attrs = append(attrs, slog.String("err", ev.Err.Error()))
	}
	what := ev.Kind.String()
	if ev.Kind == pubsub.EventPublished {
		what = "not published"
	}
	w.write(ctx, level, what, attrs)
}
