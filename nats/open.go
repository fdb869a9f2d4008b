package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Config says where the servers are, who we are, and what is made where it is missing. The zero value is JetStream on 127.0.0.1:4222.
// Each field is also a parameter of the URL, by the name in quotes.
type Config struct {
	Servers []string // host:port; several of one cluster in the URL with commas; "" = 127.0.0.1:4222
	Name    string   // "name": of the connection, for operators; "" = the program's

	User, Password string // in the URL user:password@; or User and "password_file"
	Token          string // "token"
	Creds          string // "creds": path of a credentials file
	NKey           string // "nkey": path of a file with an NKey seed
	TLS            bool   // "tls=true": TLS also where the server does not demand it; implied by the next three
	CA             string // "ca": path of a PEM file; "" = the system's
	Cert, Key      string // "cert" and "key": paths of the client's PEM files
	ServerName     string // "server_name": expected in the certificate; "" = the host

	Core bool // the scheme nats+core: at most once, without JetStream; excludes what follows

	Domain    string            // "domain": of JetStream; "" = the account's own
	Stream    string            // "stream": that has the topics, one segment; "" = "omnibus"
	Replicas  int               // "replicas": of streams that are made; 0 = 1
	Retention time.Duration     // "retention": of the topics' stream when it is made; 0 = for ever. Older messages go, read or not
	MaxBytes  int64             // "max_bytes": the same by size; 0 = no bound
	Memory    bool              // "storage=memory": streams that are made are lost with the server
	Dedup     time.Duration     // "dedup": window of streams that are made; 0 = 2 minutes
	Accept    pubsub.Durability // "durability": the least that is accepted, by its name; 0 = process
}

const (
	urlHint      = "nats://user:password@host:4222,host:4222?stream=NAME&replicas=N&creds=FILE, see nats.Config for all parameters"
	framing      = 16 << 10 // of MaxPayload: what the wire format adds to a message's own bytes
	dialTimeout  = 10 * time.Second
	pingInterval = 20 * time.Second // two without an answer end the connection
	writeTimeout = 10 * time.Second // a server that reads nothing for so long has failed: everything else waits for the client meanwhile
)

func opening() drivers.Opening[Config] {
	return drivers.Opening[Config]{Broker: "nats", Hint: urlHint, Parse: ParseURL, Classify: classify, Explain: func(err error) string {
		if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) {
			return "the adapter needs JetStream: switch it on for this account"
		}
		return ""
	}}
}

// Opener opens nats:// and nats+core:// URLs.
func Opener() pubsub.Opener {
	return pubsub.Opener{Schemes: []string{"nats", coreScheme}, Open: Open, Check: opening().Check}
}

// Open connects to rawURL. ctx bounds the opening only; 10 s where it has no deadline.
func Open(ctx context.Context, rawURL string, opts *pubsub.Options) (*pubsub.Broker, error) {
	return opening().URL(ctx, rawURL, opts)
}

// Open connects as c says, see the function Open.
func (c Config) Open(ctx context.Context, opts *pubsub.Options) (*pubsub.Broker, error) {
	return opening().Config(ctx, c, opts)
}

// ParseURL reads a URL. Its errors never repeat it.
func ParseURL(rawURL string) (c Config, err error) {
	a, err := brokerurl.Parse(rawURL, "nats", coreScheme)
	if err == nil {
		err = a.NoPath()
	}
	if err != nil {
		return c, err
	}
	c.Servers, c.User, c.Password, c.Core = a.Hosts, a.User, a.Password, a.Scheme == coreScheme
	if err := a.Parameters(c.set); err != nil {
		return c, err
	}
	return c, c.check()
}

func (c *Config) set(key, value string) (err error) {
	text := map[string]*string{
		"name": &c.Name, "token": &c.Token, "creds": &c.Creds, "nkey": &c.NKey, "ca": &c.CA, "cert": &c.Cert, "key": &c.Key,
		"server_name": &c.ServerName, "domain": &c.Domain, "stream": &c.Stream,
	}
	if c.Core && slices.Contains(keptParameters(), key) {
		return fmt.Errorf("parameter %q is JetStream's: %s", key, coreKeepsNothing)
	}
	if to := text[key]; to != nil {
		*to = value
		return nil
	}
	switch key {
	case "password_file":
		c.Password, err = brokerurl.Secret(value)
	case "tls":
		c.TLS, err = strconv.ParseBool(value)
	case "replicas":
		c.Replicas, err = strconv.Atoi(value)
	case "retention":
		c.Retention, err = time.ParseDuration(value)
	case "dedup":
		c.Dedup, err = time.ParseDuration(value)
	case "max_bytes":
		c.MaxBytes, err = strconv.ParseInt(value, 10, 64)
	case "storage":
		if c.Memory = value == "memory"; !c.Memory && value != "file" {
			err = errors.New("it is file or memory")
		}
	case "durability":
		c.Accept, err = brokerurl.Named(key, value, pubsub.Memory, pubsub.Replicated)
		return err
	default:
		return brokerurl.ErrNoParameter
	}
	if err != nil {
		return fmt.Errorf("parameter %q has no such value", key)
	}
	return nil
}

func (c *Config) check() error {
	ways := 0
	for _, used := range []bool{c.User != "", c.Token != "", c.Creds != "", c.NKey != ""} {
		if used {
			ways++
		}
	}
	switch {
	case ways > 1:
		return errors.New("user, token, creds and nkey exclude each other")
	case c.Password != "" && c.User == "":
		return errors.New("a password needs a user")
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("cert and key belong together")
	case c.Core && c.keeps():
		return errors.New("Core excludes Domain, Stream, Replicas, Retention, MaxBytes, Memory, Dedup and Accept: " + coreKeepsNothing)
	case c.Replicas < 0 || c.Replicas > 5:
		return errors.New("replicas is 1 to 5")
	case c.Retention < 0 || c.Dedup < 0 || c.MaxBytes < 0:
		return errors.New("retention, dedup and max_bytes cannot be negative")
	case c.Stream != "" && (!regexp.MustCompile(`^[A-Za-z0-9_-]{1,60}$`).MatchString(c.Stream) || strings.Contains(c.Stream, "__")):
		return errors.New("stream is one segment of A-Z a-z 0-9 _ -, without \"__\"")
	}
	return brokerurl.CheckHosts(c.Servers)
}

func (c *Config) storage() jetstream.StorageType {
	if c.Memory {
		return jetstream.MemoryStorage
	}
	return jetstream.FileStorage
}

// Driver connects, for harnesses and tests; see Open.
func (c Config) Driver(ctx context.Context) (pubsub.Driver, error) {
	if err := c.check(); err != nil {
		return nil, &brokerError{pubsub.ErrInvalid, true, err.Error()}
	}
	if c.Core {
		return c.coreDriver(ctx)
	}
	if c.Stream == "" {
		c.Stream = "omnibus"
	}
	if c.Dedup == 0 {
		c.Dedup = 2 * time.Minute
	}
	d := &driver{
		cfg: c, names: names{c.Stream}, dialing: make(chan struct{}, 1), sessions: map[session]*link{}, topics: map[string]int{}, done: map[consumerName]map[uint64]uint64{}, tails: map[string]uint64{},
		groups: map[pubsub.Place]struct{}{},
	}
	at, err := d.dial(ctx, nil)
	if err != nil {
		return nil, err
	}
	d.at.Store(at)
	if err := d.readCapabilities(ctx); err != nil {
		at.nc.Close()
		return nil, err
	}
	return d, nil
}

// connect dials until ctx ends. broke is called when the connection breaks. opts come last.
func (c *Config) connect(ctx context.Context, more []string, broke func(error), opts ...client.Option) (*client.Conn, error) {
	o := client.GetDefaultOptions()
	o.Name, o.Timeout, o.AllowReconnect = c.Name, dialTimeout, false
	if at, ok := ctx.Deadline(); ok {
		o.Timeout = max(time.Until(at), time.Millisecond)
	}
	o.PingInterval, o.FlusherTimeout = pingInterval, writeTimeout
	o.CustomDialer = dialer(func(network, address string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	})
	o.DisconnectedErrCB = func(_ *client.Conn, err error) { broke(err) }
	o.AsyncErrorCB = func(*client.Conn, *client.Subscription, error) {} // the default prints to the standard error
	for _, s := range c.Servers {
		o.Servers = append(o.Servers, "nats://"+s)
	}
	if len(o.Servers) == 0 {
		o.Servers = []string{client.DefaultURL}
	}
	o.Servers = append(o.Servers, more...)
	for _, opt := range append(c.auth(), opts...) {
		if err := opt(&o); err != nil {
			return nil, says(pubsub.ErrUnauthenticated, "%v", err)
		}
	}
	nc, err := o.Connect()
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	return nc, err
}

// A dialer is a function that is a nats.CustomDialer.
type dialer func(network, address string) (net.Conn, error)

// Dial implements nats.CustomDialer.
func (d dialer) Dial(network, address string) (net.Conn, error) { return d(network, address) }

func (c *Config) usesTLS() bool { return c.TLS || c.CA != "" || c.Cert != "" || c.ServerName != "" }

func (c *Config) auth() (opts []client.Option) {
	switch {
	case c.User != "":
		opts = append(opts, client.UserInfo(c.User, c.Password))
	case c.Token != "":
		opts = append(opts, client.Token(c.Token))
	case c.Creds != "":
		opts = append(opts, client.UserCredentials(c.Creds))
	case c.NKey != "":
		opts = append(opts, func(o *client.Options) error {
			opt, err := client.NkeyOptionFromSeed(c.NKey)
			if err != nil {
				return err
			}
			return opt(o)
		})
	}
	if c.usesTLS() {
		opts = append(opts, client.Secure(&tls.Config{ServerName: c.ServerName, MinVersion: tls.VersionTLS12}))
	}
	if c.CA != "" {
		opts = append(opts, client.RootCAs(c.CA))
	}
	if c.Cert != "" {
		opts = append(opts, client.ClientCert(c.Cert, c.Key))
	}
	return opts
}

// readCapabilities asks the server what it can do, and the stream how it keeps messages; where there is none yet, how it will be made.
func (d *driver) readCapabilities(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if _, err := d.now().js.AccountInfo(ctx); err != nil {
		return err
	}
	cfg := d.streamConfig(pubsub.TopicSpec{})
	cfg.AllowMsgSchedules = serverAtLeast(d.now().nc, 2, 12)
	have, err := d.stream(ctx, d.cfg.Stream)
	switch {
	case err == nil:
		cfg = have.Config
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return err
	}
	d.caps = pubsub.Capabilities{
		OptedDown: d.cfg.Accept != 0, History: true, Redelivery: true, Exclusive: serverAtLeast(d.now().nc, 2, 11), LeaseMax: pubsub.Forever,
		Deliveries: true, RetryIn: pubsub.Forever, RetryLate: time.Second, Schedule: cfg.AllowMsgSchedules, Patterns: true, Partitions: true, Dedup: cfg.Duplicates,
		MaxMessage: maxMessage(d.now().nc), Lag: pubsub.LagExact, Waiting: pubsub.WaitingManaged,
	}
	d.caps.Durability = durability(&cfg)
	if d.cfg.Accept > d.caps.Durability {
		return says(pubsub.ErrUnsupported, "the durability of the stream %q is %v, and at least %v is asked for", d.cfg.Stream, d.caps.Durability, d.cfg.Accept)
	}
	return nil
}

// durability is what a confirmation of a stream covers.
func durability(cfg *jetstream.StreamConfig) pubsub.Durability {
	switch {
	case cfg.Storage == jetstream.MemoryStorage:
		return pubsub.Memory
	case cfg.Replicas >= 3:
		return pubsub.Replicated
	}
	return pubsub.Process
}

// durable refuses a stream that keeps less than this Broker has declared when it was opened.
func (d *driver) durable(cfg *jetstream.StreamConfig) error {
	if have := durability(cfg); have < d.caps.Durability {
		return says(pubsub.ErrConflict, "the durability of the stream %q is %v, and this Broker was opened for %v: open another one", cfg.Name, have, d.caps.Durability)
	}
	return nil
}

func maxMessage(nc *client.Conn) int64 {
	limit := nc.MaxPayload()
	return limit - min(pubsub.Headroom+framing, limit/2)
}

// serverAtLeast compares the connected server's version.
func serverAtLeast(nc *client.Conn, major, minor int) bool {
	a, rest, _ := strings.Cut(nc.ConnectedServerVersion(), ".")
	b, _, _ := strings.Cut(rest, ".")
	x, errX := strconv.Atoi(a)
	y, errY := strconv.Atoi(b)
	return errX == nil && errY == nil && (x > major || x == major && y >= minor)
}

// api is the subject of a JetStream request.
func (d *driver) api(request string) string {
	if d.cfg.Domain != "" {
		return "$JS." + d.cfg.Domain + ".API." + request
	}
	return "$JS.API." + request
}
