package redisstreams

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Config says where the servers are, who we are, and what is made where it is missing. The zero value is one server on 127.0.0.1:6379.
// Each field is also a parameter of the URL, by the name in quotes.
type Config struct {
	Servers []string // host:port; of a cluster or of sentinels several, in the URL with commas; "" = 127.0.0.1:6379
	Cluster bool     // the scheme redis+cluster: the Servers are some nodes of a cluster
	Master  string   // the scheme redis+sentinel, whose path it is: the Servers are sentinels that watch a server of this name
	DB      int      // in the URL the path: redis://host/3; 0 in a cluster
	Name    string   // "name": of the connections, for operators; "" = none

	User, Password string // in the URL user:password@, or :password@; or User and "password_file"
	TLS            bool   // the scheme rediss, or "tls=true"; implied by the next three
	CA             string // "ca": path of a PEM file; "" = the system's
	Cert, Key      string // "cert" and "key": paths of the client's PEM files
	ServerName     string // "server_name": expected in the certificate; "" = the host

	Wait      int               // "wait": how many replicas have a message before it is confirmed; 0 = none
	WaitAOF   bool              // "waitaof=true": it is in the append-only files, the server's and those of Wait replicas, before it is confirmed
	Retention time.Duration     // "retention": of topics that are made; 0 = for ever. Older messages go once each group has acked them
	Dedup     time.Duration     // "dedup": how long the tokens of messages are remembered; 0 = 2 minutes
	Accept    pubsub.Durability // "durability": the least that is accepted, by its name; what there is, where settings may not be read; 0 = process
}

const (
	schemePlain    = "redis"
	schemeTLS      = "rediss"
	schemeCluster  = "redis+cluster"
	schemeSentinel = "redis+sentinel"

	urlHint = "redis://user:password@host:6379/0?wait=1&ca=FILE, rediss://, redis+cluster://host,host or redis+sentinel://host,host/master, see redisstreams.Config for all parameters" //nolint:gosec // an example

	defaultServer = "127.0.0.1:6379"
	defaultDedup  = 2 * time.Minute
	dialTimeout   = 5 * time.Second
	answerWithin  = 5 * time.Second // else the connection counts as broken
	maxMessage    = 16 << 20        // Redis would take more, and answer nobody else meanwhile
)

func opening() drivers.Opening[Config] {
	return drivers.Opening[Config]{Broker: adapter, Hint: urlHint, Parse: ParseURL, Classify: classify}
}

// Opener opens redis://, rediss://, redis+cluster:// and redis+sentinel:// URLs.
func Opener() pubsub.Opener {
	return pubsub.Opener{Schemes: []string{schemePlain, schemeTLS, schemeCluster, schemeSentinel}, Open: Open, Check: opening().Check}
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
	a, err := brokerurl.Parse(rawURL, schemePlain, schemeTLS, schemeCluster, schemeSentinel)
	if err != nil {
		return c, err
	}
	c.Servers, c.User, c.Password = a.Hosts, a.User, a.Password
	c.Cluster, c.TLS = a.Scheme == schemeCluster, a.Scheme == schemeTLS
	path := strings.TrimPrefix(a.Path, "/")
	switch a.Scheme {
	case schemeCluster:
		err = a.NoPath()
	case schemeSentinel:
		if c.Master = path; path == "" || strings.Contains(path, "/") {
			err = errors.New("the path of a URL of redis+sentinel is the name of the master")
		}
	default:
		if path != "" {
			if c.DB, err = strconv.Atoi(path); err != nil {
				err = errors.New("the path of a URL of redis is the number of a database")
			}
		}
	}
	if err == nil {
		err = a.Parameters(c.set)
	}
	if err != nil {
		return c, err
	}
	return c, c.check()
}

func (c *Config) set(key, value string) (err error) {
	text := map[string]*string{"name": &c.Name, "ca": &c.CA, "cert": &c.Cert, "key": &c.Key, "server_name": &c.ServerName}
	if to := text[key]; to != nil {
		*to = value
		return nil
	}
	switch key {
	case "password_file":
		c.Password, err = brokerurl.Secret(value)
	case "tls":
		c.TLS, err = strconv.ParseBool(value)
	case "wait":
		c.Wait, err = strconv.Atoi(value)
	case "waitaof":
		c.WaitAOF, err = strconv.ParseBool(value)
	case "retention":
		c.Retention, err = time.ParseDuration(value)
	case "dedup":
		c.Dedup, err = time.ParseDuration(value)
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
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("cert and key belong together")
	case c.User != "" && c.Password == "":
		return errors.New("a user needs a password")
	case c.Cluster && (c.Master != "" || c.DB != 0):
		return errors.New("a cluster has neither sentinels nor databases")
	case !c.Cluster && c.Master == "" && len(c.Servers) > 1:
		return errors.New("several servers are a cluster, or sentinels: redis+cluster:// or redis+sentinel://")
	case c.DB < 0 || c.Wait < 0 || c.Retention < 0 || c.Dedup < 0:
		return errors.New("database, wait, retention and dedup cannot be negative")
	}
	return brokerurl.CheckHosts(c.Servers)
}

// Driver connects, for harnesses and tests; see Open.
func (c Config) Driver(ctx context.Context) (pubsub.Driver, error) {
	if err := c.check(); err != nil {
		return nil, says(pubsub.ErrInvalid, "%v", err)
	}
	if len(c.Servers) == 0 {
		c.Servers = []string{defaultServer}
	}
	servers := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		if servers[i] = s; !strings.Contains(s[strings.LastIndexByte(s, ']')+1:], ":") {
			servers[i] = s + ":6379"
		}
	}
	c.Servers = servers
	if c.Dedup == 0 {
		c.Dedup = defaultDedup
	}
	d := &driver{cfg: c, id: rand.Text(), sessions: map[session]struct{}{}, topics: map[string]int{}, tails: map[tail]entryID{}}
	var err error
	if c.TLS || c.CA != "" || c.Cert != "" || c.ServerName != "" {
		if d.tls, err = brokerurl.TLS(c.CA, c.Cert, c.Key, c.ServerName); err != nil {
			return nil, err
		}
	}
	d.client = d.connect()
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if err = await(ctx, func() error { return d.readCapabilities(ctx) }); err != nil {
		return nil, errors.Join(err, d.client.Close())
	}
	return d, nil
}

// readCapabilities asks the servers how they keep what they store.
func (d *driver) readCapabilities(ctx context.Context) error {
	d.caps = pubsub.Capabilities{
		OptedDown: d.cfg.Accept != 0, History: true, Redelivery: true, Exclusive: true, LeaseMax: pubsub.Forever, Deliveries: true,
		StoresAttempts: pubsub.StoresAll, FreeRelease: true, RetryIn: pubsub.Forever, RetryLate: time.Second, Schedule: true, Partitions: true, Dedup: d.cfg.Dedup,
		MaxMessage: maxMessage, Lag: pubsub.LagExact, Waiting: pubsub.WaitingManaged,
	}
	if err := d.client.Ping(ctx).Err(); err != nil {
		return err
	}
	d.idempotent = d.probe(ctx, "COMMAND", "INFO", "XCFGSET") == nil
	least, err := d.durability(ctx)
	if redis.IsPermissionError(err) || err != nil && strings.HasPrefix(err.Error(), "ERR unknown command") {
		if d.cfg.Accept == 0 {
			return says(pubsub.ErrUnsupported, "this user may not read how the server keeps its data (CONFIG GET): say so with ?durability=, what is stated there is believed")
		}
		least, err = d.cfg.Accept, nil
	}
	if err != nil {
		return err
	}
	if d.cfg.WaitAOF {
		err := d.eachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return c.Do(ctx, "WAITAOF", 1, 0, 1).Err() })
		if err != nil {
			return says(pubsub.ErrUnsupported, "waitaof=true: %v", err)
		}
		least = max(least, pubsub.Disk)
	}
	if d.cfg.Wait > 0 {
		least = pubsub.Replicated
	}
	if d.caps.Durability = least; d.cfg.Accept > least {
		return says(pubsub.ErrUnsupported, "its durability is %v, and at least %v is asked for", least, d.cfg.Accept)
	}
	return nil
}

// forgets says whether the server, when it starts again, loses what scripts have written: before 8.6 Redis loads that with the rights of the default user, and
// leaves out, without a word, what this one may not do.
func (d *driver) forgets(ctx context.Context, c *redis.Client) (bool, error) {
	user, err := c.Do(ctx, "ACL", "GETUSER", "default").Slice()
	if err != nil || d.idempotent {
		return false, nil //nolint:nilerr // who may not ask that is not told
	}
	all := 0
	for i := 0; i+1 < len(user); i += 2 {
		rights, _ := user[i+1].(string)
		if user[i] == "commands" && strings.Contains(rights, "+@all") || user[i] == "keys" && rights == "~*" {
			all++
		}
	}
	if all == 2 {
		return false, nil
	}
	info, err := c.Info(ctx, "server").Result()
	return !strings.Contains(info, "valkey_version:"), err
}

// durability is the least of all masters. Where a second may pass between two writes to the disk the server answers before it has written, while one is
// under way: so what it has confirmed does not survive its own end.
func (d *driver) durability(ctx context.Context) (least pubsub.Durability, err error) {
	var mu sync.Mutex
	least = pubsub.Disk
	err = d.eachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		set, err := c.ConfigGet(ctx, "append*").Result()
		if err != nil {
			return err
		}
		have := pubsub.Memory
		switch {
		case set["appendonly"] != "yes":
		case set["appendfsync"] == "always":
			have = pubsub.Disk
		case set["appendfsync"] == "no":
			have = pubsub.Process
		}
		if have > pubsub.Memory {
			forgets, err := d.forgets(ctx, c)
			switch {
			case err != nil:
				return err
			case forgets && d.cfg.Accept == pubsub.Memory:
				have = pubsub.Memory
			case forgets:
				return says(pubsub.ErrUnsupported, "the default user of this server may not do everything, so that it would lose at its next start what scripts have "+
					"written: give that user rights, which one who is off may have (user default off ~* &* +@all), or accept it with ?durability=memory")
			}
		}
		mu.Lock()
		least = min(least, have)
		mu.Unlock()
		return nil
	})
	return least, err
}
