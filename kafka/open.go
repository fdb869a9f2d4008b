package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Config says where the brokers are, who we are, and how topics are made where they are missing. The zero value is 127.0.0.1:9092.
// Each field is also a parameter of the URL, by the name in quotes.
type Config struct {
	Servers  []string // host:port; several of one cluster in the URL with commas; "" = 127.0.0.1:9092
	ClientID string   // "client_id": for operators and quotas; "" = the program's name

	User, Password string                                    // in the URL user:password@; or User and "password_file"
	SASL           string                                    // "sasl": plain, scram-sha-256, scram-sha-512 or oauthbearer; "" = plain where there is a user
	TokenFile      string                                    // "token_file": of oauthbearer, read again for each connection
	Token          func(ctx context.Context) (string, error) // of oauthbearer, instead of TokenFile; not in the URL
	TLS            bool                                      // "tls=true"; implied by the next three
	CA             string                                    // "ca": path of a PEM file; "" = the system's
	Cert, Key      string                                    // "cert" and "key": paths of the client's PEM files
	ServerName     string                                    // "server_name": expected in the certificate; "" = the host

	Replicas    int               // "replicas": of topics that are made; 0 = 3, or as many as there are brokers
	Retention   time.Duration     // "retention": of topics that are made; 0 = the broker's
	Compression string            // "compression": none, gzip, snappy, lz4 or zstd, of what is published; "" = none
	Accept      pubsub.Durability // "durability": the least that is accepted, by its name; 0 = process

	SessionTimeout time.Duration // "session_timeout": a member that is silent for so long is dead; 0 = 10 s
	Instance       string        // "instance": static membership: a member of each group that comes back under this name within SessionTimeout gets its partitions back; "" = none
	ReadAll        bool          // "isolation=read_uncommitted": also messages of transactions that were aborted, or are not yet committed
}

const (
	urlHint       = "kafka://user:password@host:9092,host:9092?sasl=scram-sha-512&tls=true, see kafka.Config for all parameters"
	defaultServer = "127.0.0.1:9092"
)

func opening() drivers.Opening[Config] {
	return drivers.Opening[Config]{Broker: "kafka", Hint: urlHint, Parse: ParseURL, Classify: classify}
}

// Opener opens kafka:// URLs.
func Opener() pubsub.Opener {
	return pubsub.Opener{Schemes: []string{"kafka"}, Open: Open, Check: opening().Check}
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
	a, err := brokerurl.Parse(rawURL, "kafka")
	if err == nil {
		err = a.NoPath()
	}
	if err != nil {
		return c, err
	}
	c.Servers, c.User, c.Password = a.Hosts, a.User, a.Password
	if err := a.Parameters(c.set); err != nil {
		return c, err
	}
	return c, c.check()
}

func (c *Config) set(key, value string) (err error) {
	text := map[string]*string{
		"client_id": &c.ClientID, "sasl": &c.SASL, "token_file": &c.TokenFile, "ca": &c.CA, "cert": &c.Cert, "key": &c.Key,
		"server_name": &c.ServerName, "compression": &c.Compression, "instance": &c.Instance,
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
	case "session_timeout":
		c.SessionTimeout, err = time.ParseDuration(value)
	case "isolation":
		if c.ReadAll = value == "read_uncommitted"; !c.ReadAll && value != "read_committed" {
			return errors.New("parameter isolation is read_committed or read_uncommitted")
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
	if c.SASL == "" && c.User != "" {
		c.SASL = "plain"
	}
	password := false
	switch strings.ToLower(c.SASL) {
	case "", "oauthbearer":
	case "plain", "scram-sha-256", "scram-sha-512":
		password = true
	default:
		return errors.New("sasl is plain, scram-sha-256, scram-sha-512 or oauthbearer")
	}
	oauth := strings.EqualFold(c.SASL, "oauthbearer")
	if _, err := codec(c.Compression); err != nil {
		return err
	}
	if err := brokerurl.CheckHosts(c.Servers); err != nil {
		return err
	}
	switch {
	case password && c.User == "":
		return errors.New("sasl needs a user")
	case c.Password != "" && !password:
		return errors.New("a password needs a user")
	case oauth != (c.TokenFile != "" || c.Token != nil):
		return errors.New("oauthbearer and token_file belong together")
	case oauth && c.User != "":
		return errors.New("user and oauthbearer exclude each other")
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("cert and key belong together")
	case c.Replicas < 0 || c.Retention < 0:
		return errors.New("replicas and retention cannot be negative")
	case c.SessionTimeout != 0 && (c.SessionTimeout < time.Second || c.SessionTimeout > 24*time.Hour):
		return errors.New("session_timeout is 1s to 24h")
	}
	return nil
}

func codec(name string) (sarama.CompressionCodec, error) {
	if name == "" {
		return sarama.CompressionNone, nil
	}
	var c sarama.CompressionCodec
	if err := c.UnmarshalText([]byte(name)); err != nil {
		return c, errors.New("compression is none, gzip, snappy, lz4 or zstd")
	}
	return c, nil
}

func (c *Config) usesTLS() bool { return c.TLS || c.CA != "" || c.Cert != "" || c.ServerName != "" }

// client makes the client's configuration, without a lifetime.
func (c *Config) client() (*sarama.Config, error) {
	k := sarama.NewConfig()
	k.Version = sarama.MaxVersion // what a broker does not know is not asked of it
	k.MetricRegistry = silent{}
	k.ClientID = c.ClientID
	if k.ClientID == "" {
		k.ClientID = filepath.Base(os.Args[0])
	}
	k.Net.DialTimeout, k.Net.ReadTimeout, k.Net.WriteTimeout = dialTimeout, answerWithin, answerWithin
	k.Metadata.Full, k.Metadata.AllowAutoTopicCreation, k.Metadata.RefreshFrequency = false, false, 0
	var err error
	if c.usesTLS() {
		k.Net.TLS.Enable = true
		if k.Net.TLS.Config, err = brokerurl.TLS(c.CA, c.Cert, c.Key, c.ServerName); err != nil {
			return nil, err
		}
	}
	if c.SASL == "" {
		return k, nil
	}
	s := &k.Net.SASL
	s.Enable, s.User, s.Password, s.Version = true, c.User, c.Password, sarama.SASLHandshakeV1
	switch strings.ToLower(c.SASL) {
	case "plain":
		s.Mechanism = sarama.SASLTypePlaintext
	case "scram-sha-256":
		s.Mechanism, s.SCRAMClientGeneratorFunc = sarama.SASLTypeSCRAMSHA256, newSCRAM256
	case "scram-sha-512":
		s.Mechanism, s.SCRAMClientGeneratorFunc = sarama.SASLTypeSCRAMSHA512, newSCRAM512
	default:
		s.Mechanism, s.TokenProvider = sarama.SASLTypeOAuth, tokens{c.TokenFile, c.Token}
	}
	return k, nil
}

// Driver connects, for harnesses and tests; see Open.
func (c Config) Driver(ctx context.Context) (pubsub.Driver, error) {
	if err := c.check(); err != nil {
		return nil, &brokerError{pubsub.ErrInvalid, true, err.Error()}
	}
	if len(c.Servers) == 0 {
		c.Servers = []string{defaultServer}
	}
	c.Servers = slices.Clone(c.Servers) // the caller's stays as it is
	for i, s := range c.Servers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			c.Servers[i] = net.JoinHostPort(strings.Trim(s, "[]"), "9092")
		}
	}
	if c.SessionTimeout == 0 {
		c.SessionTimeout = 10 * time.Second
	}
	base, err := c.client()
	if err != nil {
		return nil, err
	}
	d := &driver{
		cfg: c, base: base, brokers: map[int32]string{}, idle: map[string][]*conn{}, topics: map[string]topicInfo{}, missed: map[string]time.Time{},
		sound: map[string]sarama.Uuid{}, groups: map[pubsub.Place]*definition{}, members: map[memberKey]*member{}, sessions: map[*producer]struct{}{},
	}
	d.life, d.end = context.WithCancel(context.WithoutCancel(ctx))
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if err := d.readCapabilities(ctx); err != nil {
		d.shut()
		return nil, err
	}
	return d, nil
}
