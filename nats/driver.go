package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Positions: the sequence number in a stream, and which of the three.
const (
	positionKind = 4
	storeMain    = 0
	storeWork    = 1
	storeDead    = 2
)

const maxOwed = 4096

func storeOf(k pubsub.PlaceKind) int32 {
	switch k {
	case pubsub.PlaceMain:
		return storeMain
	case pubsub.PlaceDead, pubsub.PlaceState:
		return storeDead
	}
	return storeWork
}

// A driver is one connection after the other, for JetStream.
type driver struct {
	cfg     Config
	names   names
	caps    pubsub.Capabilities
	maxAge  atomic.Int64 // of the topics' stream, when it was read last; 0 = for ever
	at      atomic.Pointer[link]
	dialing chan struct{} // holds a token while a link is opened

	mu       sync.Mutex
	sessions map[session]*link
	owed     []answer
	done     map[consumerName]map[uint64]uint64
	tails    map[string]uint64         // where live tails go on, by their members
	topics   map[string]int            // partitions of those that were seen
	groups   map[pubsub.Place]struct{} // those whose private places were seen; Kind is PlaceMain
	closed   bool
}

// A session ends when the connection breaks.
type session interface{ die(err error) }

var (
	_ pubsub.Driver      = (*driver)(nil)
	_ pubsub.Browser     = (*driver)(nil)
	_ pubsub.Lagger      = (*driver)(nil)
	_ pubsub.Seeker      = (*driver)(nil)
	_ pubsub.Purger      = (*driver)(nil)
	_ pubsub.Waiter      = (*driver)(nil)
	_ pubsub.Rescheduler = (*driver)(nil)
	_ pubsub.Lister      = (*driver)(nil)
)

// A brokerError is what this adapter itself finds.
type brokerError struct {
	code  pubsub.Code
	final bool
	text  string
}

func (e *brokerError) Error() string { return "nats: " + e.text }

func says(code pubsub.Code, format string, args ...any) error {
	return &brokerError{code, true, fmt.Sprintf(format, args...)}
}

var (
	errGone       = &brokerError{pubsub.ErrUnavailable, false, "the session is closed"}
	errLate       = &brokerError{pubsub.ErrUnavailable, false, "a message that waited here was not renewed in time"}
	errDown       = &brokerError{pubsub.ErrUnavailable, false, "not connected"}
	errStale      = &brokerError{pubsub.ErrLeaseLost, true, "the lease is over"}
	errNoStream   = &brokerError{pubsub.ErrUnavailable, false, "no stream took the message"}
	errNoConsumer = &brokerError{pubsub.ErrUnavailable, false, "nobody answers for the consumer"}
	errSilent     = &brokerError{pubsub.ErrUnavailable, false, "the server sends no heartbeats for a pull request"}
)

// Name implements pubsub.Driver.
func (d *driver) Name() string { return "nats" }

// Capabilities implements pubsub.Driver.
func (d *driver) Capabilities() pubsub.Capabilities { return d.caps }

// Classify implements pubsub.Driver.
func (d *driver) Classify(err error) (pubsub.Code, bool) { return classify(err) }

func classify(err error) (pubsub.Code, bool) {
	if e, ok := errors.AsType[*brokerError](err); ok {
		return e.code, e.final
	}
	if e, ok := errors.AsType[*jetstream.APIError](err); ok {
		return classifyAPI(e)
	}
	if brokerurl.Untrusted(err) {
		return pubsub.ErrUnauthenticated, true
	}
	for _, c := range []struct {
		code  pubsub.Code
		final bool
		errs  []error
	}{
		{pubsub.ErrUnauthenticated, true, []error{client.ErrAuthorization, client.ErrAuthExpired, client.ErrAuthRevoked, client.ErrAccountAuthExpired}},
		{pubsub.ErrDenied, true, []error{client.ErrPermissionViolation}},
		{pubsub.ErrTooLarge, true, []error{client.ErrMaxPayload}},
		{pubsub.ErrNotFound, true, []error{jetstream.ErrStreamNotFound, jetstream.ErrConsumerNotFound, jetstream.ErrConsumerDoesNotExist, jetstream.ErrConsumerDeleted}},
		{pubsub.ErrConflict, true, []error{jetstream.ErrConsumerExists, jetstream.ErrStreamNameAlreadyInUse}},
		{pubsub.ErrUnsupported, true, []error{jetstream.ErrJetStreamNotEnabled, jetstream.ErrJetStreamNotEnabledForAccount}},
		{pubsub.ErrInvalid, true, []error{client.ErrBadHeaderMsg, client.ErrBadSubject, client.ErrSecureConnWanted}},
		{pubsub.ErrUnavailable, false, []error{
			client.ErrConnectionClosed, client.ErrConnectionReconnecting, client.ErrDisconnected, client.ErrNoServers, client.ErrTimeout, client.ErrNoResponders,
			client.ErrReconnectBufExceeded, client.ErrStaleConnection, client.ErrBadSubscription, jetstream.ErrNoStreamResponse, client.ErrMaxConnectionsExceeded,
		}},
	} {
		for _, e := range c.errs {
			if errors.Is(err, e) {
				return c.code, c.final
			}
		}
	}
	switch text := strings.ToLower(err.Error()); { // what a server says when it refuses a connection comes as text only
	case strings.Contains(text, "authorization"), strings.Contains(text, "authentication"), strings.Contains(text, "remote error: tls:"),
		strings.Contains(text, "nkeys: "), strings.Contains(text, "after tls handshake"): // it wants a certificate, and hung up before it was heard
		return pubsub.ErrUnauthenticated, true
	case strings.Contains(text, "permissions violation"):
		return pubsub.ErrDenied, true
	}
	return pubsub.ErrUnavailable, false // the network's
}

// classifyAPI reads the error of a JetStream request, or of a publish.
func classifyAPI(e *jetstream.APIError) (pubsub.Code, bool) {
	switch e.ErrorCode {
	case 10002, 10023, 10028, 10047, 10077, 10120, 10121, 10122, 10026, 10027: // resources, storage, bytes, messages, accounts' limits
		return pubsub.ErrExhausted, true
	case 10054, 10097: // message, headers
		return pubsub.ErrTooLarge, true
	case 10058, 10065, 10105, 10148, 10013, 10100:
		return pubsub.ErrConflict, true
	case 10076, 10039:
		return pubsub.ErrUnsupported, true
	}
	switch e.Code {
	case 404:
		return pubsub.ErrNotFound, true
	case 408, 503:
		return pubsub.ErrUnavailable, false
	case 401:
		return pubsub.ErrUnauthenticated, true
	case 403:
		return pubsub.ErrDenied, true
	}
	return pubsub.ErrBroker, true
}

// A link is one connection from its beginning to its end: the client's own way to reconnect would let what was written before the break,
// or during it, be stored behind what is sent again. A session belongs to one link, and ends with it.
type link struct {
	nc  *client.Conn
	js  api
	raw net.Conn
}

// cut ends the connection while the client writes to it, and would not let go of it for anything else.
func (l *link) cut() { _ = l.raw.Close() }

// An answer is a settlement that could not be sent before the connection broke.
type answer struct {
	to   string
	body []byte
}

// now is the link that was opened last.
func (d *driver) now() *link { return d.at.Load() }

// connected returns the link, after opening the next one if it is broken.
func (d *driver) connected(ctx context.Context) (*link, error) {
	select {
	case d.dialing <- struct{}{}:
		defer func() { <-d.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	at := d.now()
	if at.nc.IsConnected() {
		return at, nil
	}
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return nil, errGone
	}
	next, err := d.dial(ctx, d.others(at))
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		next.nc.Close()
		return nil, errGone
	}
	for _, a := range d.owed { // before anything else is asked of the server
		_ = next.nc.Publish(a.to, a.body) // else those messages come again when their leases end
	}
	d.owed = nil
	d.at.Store(next)
	return next, nil
}

// others are the servers that a link knew beside those of the Config: the client would count them among its own, and tell us no more. Over TLS one that is
// known by its IP alone is left out: certificates are made for names.
func (d *driver) others(at *link) []string {
	secure := at.nc.TLSRequired() || d.cfg.usesTLS()
	return slices.DeleteFunc(at.nc.Servers(), func(server string) bool {
		u, err := url.Parse(server)
		return err != nil || slices.Contains(d.cfg.Servers, u.Host) || secure && net.ParseIP(u.Hostname()) != nil
	})
}

// dial opens a link. opts come last.
func (d *driver) dial(ctx context.Context, servers []string, opts ...client.Option) (*link, error) {
	at := &link{}
	broke := make(chan struct{})
	opts = append(opts, client.ErrorHandler(func(_ *client.Conn, _ *client.Subscription, err error) {
		<-broke
		d.complain(at, err)
	}), func(o *client.Options) error {
		dial := o.CustomDialer
		o.CustomDialer = dialer(func(network, address string) (_ net.Conn, err error) {
			at.raw, err = dial.Dial(network, address)
			return at.raw, err
		})
		return nil
	})
	nc, err := d.cfg.connect(ctx, servers, func(err error) {
		<-broke // at is complete
		d.dropped(at, err)
	}, opts...)
	if err != nil {
		return nil, err
	}
	defer close(broke)
	at.nc = nc
	if d.cfg.Domain != "" {
		at.js.JetStream, err = jetstream.NewWithDomain(nc, d.cfg.Domain)
	} else {
		at.js.JetStream, err = jetstream.New(nc)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return at, nil
}

// owe keeps what could not be said, until the next link, and what is done, until the next session. The oldest is forgotten first.
func (d *driver) owe(list []answer, done map[consumerName]map[uint64]uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(d.done, done)
	if at := d.now(); at.nc.IsConnected() { // another session was faster
		for _, a := range list {
			_ = at.nc.Publish(a.to, a.body) // else those messages come again when their leases end
		}
		return
	}
	d.owed = append(d.owed, list...)
	if over := len(d.owed) - maxOwed; over > 0 {
		d.owed = d.owed[over:]
	}
}

// doneBefore is what the session before has acked of a consumer: of this one, not of one of the same name that was made later.
func (d *driver) doneBefore(c consumerName) map[uint64]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	done := d.done[c]
	delete(d.done, c)
	return done
}

// add registers a session, so that it ends with its link.
func (d *driver) add(at *link, s session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || !at.nc.IsConnected() {
		return errGone
	}
	d.sessions[s] = at
	return nil
}

func (d *driver) remove(s session) {
	d.mu.Lock()
	delete(d.sessions, s)
	d.mu.Unlock()
}

// dropped is called when a link breaks: it ends the sessions, so that the engine opens the next ones.
func (d *driver) dropped(at *link, err error) {
	if err == nil {
		err = errDown
	}
	for _, s := range d.take(at) {
		s.die(err)
	}
	d.forget()
}

// take removes the sessions of a link, or all.
func (d *driver) take(at *link) (all []session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for s, on := range d.sessions {
		if at == nil || on == at {
			all = append(all, s)
			delete(d.sessions, s)
		}
	}
	return all
}

// forget lets the next publish look for its topic again.
func (d *driver) forget() {
	d.mu.Lock()
	clear(d.topics)
	clear(d.groups)
	d.mu.Unlock()
}

// stream reads the settings of a stream.
func (d *driver) stream(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	s, err := d.now().js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	info := s.CachedInfo()
	if name == d.names.stream {
		d.maxAge.Store(int64(info.Config.MaxAge))
	}
	return info, nil
}

// partitions finds a topic.
func (d *driver) partitions(ctx context.Context, topic string) (int, error) {
	d.mu.Lock()
	n := d.topics[topic]
	d.mu.Unlock()
	if n > 0 {
		return n, nil
	}
	info, err := d.stream(ctx, d.names.stream)
	if err == nil && !has(info, topic) {
		err = jetstream.ErrStreamNotFound
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, says(pubsub.ErrUnroutable, "there is no topic %q in the stream %q", topic, d.names.stream)
	}
	if err == nil {
		err = d.durable(&info.Config)
	}
	if err != nil {
		return 0, err
	}
	n = partsOf(info, topic)
	d.mu.Lock()
	d.topics[topic] = n
	d.mu.Unlock()
	return n, nil
}

func has(info *jetstream.StreamInfo, topic string) bool {
	for _, s := range info.Config.Subjects {
		if covers(s, topic) {
			return true
		}
	}
	return false
}

func partsOf(info *jetstream.StreamInfo, topic string) int {
	n, err := strconv.Atoi(info.Config.Metadata[partsKey+topic])
	if err != nil {
		return 1
	}
	return max(n, 1)
}

// groupExists finds the group of a private place.
func (d *driver) groupExists(ctx context.Context, p pubsub.Place) error {
	p.Kind, p.Tier = pubsub.PlaceMain, 0
	d.mu.Lock()
	_, ok := d.groups[p]
	d.mu.Unlock()
	if ok {
		return nil
	}
	_, err := d.now().js.Consumer(ctx, d.names.work(), durable(p, 0))
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) {
		return says(pubsub.ErrUnroutable, "there is no group %q of %q", p.Group, p.Topic)
	}
	if err == nil {
		d.mu.Lock()
		d.groups[p] = struct{}{}
		d.mu.Unlock()
	}
	return err
}

// Ping implements pubsub.Driver.
func (d *driver) Ping(ctx context.Context) error {
	at, err := d.connected(ctx)
	if err != nil {
		return err
	}
	return flush(ctx, at.nc)
}

// flush waits until the server has read what was written before.
func flush(ctx context.Context, nc *client.Conn) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	return nc.FlushWithContext(ctx)
}

// withTimeout gives a request a deadline where the engine gave none: the client wants one.
func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return drivers.WithTimeout(ctx, 10*time.Second)
}

// As implements pubsub.Driver: target may be a **nats.Conn or a *jetstream.JetStream.
func (d *driver) As(target any) bool {
	switch t := target.(type) {
	case **client.Conn:
		*t = d.now().nc
	case *jetstream.JetStream:
		*t = d.now().js.JetStream
	default:
		return false
	}
	return true
}

// Close implements pubsub.Driver. What sources still hold goes back.
func (d *driver) Close(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	all := d.take(nil)
	for _, s := range all {
		if src, ok := s.(*source); ok {
			src.shut(ctx)
		}
		s.die(errGone)
	}
	nc := d.now().nc
	if len(all) > 0 && nc.IsConnected() {
		_ = flush(ctx, nc) // else it comes back when its leases end
	}
	nc.Close()
	return nil
}
