package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/bench"
)

// Every row of every implementation works on the server of OMNIBUS_REDIS_URL, loses nothing and leaves no key behind; the figures are worth nothing.
func TestRedis(t *testing.T) {
	if os.Getenv("OMNIBUS_REDIS_URL") == "" {
		t.Fatal("OMNIBUS_REDIS_URL names no server: make benchmarks-redis starts one")
	}
	before := redisKeys(t)
	var out, log bytes.Buffer
	if code := run(t.Context(), []string{"-broker", "redis", "-reps", "1", "-each", "10ms"}, &out, &log); code != 0 {
		t.Fatalf("exit code %d\n%s", code, &log)
	}
	rows := map[string]int{}
	for line := range strings.Lines(out.String()) {
		if f := strings.Fields(line); len(f) == 15 {
			rows[f[4]]++
		}
	}
	all, failing := len(bench.Shapes()), len(bench.Failing())
	for impl, want := range map[string]int{"raw": all, "omnibus": all + failing, "watermill": all - 1, "ideal": 1} {
		if rows[impl] != want {
			t.Errorf("%s has %d rows, want %d", impl, rows[impl], want)
		}
	}
	for _, want := range []string{"redis 8.", fmt.Sprintf("gocloud, %s: %d rows", redisNoPeer, all+failing), "watermill, no asynchronous publish: 1 rows"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
	if after := redisKeys(t); after != before {
		t.Errorf("%d keys, %d before", after, before)
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func redisKeys(t *testing.T) int64 {
	t.Helper()
	c := redisClient(t)
	n, err := c.DBSize(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func redisClient(t *testing.T) *redis.Client {
	t.Helper()
	c, err := redisConnect(os.Getenv("OMNIBUS_REDIS_URL"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Raw puts the fields on the wire that omnibus does: the same names, and values as long.
func TestRedisRawSendsTheSameBytes(t *testing.T) {
	url := os.Getenv("OMNIBUS_REDIS_URL")
	if url == "" {
		t.Fatal("OMNIBUS_REDIS_URL names no server: make benchmarks-redis starts one")
	}
	ctx, r := t.Context(), redisClient(t)
	m := bench.Message{ID: fmt.Sprintf("%021d", 7), Key: "key-00001", ContentType: "application/octet-stream", Payload: []byte("x")}
	stored := func(c *bench.Client, err error, topic string) map[string]any {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close(ctx) }()
		if err := c.Prepare(ctx, topic, nil); err != nil {
			t.Fatal(err)
		}
		if err := c.Publish(ctx, topic, m); err != nil {
			t.Fatal(err)
		}
		return r.XRange(ctx, topic, "-", "+").Val()[0].Values
	}
	c, err := openRedis(url)
	raw := stored(c, err, "raw-bytes")
	c, err = openRedisOmnibus(ctx, url)
	ours := stored(c, err, "our-bytes")
	if len(raw) != len(ours) {
		t.Errorf("raw %v, omnibus %v", raw, ours)
	}
	for name, v := range ours {
		if w, ok := raw[name]; !ok || len(w.(string)) != len(v.(string)) {
			t.Errorf("%s: raw %q, omnibus %q", name, w, v)
		}
	}
}
