package containers_test

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
)

// Every variant stores a message, asks for what its Params say, and announces its proxies and nothing else.
func TestRedisVariants(t *testing.T) {
	for _, variant := range containers.Variants("redis") {
		if redisImage(t, variant) != redisImage(t, "") {
			continue // another version, whose image `make matrix` asks for: there the suite is the test
		}
		t.Run(variant, func(t *testing.T) {
			b := startRedis(t, variant)
			r := newRedisStream(t, b, "orders")
			if n := r.messages(t); n != 1 {
				t.Errorf("%d messages, want 1", n)
			}
			if !strings.HasPrefix(b.Version(), "8.0.") {
				t.Errorf("Version is %q", b.Version())
			}
			announced(t, b, r)
			for what, p := range redisStrangers(b) {
				t.Run(what, func(t *testing.T) {
					if err := redisClient(t, b, p).XLen(t.Context(), "orders").Err(); err == nil {
						t.Error("served")
					} else {
						t.Log(err)
					}
				})
			}
			t.Setenv(containers.URLVariable("redis", variant), b.URL()+"?some=parameter")
			byURL := startRedis(t, variant)
			asks := variant == "mtls" || variant == "acl" // and tells nobody else
			if got := byURL.Version(); got != b.Version() && (!asks || got != "") {
				t.Errorf("by URL the version is %q, not %q", got, b.Version())
			}
			if err := byURL.Kill(t.Context()); !errors.Is(err, containers.ErrNotOurs) {
				t.Error(err)
			}
			if err := b.Close(t.Context()); err != nil {
				t.Error(err)
			}
			for _, path := range []string{b.Params.CAFile, b.Params.KeyFile} {
				if _, err := os.Stat(path); path != "" && !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is still there after Close: %v", path, err)
				}
			}
		})
	}
}

func redisImage(t *testing.T, variant string) string {
	t.Helper()
	name, err := containers.Image("redis", variant)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// announced looks at what a server among several tells of the others.
func announced(t *testing.T, b *containers.Broker, r *redisStream) {
	t.Helper()
	var proxies, known []string
	for _, n := range b.Nodes() {
		proxies = append(proxies, n.Addr())
	}
	if c, ok := r.client.(*redis.ClusterClient); ok {
		poll.Until(t, "the node has heard of the others' replicas", func() bool { // a moment after the cluster serves
			shards, err := c.ClusterShards(t.Context()).Result()
			if err != nil {
				t.Error(err)
			}
			known = nil
			for _, s := range shards {
				for _, n := range s.Nodes {
					known = append(known, net.JoinHostPort(n.IP, strconv.FormatInt(n.Port, 10)))
				}
			}
			return err != nil || len(known) == len(proxies)
		})
	}
	if o := redisOptions(t, b, b.Params); o.MasterName != "" {
		s := redis.NewSentinelClient(&redis.Options{Addr: o.Addrs[0]})
		defer s.Close()
		others, err := s.Sentinels(t.Context(), o.MasterName).Result()
		if err != nil {
			t.Fatal(err)
		}
		replicas, err := s.Replicas(t.Context(), o.MasterName).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range append(others, replicas...) {
			known = append(known, net.JoinHostPort(n["ip"], n["port"]))
		}
		known = append(known, r.master(t, b).Addr())
		if len(known) != len(proxies)-1 { // but itself
			t.Errorf("clients are told of %d nodes besides, not %d", len(known), len(proxies)-1)
		}
	}
	for _, addr := range known {
		if !slices.Contains(proxies, addr) {
			t.Errorf("clients are told of %s, which is no proxy of %s", addr, proxies)
		}
	}
}

// redisStrangers are those who do not have the credentials.
func redisStrangers(b *containers.Broker) map[string]containers.Params {
	right, all := b.Params, map[string]containers.Params{}
	if right == (containers.Params{}) {
		return all
	}
	all["without Params"] = containers.Params{}
	wrong := right
	switch {
	case right.Password != "":
		wrong.Password = "wr0ng"
		all["with a wrong password"] = wrong
		wrong = right
		wrong.User = containers.RedisLimited
		all["with the wrong user"] = wrong
	case right.CertFile != "":
		wrong.CertFile, wrong.KeyFile = "", ""
		all["without a certificate"] = wrong
	}
	return all
}

// Faults of a process and of the network take effect on a client, and end.
func TestRedisBreaks(t *testing.T) {
	b := startRedis(t, "default")
	r := newRedisStream(t, b, "orders")
	node, want := b.Nodes()[0], 1
	before, err := node.PID(t.Context())
	if err != nil || before == 0 {
		t.Fatal(before, err)
	}
	if err := b.HalfOpen(); err != nil {
		t.Fatal(err)
	}
	answer := r.send("arrives")
	if answered, err := hears(answer); answered {
		t.Errorf("the server was heard: %v", err)
	}
	if err := b.Mend(); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err == nil {
		t.Error("a stream with a hole has an answer")
	}
	want++
	poll.Until(t, "the message has arrived", func() bool { return r.messages(t) == want })
	if err := b.Pause(t.Context()); err != nil { // Kill must cope with that
		t.Fatal(err)
	}
	answer = r.send("never")
	if answered, err := hears(answer); answered {
		t.Errorf("a paused server answers: %v", err)
	}
	if err := b.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err == nil {
		t.Error("a killed server answers")
	}
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, err := node.PID(t.Context()); err != nil || after == 0 || after == before {
		t.Errorf("process %d before, %d after: %v", before, after, err)
	}
	if n := r.messages(t); n != want {
		t.Errorf("%d messages after the restart, want %d", n, want)
	}
	if err := b.Wipe(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := r.messages(t); n != 0 {
		t.Errorf("%d messages after Wipe", n)
	}
}

// What a replica has confirmed is there when its master and all the data of that are gone, one master after another, and when all are killed.
func TestRedisReplicas(t *testing.T) {
	for variant, rounds := range map[string]int{"cluster": 2, "sentinel": 2} {
		t.Run(variant, func(t *testing.T) {
			b := startRedis(t, variant)
			r := newRedisStream(t, b, "orders")
			want := r.messages(t)
			for range rounds {
				leader := r.master(t, b)
				_, wipe, err := b.Replicas(leader.Name())
				if err != nil {
					t.Fatal(err)
				}
				mend := strike(t, wipe)
				poll.Until(t, "another node is master", func() bool { return r.master(t, b) != leader })
				mend()
				r.mustSend(t, "after its master")
				want++
			}
			if n := r.messages(t); n < want {
				t.Errorf("%d messages after masters have lost their data, want %d", n, want)
			}
			if err := b.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			if err := b.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("back after %v", time.Since(begin))
			if n := r.messages(t); n < want {
				t.Errorf("%d messages after all nodes were killed, want %d", n, want)
			}
		})
	}
}

// The limited user may not ask for settings, nor touch other keys.
func TestRedisLimits(t *testing.T) {
	b := startRedis(t, "acl")
	p := b.Params
	p.User = containers.RedisLimited
	c := redisClient(t, b, p)
	if err := c.XAdd(t.Context(), &redis.XAddArgs{Stream: containers.RedisGranted, Values: []string{"a", "b"}}).Err(); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"reading settings":   c.ConfigGet(t.Context(), "appendonly").Err(),
		"another stream":     c.XLen(t.Context(), "orders").Err(),
		"their dead letters": c.XLen(t.Context(), "omnibus.dead.{"+containers.RedisGranted+"}__g").Err(),
	} {
		if !redis.IsPermissionError(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What does not speak Redis is no server, and a URL's secret is in no error.
func TestRedisIsElsewhere(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:1", strings.TrimPrefix(start(t, "default").URL(), "nats://")} {
		t.Setenv("OMNIBUS_REDIS_URL", "redis://user:hush@"+addr)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if b, err := containers.Start(ctx, "redis", ""); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v, %v", b, err)
		}
	}
}

// A lent server has no proxy.
func TestRedisLend(t *testing.T) {
	err := containers.Lend(t.Context(), "redis", "", func(url string) error {
		c := redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(url, "redis://")})
		defer c.Close()
		return c.Ping(t.Context()).Err()
	})
	if err != nil {
		t.Error(err)
	}
}
