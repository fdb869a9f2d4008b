package containers_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/poll"
)

// The client of Redis that these tests use. It tries nothing twice, except to find a master: what a fault does is to be seen.

// startRedis starts a Redis server for one test.
func startRedis(t *testing.T, variant string) *containers.Broker {
	t.Helper()
	return containers.ForTest(t, "redis", variant)
}

func redisClient(t *testing.T, b *containers.Broker, p containers.Params) redis.UniversalClient {
	t.Helper()
	o := redisOptions(t, b, p)
	scheme, _, _ := strings.Cut(b.URL(), "://")
	var c redis.UniversalClient
	switch scheme {
	case "redis+cluster":
		c = redis.NewClusterClient(o.Cluster())
	case "redis+sentinel":
		c = redis.NewFailoverClient(o.Failover())
	default:
		c = redis.NewClient(o.Simple())
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func redisOptions(t *testing.T, b *containers.Broker, p containers.Params) *redis.UniversalOptions {
	t.Helper()
	o := &redis.UniversalOptions{
		Username: p.User, Password: p.Password, MaxRetries: -1, DialerRetries: 1, DialTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, ContextTimeoutEnabled: true,
	}
	_, hosts, _ := strings.Cut(b.URL(), "://")
	hosts, o.MasterName, _ = strings.Cut(hosts, "/")
	o.Addrs = strings.Split(hosts, ",")
	if p.CAFile != "" {
		o.TLSConfig = tlsConfig(t, p)
	}
	return o
}

// A redisStream is a stream and a client of it.
type redisStream struct {
	name   string
	client redis.UniversalClient
}

// newRedisStream makes a stream with a message in it.
func newRedisStream(t *testing.T, b *containers.Broker, name string) *redisStream {
	t.Helper()
	r := &redisStream{name, redisClient(t, b, b.Params)}
	if err := <-r.send("kept"); err != nil {
		t.Fatal(err)
	}
	return r
}

// send adds a message. Where there are replicas one of them has it, too.
func (r *redisStream) send(text string) <-chan error {
	answer := make(chan error, 1)
	go func() { answer <- r.add(text) }()
	return answer
}

func (r *redisStream) add(text string) error {
	ctx := context.Background()
	one, alone := r.client.(*redis.Client)
	if c, ok := r.client.(*redis.ClusterClient); ok {
		var err error
		one, err = c.MasterForKey(ctx, r.name)
		c.ReloadState(ctx) // for the next time
		if err != nil {
			return err
		}
	}
	conn := one.Conn()
	defer conn.Close()
	if err := conn.XAdd(ctx, &redis.XAddArgs{Stream: r.name, Values: []string{"text", text}}).Err(); err != nil {
		return err
	}
	info, err := conn.Info(ctx, "replication").Result()
	if alone && (err != nil || !strings.Contains(info, "slave_repl_offset") && !strings.Contains(info, "slave0:")) {
		return err
	}
	n, err := conn.Do(ctx, "WAIT", 1, 5000).Int()
	if err == nil && n == 0 {
		err = context.DeadlineExceeded
	}
	return err
}

// mustSend adds a message as soon as there is somebody who takes it.
func (r *redisStream) mustSend(t *testing.T, text string) {
	t.Helper()
	poll.Until(t, text+" is confirmed", func() bool { return r.add(text) == nil })
}

// messages counts what the stream holds, once it can be asked.
func (r *redisStream) messages(t *testing.T) (n int) {
	t.Helper()
	poll.Until(t, "the stream can be asked", func() bool {
		got, err := r.client.XLen(context.Background(), r.name).Result()
		n = int(got)
		return err == nil
	})
	return n
}

// master is the node that keeps the stream.
func (r *redisStream) master(t *testing.T, b *containers.Broker) *containers.Node {
	t.Helper()
	var found *containers.Node
	poll.Until(t, "the stream has a master", func() bool {
		addr := ""
		switch c := r.client.(type) {
		case *redis.ClusterClient:
			if one, err := c.MasterForKey(context.Background(), r.name); err == nil {
				addr = one.Options().Addr
			}
			c.ReloadState(context.Background()) // for the next time
		case *redis.Client: // of sentinels
			o := redisOptions(t, b, b.Params)
			s := redis.NewSentinelClient(&redis.Options{Addr: o.Addrs[0]})
			defer s.Close()
			if at, err := s.GetMasterAddrByName(context.Background(), o.MasterName).Result(); err == nil {
				addr = strings.Join(at, ":")
			}
		}
		i := slices.IndexFunc(b.Nodes(), func(n *containers.Node) bool { return n.Addr() == addr })
		if i < 0 {
			return false
		}
		found = b.Nodes()[i]
		return true
	})
	return found
}

// redisChatter keeps clients busy until the test ends: a black hole shows only where somebody speaks.
func redisChatter(t *testing.T, b *containers.Broker) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	o := redisOptions(t, b, b.Params)
	var all []*redis.Client
	for _, n := range b.Nodes() {
		all = append(all, redis.NewClient(&redis.Options{Addr: n.Addr(), TLSConfig: o.TLSConfig, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true}))
	}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, c := range all {
				brief, end := context.WithTimeout(ctx, 50*time.Millisecond)
				_ = c.Ping(brief).Err() // fails while the fault lasts
				end()
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		for _, c := range all {
			c.Close()
		}
	})
}
