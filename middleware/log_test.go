package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// plain is a logger without times, for comparing.
func plain(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "took" {
			return slog.Attr{}
		}
		return a
	}}))
}

// What went wrong, with what is needed to find it, and nobody's data.
func ExampleLog() {
	h := wrap(func(_ context.Context, d *pubsub.Delivery) error {
		if d.Type == "order.placed" {
			return errors.New("gateway: 502")
		}
		return nil
	}, middleware.Log(plain(os.Stdout, slog.LevelInfo)))
	for _, typ := range []string{"order.placed", "order.paid"} {
		_ = h(context.Background(), &pubsub.Delivery{Topic: "orders", Group: "billing", Attempt: 2, Message: pubsub.Message{ID: "o-1", Type: typ, Payload: []byte("secret")}})
	}
	// Output:
	// level=WARN msg=failed topic=orders group=billing id=o-1 type=order.placed attempt=2 outcome=unclassified err="gateway: 502"
}

func ExampleLogWith() {
	log := middleware.LogWith(plain(os.Stdout, slog.LevelDebug), middleware.LogOptions{
		Attrs: func(d *pubsub.Delivery) []slog.Attr {
			return []slog.Attr{slog.String("tenant", d.Headers.Get("tenant"))}
		},
		Redact: func(a slog.Attr) slog.Attr {
			if a.Key == "id" {
				return slog.String("id", "…")
			}
			return a
		},
	})
	h := wrap(func(context.Context, *pubsub.Delivery) error { return nil }, log)
	_ = h(context.Background(), &pubsub.Delivery{Topic: "t", Group: "g", Attempt: 1, Message: pubsub.Message{ID: "card-4711", Headers: pubsub.Headers{{Name: "tenant", Value: "acme"}}}})
	// Output:
	// level=DEBUG msg=handled topic=t group=g id=… attempt=1 tenant=acme
}

func TestLogLevels(t *testing.T) {
	for name, tt := range map[string]struct {
		ctx  context.Context
		says error
		want string
	}{
		"success":        {context.Background(), nil, "level=DEBUG msg=handled topic=t group=g id=i attempt=1"},
		"failure":        {context.Background(), errFailed, "level=WARN msg=failed topic=t group=g id=i attempt=1 outcome=unclassified err=failed"},
		"retry":          {context.Background(), pubsub.RetryAfter(time.Second, errFailed), "level=WARN msg=failed topic=t group=g id=i attempt=1 outcome=retry again=1s err=failed"},
		"expected":       {context.Background(), pubsub.Expected(errFailed), "level=INFO msg=failed topic=t group=g id=i attempt=1 outcome=unclassified err=failed"},
		"permanent":      {context.Background(), pubsub.Permanent(errFailed), `level=ERROR msg="given up" topic=t group=g id=i attempt=1 outcome=permanent err=failed`},
		"snooze":         {context.Background(), pubsub.Snooze(time.Second, errFailed), "level=INFO msg=snoozed topic=t group=g id=i attempt=1 outcome=snooze again=1s err=failed"},
		"pause":          {context.Background(), pubsub.Pause(time.Second, nil), "level=INFO msg=paused topic=t group=g id=i attempt=1 outcome=pause again=1s err=pause"},
		"drained":        {drained(t), errFailed, `level=INFO msg="handed back" topic=t group=g id=i attempt=1 outcome=unclassified err=failed`},
		"lease lost":     {canceled(t, pubsub.ErrLeaseLost), errFailed, `level=WARN msg="lease lost" topic=t group=g id=i attempt=1 outcome=unclassified err=failed`},
		"timeout":        {canceled(t, pubsub.ErrTimeout), errFailed, "level=WARN msg=failed topic=t group=g id=i attempt=1 outcome=unclassified err=failed"},
		"layer's time":   {late(context.Background(), t), errFailed, "level=WARN msg=failed topic=t group=g id=i attempt=1 outcome=unclassified err=failed"},
		"layer's reason": {canceled(t, errPartner), errFailed, "level=WARN msg=failed topic=t group=g id=i attempt=1 outcome=unclassified err=failed"},
		"drained, ended": {drained(t), nil, "level=DEBUG msg=handled topic=t group=g id=i attempt=1"},
	} {
		var out bytes.Buffer
		h := wrap(func(context.Context, *pubsub.Delivery) error { return tt.says }, middleware.Log(plain(&out, slog.LevelDebug)))
		if err := h(tt.ctx, &pubsub.Delivery{Topic: "t", Group: "g", Attempt: 1, Message: pubsub.Message{ID: "i", Key: "secret", Payload: []byte("secret")}}); err != tt.says { //nolint:errorlint // the same one
			t.Errorf("%s: became %v", name, err)
		}
		if got := strings.TrimSpace(out.String()); got != tt.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, tt.want)
		}
	}
}

// lines is a writer that many use.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// On a Broker: what is given up by the engine, what expires, and what cannot be published; and nobody's data in any line.
func TestLogOnABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		refuse := pubsub.Middleware{Name: "refuse", Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			if m.ID == "refused" {
				return errFailed
			}
			return nil
		}}
		b := pubsubtest.Open(t, opts(middleware.Correlate(), middleware.Log(plain(&out, slog.LevelDebug)), refuse))
		secret := func(id string) pubsub.Message {
			return pubsub.Message{ID: id, Key: "secret", Payload: []byte("secret"), Headers: pubsub.Headers{{Name: "secret", Value: "secret"}}}
		}
		sub := pubsub.Subscription{Topic: "t", Group: "g", Retry: fixed(2, time.Second)}
		b.Deliver(sub, func(_ context.Context, d *pubsub.Delivery) error {
			switch d.ID {
			case "panics":
				panic("here")
			case "expected":
				return pubsub.Permanent(pubsub.Expected(errFailed))
			}
			return nil
		}, secret("fine"), secret("panics"), secret("expected"))
		b.DeliverBatch(sub, pubsub.Batch{}, func(context.Context, []*pubsub.Delivery) error { return nil }, secret("batch"))
		b.FailPublish(1, pubsub.ErrTooLarge)
		_ = b.Publish(t.Context(), "t", secret("lost"))
		time.Sleep(time.Minute)
		out.mu.Lock()
		defer out.mu.Unlock()
		text := out.buf.String()
		for _, want := range []string{
			"level=DEBUG msg=handled topic=t group=g id=fine attempt=1 correlation=fine\n",
			`level=WARN msg=failed topic=t group=g id=panics attempt=2 correlation=panics outcome=unclassified err="panic: here"` + "\n",
			`level=ERROR msg=dead-lettered topic=t group=g attempt=2 err="panic: here"` + "\n",
			`level=INFO msg="given up" topic=t group=g id=expected attempt=1 correlation=expected outcome=permanent err=failed` + "\n",
			"level=INFO msg=dead-lettered topic=t group=g attempt=1 err=failed\n",
			"level=DEBUG msg=handled topic=t group=g id=batch attempt=1 correlation=batch\n",
			`level=WARN msg="not published" topic=t`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("no line %q", want)
			}
		}
		if strings.Contains(text, "secret") || t.Failed() {
			t.Errorf("the log:\n%s", text)
		}
	})
}
