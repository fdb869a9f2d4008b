package main

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/bench"
)

// Every row of every implementation works on the server of OMNIBUS_REDIS_URL, loses nothing and leaves no key behind; the figures are worth nothing.
func TestRedis(t *testing.T) {
	before := redisKeys(t)
	all, failing := len(bench.Shapes()), len(bench.Failing())
	wantRows(t, "redis", "10ms", map[string]int{"raw": all, "omnibus": all + failing, "watermill": all - 1, "ideal": 1},
		"redis 8.", fmt.Sprintf("gocloud, %s: %d rows", redisNoPeer, all+failing), "watermill, no asynchronous publish: 1 rows")
	if after := redisKeys(t); after != before {
		t.Errorf("%d keys, %d before", after, before)
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
	c, err := redisConnect(serverURL(t, "redis"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Raw puts the fields on the wire that omnibus does: the same names, and values as long.
func TestRedisRawSendsTheSameBytes(t *testing.T) {
	url := serverURL(t, "redis")
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
