package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
	"github.com/omnibus-go/omnibus/internal/drivers"
)

const (
	dialTimeout  = 10 * time.Second
	closeTimeout = 2 * time.Second
	minHostTime  = time.Second // for each of several hosts
)

// A session ends when its connection does.
type session interface{ die(err error) }

// A link is one connection from its beginning to its end. The client's own recovery would keep its channels, count delivery tags from 1 again, and let
// an acknowledgement of the time before settle another message.
type link struct {
	conn *amqp.Connection
	wire *wire
	gone chan struct{} // closed when it broke

	mu       sync.Mutex
	sessions map[session]struct{}
	why      error         // it broke
	blocked  chan struct{} // closed when the broker takes messages again; nil = it does
	reason   string        // of blocked
}

// A line is one link after the other, for one purpose.
type line struct {
	cfg     *Config
	purpose string
	dialing chan struct{} // holds a token while a link is opened
	at      atomic.Pointer[link]
	next    atomic.Int64 // the host to begin with
	closed  atomic.Bool
}

func newLine(cfg *Config, purpose string) *line {
	return &line{cfg: cfg, purpose: purpose, dialing: make(chan struct{}, 1)}
}

// connected returns the link, after opening the next one if there is none, or it is broken.
func (n *line) connected(ctx context.Context) (*link, error) {
	select {
	case n.dialing <- struct{}{}:
		defer func() { <-n.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if at := n.at.Load(); at != nil && at.broken() == nil {
		return at, nil
	}
	if n.closed.Load() {
		return nil, errGone
	}
	at, err := n.dial(ctx)
	if err != nil {
		return nil, err
	}
	n.at.Store(at)
	if n.closed.Load() { // meanwhile
		at.close(ctx)
		return nil, errGone
	}
	return at, nil
}

// dial tries one host after the other. Where none answers as a broker the error is that of the first that said why.
func (n *line) dial(ctx context.Context) (*link, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	var errs []error
	hosts := n.cfg.Servers
	first := int(n.next.Add(1) - 1)
	for i := range hosts {
		at, err := n.dialHost(ctx, hosts[(first+i)%len(hosts)], len(hosts)-i)
		if err == nil {
			n.next.Store(int64(first + i)) // where it was well
			return at, nil
		}
		if _, final := classify(err); final {
			return nil, err
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, errors.Join(errs...)
}

// dialHost opens a link to one of so many hosts that are still to be tried.
func (n *line) dialHost(ctx context.Context, host string, left int) (*link, error) {
	if until, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(time.Until(until)/time.Duration(left), minHostTime))
		defer cancel()
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	conn, err := n.secure(ctx, raw, host)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	w := &wire{Conn: conn}
	cfg := n.cfg.client(n.purpose)
	c, err := amqp.Open(w, cfg)
	if err == nil && !stop() {
		err = ctx.Err()
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	at := &link{conn: c, wire: w, gone: make(chan struct{}), sessions: map[session]struct{}{}}
	closed, blocked := c.NotifyClose(make(chan *amqp.Error, 1)), c.NotifyBlocked(make(chan amqp.Blocking, 1))
	go at.watch(closed, blocked)
	return at, nil
}

// secure makes the TLS connection that is asked for.
func (n *line) secure(ctx context.Context, raw net.Conn, host string) (net.Conn, error) {
	if !n.cfg.usesTLS() {
		return raw, nil
	}
	c := n.cfg
	name := c.ServerName
	if name == "" {
		var err error
		if name, _, err = net.SplitHostPort(host); err != nil {
			return nil, err
		}
	}
	cfg, err := brokerurl.TLS(c.CA, c.Cert, c.Key, name)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, cfg)
	return conn, conn.HandshakeContext(ctx)
}

// watch follows the connection to its end.
func (l *link) watch(closed chan *amqp.Error, blocked chan amqp.Blocking) {
	var why error = errGone
	for closed != nil {
		select {
		case e, ok := <-closed:
			if ok {
				why = e
			} else {
				closed = nil
			}
		case b, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			l.block(b)
		}
	}
	l.drop(why)
}

// block notes that the broker takes no messages, or takes them again.
func (l *link) block(b amqp.Blocking) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case b.Active && l.blocked == nil:
		l.blocked, l.reason = make(chan struct{}), b.Reason
	case b.Active:
		l.reason = b.Reason
	case l.blocked != nil:
		close(l.blocked)
		l.blocked = nil
	}
}

// gate is closed when the broker takes messages again, nil while it does.
func (l *link) gate() (gate chan struct{}, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.blocked, l.reason
}

// opened waits while the broker takes no messages, until stop is closed.
func (l *link) opened(ctx context.Context, stop <-chan struct{}) error {
	gate, reason := l.gate()
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-l.gone:
		return l.broken()
	case <-stop:
		return errGone
	case <-ctx.Done():
		return blockedError(reason)
	}
}

// drop ends the sessions, so that the engine opens the next ones.
func (l *link) drop(why error) {
	l.mu.Lock()
	if l.why != nil {
		l.mu.Unlock()
		return
	}
	l.why = why
	all := l.sessions
	l.sessions = nil
	close(l.gone)
	l.mu.Unlock()
	for s := range all {
		s.die(why)
	}
}

func (l *link) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// add registers a session, so that it ends with its link.
func (l *link) add(s session) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why != nil {
		return l.why
	}
	l.sessions[s] = struct{}{}
	return nil
}

func (l *link) remove(s session) {
	l.mu.Lock()
	delete(l.sessions, s)
	l.mu.Unlock()
}

// cut ends the connection without a word: it takes nothing that is written.
func (l *link) cut() { _ = l.wire.Conn.Close() }

// close ends the connection.
func (l *link) close(ctx context.Context) {
	end := time.Now().Add(closeTimeout)
	if at, ok := ctx.Deadline(); ok && at.Before(end) {
		end = at
	}
	_ = l.conn.CloseDeadline(end) // one that breaks meanwhile is closed, too
	<-l.gone
}

// call does what the client does not end with a context. What comes of it after ctx has ended goes to late.
func call[T any](ctx context.Context, f func() (T, error), late func(T)) (v T, err error) {
	type result struct {
		v   T
		err error
	}
	came, over := make(chan result), make(chan struct{})
	go func() {
		v, err := f()
		select {
		case came <- result{v, err}:
		case <-over:
			if err == nil && late != nil {
				late(v)
			}
		}
	}()
	select {
	case r := <-came:
		return r.v, r.err
	case <-ctx.Done():
		close(over)
		return v, ctx.Err()
	}
}

// shut closes a channel; where that fails the connection breaks.
func shut(ctx context.Context, ch *amqp.Channel) {
	if !ch.IsClosed() {
		_, _ = call(ctx, func() (struct{}, error) { return struct{}{}, ch.Close() }, nil)
	}
}

// with does something on a channel of its own: what the broker refuses ends that.
func (l *link) with(ctx context.Context, f func(ch *amqp.Channel) error) error {
	_, err := call(ctx, func() (struct{}, error) {
		ch, err := l.conn.Channel()
		if err != nil {
			return struct{}{}, err
		}
		err = f(ch)
		_ = ch.Close() // an error has closed it already
		return struct{}{}, err
	}, nil)
	return err
}

// withTimeout gives ctx a deadline if it has none.
func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return drivers.WithTimeout(ctx, dialTimeout)
}
