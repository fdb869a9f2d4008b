package brokers_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOpenChoosesByScheme(t *testing.T) {
	b, err := brokers.Open(t.Context(), "MEM://shop", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	_, err = brokers.Open(t.Context(), "nats://127.0.0.1:1", nil) // nobody listens there
	e, ok := errors.AsType[*pubsub.Error](err)
	if !ok || e.Broker != "nats" || e.Code != pubsub.ErrUnavailable {
		t.Errorf("%v, want the nats adapter's ErrUnavailable", err)
	}
}

// A cluster is reached by any of its hosts, whatever their addresses are like.
func TestSeveralHosts(t *testing.T) {
	for _, url := range []string{
		"kafka://a:9092,b:9093,c", "kafka://[::1]:9092,[::2]:9092", "nats://u:p@[::1]:4222,127.0.0.1:4222", "nats://u:p,w@127.0.0.1:4222,[::1]:4222", "redis+cluster://[::1]:6379,[::2]:6379",
	} {
		if err := brokers.All().Check(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// A wrong URL is refused with what would be a right one, and never repeated: it may hold a password.
func TestWrongURLs(t *testing.T) {
	var known []string
	for _, o := range brokers.All() {
		for _, s := range o.Schemes {
			known = append(known, s+"://")
		}
	}
	list := "known schemes: " + strings.Join(known, ", ")
	for url, says := range map[string]string{
		"":                                "no scheme",
		"s3cr3t":                          "no scheme",
		"carrier-pigeon://u:s3cr3t@coop":  `unknown scheme "carrier-pigeon"`,
		"localhost:4222":                  "no scheme",
		"nats://u:s3cr3t@%zz":             "cannot be parsed",
		"nats://u:s3cr3t@x?colour=s3cr3t": `unknown parameter "colour"`,
		"mem://x?colour=s3cr3t":           `unknown parameter "colour"`,
	} {
		b, err := brokers.Open(t.Context(), url, nil)
		if b != nil || pubsub.CodeOf(err) != pubsub.ErrInvalid || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: broker %v, error %v; want ErrInvalid with %q", url, b, err, says)
			continue
		}
		if strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: the error shows it: %v", url, err)
		}
		if e, ok := errors.AsType[*pubsub.Error](err); !ok || e.Hint == "" || !strings.Contains(says, "parameter") && e.Hint != list {
			t.Errorf("%s: the hint is %q", url, e.Hint)
		}
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, url := range []string{"mem://", "nats://127.0.0.1:1"} {
		if _, err := brokers.Open(ctx, url, nil); pubsub.CodeOf(err) != pubsub.ErrCanceled {
			t.Errorf("%s: %v, want ErrCanceled", url, err)
		}
	}
}

// A name leads to the same broker within one All, and to another in the next.
func TestMemoryIsSharedWithinOneAll(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	open := func(m pubsub.Mux) *pubsub.Broker {
		t.Helper()
		b, err := m.Open(ctx, "mem://shop", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	all := brokers.All()
	first, second, other := open(all), open(all), open(brokers.All())
	if err := first.Ensure(ctx, pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "orders"}}}); err != nil {
		t.Fatal(err)
	}
	if err := second.Publish(ctx, "orders", pubsub.Message{}); err != nil {
		t.Errorf("the topic is not seen through the same All: %v", err)
	}
	if err := other.Publish(ctx, "orders", pubsub.Message{}); pubsub.CodeOf(err) != pubsub.ErrUnroutable {
		t.Errorf("the topic is seen through another All: %v", err)
	}
}

// Whoever writes an adapter, or documents one, is not forgotten here.
func TestEveryAdapterIsIn(t *testing.T) {
	src, err := os.ReadFile("brokers.go")
	if err != nil {
		t.Fatal(err)
	}
	var schemes []string
	for _, o := range brokers.All() {
		for _, s := range o.Schemes {
			schemes = append(schemes, s)
			if !strings.Contains(string(src), "//\t"+s+"://") {
				t.Errorf("the package comment does not show %s://", s)
			}
		}
	}
	if slices.Sort(schemes); len(slices.Compact(slices.Clone(schemes))) != len(schemes) {
		t.Errorf("two openers have the same scheme: %q", schemes)
	}
	for _, name := range []string{"memory", "kafka", "rabbitmq", "redisstreams", "nats"} {
		if _, err := os.Stat("../" + name); err != nil {
			continue // not written yet
		}
		if !strings.Contains(string(src), name+".Opener()") {
			t.Errorf("All lacks the opener of %s", name)
		}
	}
}
