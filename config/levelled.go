package config

import (
	"context"
	"log/slog"
)

// levelled is a program's own handler, with the level of the file on top of its own.
type levelled struct {
	slog.Handler
	least slog.Leveler
}

func (l *levelled) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= l.least.Level() && l.Handler.Enabled(ctx, level)
}

func (l *levelled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &levelled{l.Handler.WithAttrs(attrs), l.least}
}

func (l *levelled) WithGroup(name string) slog.Handler {
	return &levelled{l.Handler.WithGroup(name), l.least}
}
