package redisstreams

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// connect makes the client that all share, for what is answered at once. What blocks, and what must keep its order, has a wire of its own.
// MaxRedirects is how often the client of a cluster tries again, also after a time-out: a claim that is repeated hides what the first one got. So nothing
// follows a slot that moves: it counts as not reachable, and is looked for again.
func (d *driver) connect() redis.UniversalClient {
	o := d.options("")
	u := &redis.UniversalOptions{
		Addrs: d.cfg.Servers, MasterName: d.cfg.Master, DB: o.DB, ClientName: o.ClientName, Protocol: o.Protocol, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		MaxRetries: o.MaxRetries, MaxRedirects: -1, DialTimeout: o.DialTimeout, DialerRetries: o.DialerRetries, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout,
		ContextTimeoutEnabled: true, MaintNotificationsConfig: o.MaintNotificationsConfig,
	}
	switch {
	case d.cfg.Cluster:
		return redis.NewClusterClient(u.Cluster())
	case d.cfg.Master != "":
		return redis.NewFailoverClient(u.Failover())
	}
	return redis.NewClient(u.Simple())
}

// options are those of a client of one server. It tries nothing twice: a pipeline that is sent again is stored again. A cluster's has MaxRedirects besides.
func (d *driver) options(addr string) *redis.Options {
	return &redis.Options{
		Addr: addr, DB: d.cfg.DB, ClientName: d.cfg.Name, Protocol: 2, Username: d.cfg.User, Password: d.cfg.Password, TLSConfig: d.tls,
		MaxRetries: -1, DialTimeout: dialTimeout, DialerRetries: 1, ReadTimeout: answerWithin, WriteTimeout: answerWithin, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// A wire is one connection to the server that has a key, from its beginning to its end: it is not opened again, since what was written on it before it broke
// could be carried out behind what is sent again.
type wire struct {
	*redis.Client
	addr string
	id   int64 // by which the server knows it; 0 = this user may not ask

	mu     sync.Mutex
	conn   net.Conn
	dialed bool
	gone   bool
}

// wireTo opens a connection to the server that has a key.
func (d *driver) wireTo(ctx context.Context, key string, timeout time.Duration) (*wire, error) {
	addr, err := d.addrOf(ctx, key)
	if err != nil {
		return nil, err
	}
	w := &wire{addr: addr}
	o := d.options(addr)
	o.PoolSize, o.MaxActiveConns, o.PipelinePoolSize, o.ConnMaxIdleTime, o.ReadTimeout = 1, 1, -1, -1, timeout
	o.ReadBufferSize, o.WriteBufferSize = 64<<10, 64<<10
	dial := redis.NewDialer(o)
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.dialed || w.gone {
			return nil, errGone
		}
		w.dialed = true
		conn, err := dial(ctx, network, addr)
		if err == nil { // else it may be a *tls.Conn that is nil
			w.conn = conn
		}
		return conn, err
	}
	w.Client = redis.NewClient(o)
	stop := context.AfterFunc(ctx, w.cut)
	defer stop()
	w.id, err = w.ClientID(ctx).Result()
	if redis.IsPermissionError(err) {
		err = w.Ping(ctx).Err()
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// cut ends the connection, and with it whatever waits for an answer.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = true
	if w.conn != nil {
		_ = w.conn.Close()
	}
}

func (w *wire) close() {
	w.cut()
	_ = w.Close() // the connection is closed already
}

// addrOf finds the server that has a key.
func (d *driver) addrOf(ctx context.Context, key string) (string, error) {
	if cc, ok := d.client.(*redis.ClusterClient); ok {
		c, err := cc.MasterForKey(ctx, key)
		d.lookAgain(ctx) // for the next time
		if err != nil {
			return "", err
		}
		return c.Options().Addr, nil
	}
	if d.cfg.Master == "" {
		return d.cfg.Servers[0], nil
	}
	err := error(errDown)
	for _, s := range d.cfg.Servers {
		o := d.options(s)
		o.DB, o.Username, o.Password = 0, "", "" // sentinels have neither
		sentinel := redis.NewSentinelClient(o)
		var at []string
		at, err = sentinel.GetMasterAddrByName(ctx, d.cfg.Master).Result()
		_ = sentinel.Close()
		switch {
		case err == nil:
			return net.JoinHostPort(at[0], at[1]), nil
		case errors.Is(err, redis.Nil):
			err = says(pubsub.ErrNotFound, "the sentinels know no master %q", d.cfg.Master)
		}
	}
	return "", err
}

// lookAgain has the client of a cluster find out who has what by now, in the background.
func (d *driver) lookAgain(ctx context.Context) {
	if cc, ok := d.client.(*redis.ClusterClient); ok {
		cc.ReloadState(ctx)
	}
}

// eachMaster calls f for every server that takes messages.
func (d *driver) eachMaster(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	if cc, ok := d.client.(*redis.ClusterClient); ok {
		return cc.ForEachMaster(ctx, f)
	}
	return f(ctx, d.client.(*redis.Client))
}

// unblock lets a read that waits at the server return, with what has come.
func (d *driver) unblock(ctx context.Context, w *wire) error {
	if w.id == 0 {
		return nil
	}
	return d.eachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		if d.cfg.Cluster && c.Options().Addr != w.addr {
			return nil
		}
		return c.ClientUnblock(ctx, w.id).Err()
	})
}

// run calls a script, and returns its answer as it came.
func (d *driver) run(ctx context.Context, s *script, keys []string, args ...any) (*reply, error) {
	all := make([]any, 0, 3+len(keys)+len(args))
	all = append(all, "EVALSHA", s.sha, len(keys))
	for i := range keys {
		all = append(all, &keys[i])
	}
	all = append(all, args...)
	for {
		r, err := d.ask(ctx, all...)
		if err == nil || all[0] != "EVALSHA" || !redis.HasErrorPrefix(err, "NOSCRIPT") {
			return r, err
		}
		all[0], all[1] = "EVAL", s.text // a server that does not know it has not begun it
	}
}

// ask sends one command, and returns the answer as it came. It ends with ctx.
func (d *driver) ask(ctx context.Context, args ...any) (*reply, error) {
	cmd := redis.NewRawCmd(ctx, args...)
	if err := await(ctx, func() error { return d.client.Process(ctx, cmd) }); err != nil {
		d.lookAgain(ctx)
		return nil, err
	}
	r, err := rawReply(cmd.Val())
	if err != nil {
		if code, _ := classify(err); code == pubsub.ErrUnavailable { // it may be elsewhere by now
			d.lookAgain(ctx)
		}
	}
	return r, err
}

// rawReply begins to read an answer.
func rawReply(b []byte) (*reply, error) {
	r := &reply{rest: b}
	if len(b) > 0 && b[0] == '-' {
		r.line()
	}
	return r, r.err
}

// await returns when f does or ctx ends: the client looks at deadlines only. f then ends with the client's own time limit.
func await(ctx context.Context, f func() error) error {
	if ctx.Done() == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// withTimeout gives a request a deadline where the engine gave none.
func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return drivers.WithTimeout(ctx, 10*time.Second)
}
