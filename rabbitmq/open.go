package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Config says where the nodes are, who we are, and what is made where it is missing. The zero value is guest on 127.0.0.1:5672.
// Each field is also a parameter of the URL, by the name in quotes.
type Config struct {
	Servers []string // host:port; several of one cluster in the URL with commas, tried in turn; "" = 127.0.0.1:5672
	Vhost   string   // the path of the URL, "/" in it as %2F; "" = "/"
	Name    string   // "name": of the connections, for operators; "" = the program's

	User, Password string // in the URL user:password@; or User and "password_file"; "" = guest
	External       bool   // "auth=external": the certificate says who we are; excludes User
	TLS            bool   // the scheme amqps; implied by the next three
	CA             string // "ca": path of a PEM file; "" = the system's
	Cert, Key      string // "cert" and "key": paths of the client's PEM files
	ServerName     string // "server_name": expected in the certificate; "" = the host

	Exchange  string            // "exchange": that has the topics; one that is there is used as it is; "" = "omnibus", of the type topic
	Queues    string            // "queues": what the groups' queues are called that are there, with {topic} and {group}, to use them as they are; "" = they are ours
	Classic   bool              // "queue_type=classic" instead of quorum: of groups that are made
	Replicas  int               // "replicas": of quorum queues and streams that are made; 0 = the broker's
	Heartbeat time.Duration     // "heartbeat": a connection that is silent for twice as long is broken; 0 = 10s
	MaxSize   int64             // "max_size": the server's max_message_size, where it is not the default; 0 = that of its version
	Accept    pubsub.Durability // "durability": the least that is accepted, by its name; 0 = process
}

const urlHint = "amqp://user:password@host:5672,host:5672/vhost?exchange=NAME&queue_type=quorum, see rabbitmq.Config for all parameters"

func opening() drivers.Opening[Config] {
	return drivers.Opening[Config]{Broker: "rabbitmq", Hint: urlHint, Parse: ParseURL, Classify: classify}
}

// Opener opens amqp:// and amqps:// URLs.
func Opener() pubsub.Opener {
	return pubsub.Opener{Schemes: []string{"amqp", "amqps"}, Open: Open, Check: opening().Check}
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
	a, err := brokerurl.Parse(rawURL, "amqp", "amqps")
	if err != nil {
		return c, err
	}
	c.Servers, c.User, c.Password, c.TLS, c.Vhost = a.Hosts, a.User, a.Password, a.Scheme == "amqps", strings.TrimPrefix(a.Path, "/")
	if err := a.Parameters(c.set); err != nil {
		return c, err
	}
	return c, c.check()
}

func (c *Config) set(key, value string) (err error) {
	text := map[string]*string{
		"name": &c.Name, "ca": &c.CA, "cert": &c.Cert, "key": &c.Key, "server_name": &c.ServerName, "exchange": &c.Exchange, "queues": &c.Queues,
	}
	if to := text[key]; to != nil {
		*to = value
		return nil
	}
	switch key {
	case "password_file":
		c.Password, err = brokerurl.Secret(value)
	case "auth":
		if c.External = value == "external"; !c.External && value != "plain" {
			err = errors.New("it is plain or external")
		}
	case "queue_type":
		if c.Classic = value == "classic"; !c.Classic && value != "quorum" {
			err = errors.New("it is quorum or classic")
		}
	case "replicas":
		c.Replicas, err = strconv.Atoi(value)
	case "heartbeat":
		c.Heartbeat, err = time.ParseDuration(value)
	case "max_size":
		c.MaxSize, err = strconv.ParseInt(value, 10, 64)
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
	switch {
	case c.Password != "" && c.User == "":
		return errors.New("a password needs a user")
	case c.External && c.User != "":
		return errors.New("a user and auth=external exclude each other")
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("cert and key belong together")
	case c.External && c.Cert == "":
		return errors.New("auth=external needs cert and key")
	case len(c.Exchange) > maxExchange:
		return fmt.Errorf("exchange has %d bytes at most", maxExchange)
	case c.Queues != "" && !strings.Contains(c.Queues, "{group}"):
		return errors.New("queues has {group} in it, and {topic} where groups of two topics have one name")
	case c.Queues != "" && (c.Classic || c.Replicas != 0):
		return errors.New("queues excludes queue_type and replicas: those queues are there")
	case c.Replicas < 0 || c.MaxSize < 0:
		return errors.New("replicas and max_size cannot be negative")
	case c.Heartbeat != 0 && (c.Heartbeat < time.Second || c.Heartbeat > time.Hour):
		return errors.New("heartbeat is 1s to 1h")
	}
	return brokerurl.CheckHosts(c.Servers)
}

func (c *Config) usesTLS() bool { return c.TLS || c.CA != "" || c.Cert != "" || c.ServerName != "" }

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	port := "5672"
	if c.usesTLS() {
		port = "5671"
	}
	if len(c.Servers) == 0 {
		c.Servers = []string{"127.0.0.1"}
	}
	servers := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		if servers[i] = s; !hasPort(s) {
			servers[i] = net.JoinHostPort(strings.Trim(s, "[]"), port)
		}
	}
	c.Servers = servers
	if c.Vhost == "" {
		c.Vhost = "/"
	}
	if c.Name == "" {
		c.Name = filepath.Base(os.Args[0])
	}
	if c.User == "" {
		c.User, c.Password = "guest", "guest"
	}
	if c.Exchange == "" {
		c.Exchange = defaultExchange
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	return c
}

func hasPort(host string) bool {
	_, _, err := net.SplitHostPort(host)
	return err == nil
}

// client makes the client's configuration for one connection.
func (c *Config) client(purpose string) amqp.Config {
	about := amqp.Table{"product": "omnibus", "platform": "Go", "connection_name": c.Name + ", " + purpose}
	who := &login{"PLAIN", "\x00" + c.User + "\x00" + c.Password, about}
	if c.External {
		who = &login{"EXTERNAL", "", about}
	}
	return amqp.Config{SASL: []amqp.Authentication{who}, Vhost: c.Vhost, Heartbeat: c.Heartbeat, Properties: about, Locale: "en_US"}
}

// Driver connects, for harnesses and tests; see Open.
func (c Config) Driver(ctx context.Context) (pubsub.Driver, error) {
	if err := c.check(); err != nil {
		return nil, &brokerError{pubsub.ErrInvalid, true, err.Error()}
	}
	c = c.withDefaults()
	d := &driver{cfg: c, names: names{c.Exchange, c.Queues}, topics: map[string]seenTopic{}, lanes: map[pubsub.Place]int{}}
	d.in, d.out = newLine(&d.cfg, "consuming"), newLine(&d.cfg, "publishing")
	at, err := d.in.connected(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.readCapabilities(at); err != nil {
		at.close(ctx)
		return nil, err
	}
	return d, nil
}
