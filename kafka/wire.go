package kafka

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"github.com/rcrowley/go-metrics"

	"github.com/omnibus-go/omnibus/internal/drivers"
	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	dialTimeout  = 5 * time.Second
	answerWithin = 10 * time.Second // a request whose answer the broker does not put off
	maxIdle      = 4                // connections to one broker that wait for the next request
)

// A dialer makes connections that break when a lifetime ends: the client's own calls know no context, and hold a lock while they wait.
type dialer struct{ life context.Context } //nolint:containedctx // the client dials without one

// Dial implements proxy.Dialer.
func (d dialer) Dial(network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(d.life, network, address)
	if err != nil {
		return nil, err
	}
	return &tied{c, context.AfterFunc(d.life, func() { _ = c.Close() })}, nil
}

type tied struct {
	net.Conn
	untie func() bool
}

// Close implements net.Conn.
func (t *tied) Close() error {
	t.untie()
	return t.Conn.Close()
}

// silent is a registry of metrics that counts nothing: the client's own would keep a goroutine for ever, and cost time for each message.
type silent struct{ metrics.Registry }

// GetOrRegister implements metrics.Registry.
func (silent) GetOrRegister(_ string, of any) any {
	switch of.(type) {
	case func() metrics.Meter:
		return metrics.NilMeter{}
	case func() metrics.Counter:
		return metrics.NilCounter{}
	case func() metrics.Histogram:
		return metrics.NilHistogram{}
	}
	return of
}

// Unregister implements metrics.Registry.
func (silent) Unregister(string) {}

// config is the client's, for connections that live as long as life.
func (d *driver) config(life context.Context) *sarama.Config {
	c := *d.base
	c.Net.Proxy.Enable, c.Net.Proxy.Dialer = true, dialer{life}
	return &c
}

// A conn is one connection to one broker.
type conn struct {
	*sarama.Broker
	address string
	kill    context.CancelFunc
	used    bool
}

// dial opens a connection whose answers may take that long.
func (d *driver) dial(ctx context.Context, address string, within time.Duration) (*conn, error) {
	life, kill := context.WithCancel(d.life)
	conf := d.config(life)
	conf.Net.ReadTimeout = within
	c := &conn{Broker: sarama.NewBroker(address), address: address, kill: kill}
	if err := c.Open(conf); err != nil {
		kill()
		return nil, err
	}
	ok, err := call(ctx, c, (*sarama.Broker).Connected)
	if err == nil && !ok {
		err = errDown
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) close() {
	c.kill()
	_ = c.Broker.Close() // an error says that it is closed
}

// call makes a request. When ctx ends the connection breaks.
func call[T any](ctx context.Context, c *conn, f func(*sarama.Broker) (T, error)) (T, error) {
	stop := context.AfterFunc(ctx, c.kill)
	v, err := f(c.Broker)
	if !stop() && err != nil {
		err = ctx.Err()
	}
	return v, err
}

// take returns a connection to a broker that nobody else uses.
func (d *driver) take(ctx context.Context, address string) (*conn, error) {
	d.mu.Lock()
	if list := d.idle[address]; len(list) > 0 {
		c := list[len(list)-1]
		d.idle[address] = list[:len(list)-1]
		d.mu.Unlock()
		return c, nil
	}
	d.mu.Unlock()
	return d.dial(ctx, address, answerWithin)
}

func (d *driver) give(c *conn) {
	d.mu.Lock()
	if !d.closed && len(d.idle[c.address]) < maxIdle {
		d.idle[c.address] = append(d.idle[c.address], c)
		c = nil
	}
	d.mu.Unlock()
	if c != nil {
		c.close()
	}
}

// at makes a request to one broker. A connection that has lain idle may be broken: then the request is made again on a new one. All requests
// that come here may be made twice.
func at[T any](ctx context.Context, d *driver, address string, f func(*sarama.Broker) (T, error)) (v T, err error) {
	for {
		c, err := d.take(ctx, address)
		if err != nil {
			return v, err
		}
		reused := c.used
		c.used = true
		v, err := call(ctx, c, f)
		if err == nil {
			d.give(c)
			return v, nil
		}
		c.close()
		if !reused || ctx.Err() != nil {
			return v, err
		}
	}
}

// anywhere makes a request to whichever broker answers.
func anywhere[T any](ctx context.Context, d *driver, f func(*sarama.Broker) (T, error)) (v T, err error) {
	var errs []error
	for _, address := range d.addresses() {
		if v, err = at(ctx, d, address, f); err == nil {
			d.mu.Lock()
			d.last = address
			d.mu.Unlock()
			return v, nil
		}
		errs = append(errs, err)
		if _, final := classify(err); final || ctx.Err() != nil {
			return v, err
		}
	}
	return v, errors.Join(errs...)
}

// addresses are those of all brokers that are known: the one that answered last, then those of the Config.
func (d *driver) addresses() (all []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	add := func(address string) {
		if address != "" && !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	add(d.last)
	for _, address := range d.cfg.Servers {
		add(address)
	}
	for _, address := range d.brokers {
		add(address)
	}
	return all
}

// metadata reads what the cluster says of topics, which are not made by that; nil = all.
func (d *driver) metadata(ctx context.Context, topics []string) (*sarama.MetadataResponse, error) {
	req := sarama.NewMetadataRequest(d.base.Version, topics)
	m, err := anywhere(ctx, d, func(b *sarama.Broker) (*sarama.MetadataResponse, error) { return b.GetMetadata(req) })
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.controller = m.ControllerID
	clear(d.brokers)
	for _, b := range m.Brokers {
		d.brokers[b.ID()] = b.Addr()
	}
	return m, nil
}

func (d *driver) addressOf(broker int32) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	address, ok := d.brokers[broker]
	if !ok {
		return "", &brokerError{pubsub.ErrUnavailable, false, "a partition has no leader at the moment"}
	}
	return address, nil
}

// controlled makes a request that the controller answers.
func controlled[T any](ctx context.Context, d *driver, f func(*sarama.Broker) (T, error)) (v T, err error) {
	d.mu.Lock()
	address := d.brokers[d.controller]
	d.mu.Unlock()
	if address == "" {
		return anywhere(ctx, d, f)
	}
	return at(ctx, d, address, f)
}

// withTimeout gives a request a deadline where the engine gave none.
func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return drivers.WithTimeout(ctx, answerWithin)
}

// pause waits before the next try. It returns false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
