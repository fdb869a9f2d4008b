package config_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/pubsub"
)

const reloadable = `broker: mem://
log: {level: info}
middleware:
  - rate-limit: {per_second: 1, burst: 1}
subscriptions:
  work:
    topic: jobs
    concurrency: 1
`

func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// served runs a Service in a bubble until its end is called; so many messages are there before. Every message that is published is to be handled once, whatever is reloaded meanwhile.
func served(t *testing.T, path string, opts *config.Options, waiting int) (*config.Service, *atomic.Int64, func()) {
	t.Helper()
	svc, err := config.Open(t.Context(), path, onMemory(), opts)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, svc, 0, waiting)
	ctx, stop := context.WithCancel(t.Context())
	handled := &atomic.Int64{}
	var mu sync.Mutex
	seen := map[string]int{}
	done := make(chan error, 1)
	go func() {
		done <- svc.Serve(ctx, config.Handlers{"work": func(_ context.Context, d *pubsub.Delivery) error {
			mu.Lock()
			seen[d.ID]++
			mu.Unlock()
			handled.Add(1)
			return nil
		}})
	}()
	synctest.Wait()
	end := func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s was handled %d times", id, n)
			}
		}
	}
	return svc, handled, end
}

func publish(t *testing.T, svc *config.Service, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := svc.Broker().Publish(t.Context(), "jobs", pubsub.Message{ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReloadPausesAndResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := "broker: mem://\nsubscriptions:\n  work:\n    topic: jobs\n    paused: true\n"
		path := write(t, text)
		svc, handled, end := served(t, path, nil, 5) // which are there before anybody could pause
		publish(t, svc, 5, 10)
		rest(time.Minute)
		if n := handled.Load(); n != 0 {
			t.Errorf("%d handled though it is paused", n)
		}
		rewrite(t, path, strings.ReplaceAll(text, "true", "false"))
		if r, err := svc.Reload(); err != nil || !slices.Equal(r.Applied, []string{"subscriptions.work.paused"}) || r.Restart != nil {
			t.Errorf("%+v, %v", r, err)
		}
		rest(time.Second)
		if n := handled.Load(); n != 10 {
			t.Errorf("%d handled, want 10", n)
		}
		rewrite(t, path, text)
		if r, err := svc.Reload(); err != nil || len(r.Applied) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		publish(t, svc, 10, 20)
		rest(time.Minute)
		if n := handled.Load(); n != 10 {
			t.Errorf("%d handled though it is paused again", n)
		}
		rewrite(t, path, strings.ReplaceAll(text, "    paused: true\n", ""))
		if r, err := svc.Reload(); err != nil || len(r.Applied) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		rest(time.Second)
		if n := handled.Load(); n != 20 {
			t.Errorf("%d handled, want 20", n)
		}
		end()
	})
}

// What the program runs itself cannot be paused: that is refused, and no Reload says that it was.
func TestOnlyWhatIsServedCanBePaused(t *testing.T) {
	text := "broker: mem://\nsubscriptions:\n  asleep: {topic: jobs, paused: true}\n  awake: {topic: jobs}\n"
	path := write(t, text)
	svc, err := config.Open(t.Context(), path, onMemory(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()
	_, err = svc.Subscription("asleep")
	if want := path + ":3: subscriptions.asleep.paused: "; !errors.Is(err, pubsub.ErrInvalid) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s...", err, want)
	}
	both := strings.NewReplacer("jobs}", "jobs, paused: true}", ", paused: true", "").Replace(text)
	rewrite(t, path, both)
	if r, err := svc.Reload(); err != nil || len(r.Applied) != 2 || r.Restart != nil { // Serve would heed it
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := svc.Subscription("awake"); !errors.Is(err, pubsub.ErrInvalid) {
		t.Errorf("%v: a reload has paused it", err)
	}
	if _, err := svc.Subscription("asleep"); err != nil {
		t.Error(err)
	}
	rewrite(t, path, text)
	if r, err := svc.Reload(); err != nil || r.Applied != nil || !slices.Equal(r.Restart, []string{"subscriptions.asleep.paused"}) {
		t.Errorf("%+v, %v: the program has asleep", r, err)
	}
	if _, err := svc.Subscription("awake"); !errors.Is(err, pubsub.ErrInvalid) {
		t.Errorf("%v: all or nothing", err)
	}
}

// What is there when a subscription begins that is paused is not handled, and not tried again and again either.
func TestPausedFromTheBeginning(t *testing.T) {
	path := write(t, "broker: mem://\nmiddleware: [{own: count}]\nsubscriptions:\n  work: {topic: jobs, concurrency: 8, paused: true}\n")
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			var passed atomic.Int64
			count := pubsub.Middleware{Name: "count", Incoming: func(next pubsub.Handler) pubsub.Handler {
				return func(ctx context.Context, d *pubsub.Delivery) error { passed.Add(1); return next(ctx, d) }
			}}
			_, handled, end := served(t, path, &config.Options{Layers: map[string]pubsub.Middleware{"count": count}}, 20)
			rest(time.Minute)
			if n, m := handled.Load(), passed.Load(); n != 0 || m > 20 {
				t.Fatalf("%d handled, %d times tried", n, m)
			}
			end()
		})
	}
}

// A message that a worker takes between Subscribe and Pause is handed back: the interleaving is too rare to wait for.
func TestPausedHandlerIsNotCalled(t *testing.T) {
	var paused atomic.Bool
	calls := 0
	h := config.Gated(&paused, func(context.Context, *pubsub.Delivery) error { calls++; return nil })
	if err := h(t.Context(), &pubsub.Delivery{}); err != nil || calls != 1 {
		t.Errorf("%v, %d calls", err, calls)
	}
	paused.Store(true)
	if o, _ := pubsub.OutcomeOf(h(t.Context(), &pubsub.Delivery{})); o != pubsub.OutcomePause || calls != 1 {
		t.Errorf("%v, %d calls", o, calls)
	}
}

func TestReloadChangesTheRate(t *testing.T) {
	layer := "middleware:\n  - rate-limit: {per_second: 1, burst: 1}\n"
	inner := strings.Replace(reloadable, layer, "", 1) + "    middleware: [rate-limit: {per_second: 1, burst: 1}]\n"
	for at, text := range map[string]string{"middleware[0]": reloadable, "subscriptions.work.middleware[0]": inner} {
		synctest.Test(t, func(t *testing.T) {
			path := write(t, text)
			svc, handled, end := served(t, path, &config.Options{Logger: slog.New(slog.DiscardHandler)}, 0)
			publish(t, svc, 0, 500)
			rest(10*time.Second + 500*time.Millisecond)
			if n := handled.Load(); n < 9 || n > 12 {
				t.Errorf("%d handled in 10 s at 1 a second", n)
			}
			rewrite(t, path, strings.Replace(text, "per_second: 1, burst: 1", "per_second: 100, burst: 5", 1))
			r, err := svc.Reload()
			if want := []string{at + ".rate-limit.burst", at + ".rate-limit.per_second"}; err != nil || !slices.Equal(r.Applied, want) {
				t.Errorf("%+v, %v", r, err)
			}
			rest(7 * time.Second)
			if n := handled.Load(); n != 500 {
				t.Errorf("%d handled, want all", n)
			}
			end()
		})
	}
}

func TestReloadChangesTheLogLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		path := write(t, "broker: mem://\nlog: {level: warn}\nmiddleware: [log]\nsubscriptions:\n  work: {topic: jobs}\n")
		svc, _, end := served(t, path, &config.Options{Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))}, 0)
		publish(t, svc, 0, 1)
		synctest.Wait()
		if strings.Contains(out.String(), "msg=handled") {
			t.Error("it is logged at the level warn")
		}
		rewrite(t, path, "broker: mem://\nlog: {level: debug}\nmiddleware: [log]\nsubscriptions:\n  work: {topic: jobs}\n")
		if r, err := svc.Reload(); err != nil || !slices.Equal(r.Applied, []string{"log.level"}) {
			t.Errorf("%+v, %v", r, err)
		}
		publish(t, svc, 1, 2)
		synctest.Wait()
		if strings.Count(out.String(), "msg=handled") != 1 {
			t.Errorf("it is not logged:\n%s", &out)
		}
		end()
	})
}

// All of a file takes effect, or nothing.
func TestReloadIsWholeOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		path := write(t, reloadable)
		svc, handled, end := served(t, path, &config.Options{Logger: slog.New(slog.NewTextHandler(&out, nil))}, 0)
		faster := strings.Replace(reloadable, "per_second: 1,", "per_second: 1000,", 1)
		for name, to := range map[string]struct {
			text    string
			restart []string
		}{
			"concurrency":    {strings.Replace(faster, "concurrency: 1", "concurrency: 4", 1), []string{"subscriptions.work.concurrency"}},
			"broker":         {strings.Replace(faster, "mem://", "mem://other", 1), []string{"broker"}},
			"a layer":        {strings.Replace(faster, "subscriptions:", "  - correlate\nsubscriptions:", 1), []string{"middleware[1]", "middleware[1].correlate"}},
			"a topic":        {faster + "topics:\n  jobs:\n", []string{"topics", "topics.jobs"}},
			"a subscription": {faster + "  more: {topic: jobs}\n", []string{"subscriptions.more", "subscriptions.more.topic"}},
			"no log":         {strings.Replace(faster, "log: {level: info}\n", "", 1), []string{"log"}},
		} {
			rewrite(t, path, to.text)
			r, err := svc.Reload()
			if err != nil || r.Applied != nil || !slices.Equal(without(r.Restart, "log.level"), to.restart) {
				t.Errorf("%s: %+v, %v; want %q", name, r, err, to.restart)
			}
		}
		rewrite(t, path, faster+"    paused: maybe\n")
		if r, err := svc.Reload(); !errors.Is(err, pubsub.ErrInvalid) || r.Applied != nil || r.Restart != nil {
			t.Errorf("%+v, %v", r, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := svc.Reload(); !errors.Is(err, pubsub.ErrInvalid) {
			t.Error(err)
		}
		publish(t, svc, 0, 20)
		rest(5 * time.Second)
		if n := handled.Load(); n > 7 {
			t.Errorf("%d handled in 5 s: the rate of a file that was refused is in effect", n)
		}
		rewrite(t, path, reloadable)
		if r, err := svc.Reload(); err != nil || r.Applied != nil || r.Restart != nil {
			t.Errorf("nothing differs: %+v, %v", r, err)
		}
		rewrite(t, path, faster)
		if r, err := svc.Reload(); err != nil || len(r.Applied) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		rest(2 * time.Second)
		if n := handled.Load(); n != 20 {
			t.Errorf("%d handled, want 20", n)
		}
		end()
	})
}

func without(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return s == one })
}

// A variable or a file of a secret that has changed needs a restart, and is not shown.
func TestReloadSeesSecretsThatHaveChanged(t *testing.T) {
	secret := "s3cr3t-1"
	opts := &config.Options{Env: func(string) (string, bool) { return secret, true }}
	svc, err := config.Open(t.Context(), write(t, "broker: mem://${env:NAME}\n"), onMemory(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer svc.Close()
	secret = "s3cr3t-2"
	if r, err := svc.Reload(); err != nil || !slices.Equal(r.Restart, []string{"broker"}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// rest lets the bubble's time pass.
func rest(d time.Duration) { <-time.After(d) }
