package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A driver knows the cluster, and has connections for requests that anyone makes. Producers and members of groups have their own.
type driver struct {
	cfg  Config
	base *sarama.Config
	caps pubsub.Capabilities
	life context.Context //nolint:containedctx // of all connections
	end  context.CancelFunc

	limit    int   // the broker's message.max.bytes
	replicas int16 // of topics that are made
	nodes    int   // that the cluster had when it was opened

	mu         sync.Mutex
	brokers    map[int32]string
	controller int32
	last       string // address of the broker that answered last
	idle       map[string][]*conn
	topics     map[string]topicInfo   // that were seen
	sound      map[string]sarama.Uuid // topics whose settings keep what they confirm as we declare
	missed     map[string]time.Time   // topics that publishers looked for in vain, and when last
	groups     map[pubsub.Place]*definition
	members    map[memberKey]*member
	sessions   map[*producer]struct{}
	closed     bool
}

var (
	_ pubsub.Driver  = (*driver)(nil)
	_ pubsub.Browser = (*driver)(nil)
	_ pubsub.Lagger  = (*driver)(nil)
	_ pubsub.Seeker  = (*driver)(nil)
	_ pubsub.Purger  = (*driver)(nil)
	_ pubsub.Waiter  = (*driver)(nil)
	_ pubsub.Lister  = (*driver)(nil)
)

// A brokerError is what this adapter itself finds.
type brokerError struct {
	code  pubsub.Code
	final bool
	text  string
}

func (e *brokerError) Error() string { return "kafka: " + e.text }

func says(code pubsub.Code, format string, args ...any) error {
	return &brokerError{code, true, fmt.Sprintf(format, args...)}
}

var (
	errGone   = &brokerError{pubsub.ErrUnavailable, false, "the session is closed"}
	errDown   = &brokerError{pubsub.ErrUnavailable, false, "not connected"}
	errFenced = &brokerError{pubsub.ErrUnavailable, false, "the group does without this member, which was silent for too long"}
	errStale  = &brokerError{pubsub.ErrLeaseLost, true, "the partition is not ours any more"}
)

// Name implements pubsub.Driver.
func (d *driver) Name() string { return "kafka" }

// Capabilities implements pubsub.Driver.
func (d *driver) Capabilities() pubsub.Capabilities { return d.caps }

// Classify implements pubsub.Driver.
func (d *driver) Classify(err error) (pubsub.Code, bool) { return classify(err) }

func classify(err error) (pubsub.Code, bool) {
	if e, ok := errors.AsType[*brokerError](err); ok {
		return e.code, e.final
	}
	for _, c := range []struct {
		code  pubsub.Code
		final bool
		errs  []sarama.KError
	}{
		{pubsub.ErrUnauthenticated, true, []sarama.KError{sarama.ErrSASLAuthenticationFailed, sarama.ErrUnsupportedSASLMechanism, sarama.ErrIllegalSASLState}},
		{pubsub.ErrDenied, true, []sarama.KError{
			sarama.ErrTopicAuthorizationFailed, sarama.ErrGroupAuthorizationFailed, sarama.ErrClusterAuthorizationFailed, sarama.ErrPolicyViolation,
		}},
		{pubsub.ErrTooLarge, true, []sarama.KError{sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge}},
		{pubsub.ErrNotFound, true, []sarama.KError{sarama.ErrUnknownTopicOrPartition, sarama.ErrGroupIDNotFound}},
		{pubsub.ErrConflict, true, []sarama.KError{sarama.ErrTopicAlreadyExists, sarama.ErrInconsistentGroupProtocol, sarama.ErrNonEmptyGroup, sarama.ErrFencedInstancedId}},
		{pubsub.ErrUnsupported, true, []sarama.KError{
			sarama.ErrUnsupportedVersion, sarama.ErrUnsupportedForMessageFormat, sarama.ErrUnsupportedCompressionType,
		}},
		{pubsub.ErrInvalid, true, []sarama.KError{
			sarama.ErrInvalidTopic, sarama.ErrInvalidPartitions, sarama.ErrInvalidReplicationFactor, sarama.ErrInvalidConfig, sarama.ErrInvalidRequest,
			sarama.ErrInvalidSessionTimeout, sarama.ErrInvalidTimestamp, sarama.ErrInvalidGroupId, sarama.ErrInvalidRecord,
			sarama.ErrInvalidRequiredAcks,
		}},
	} {
		for _, e := range c.errs {
			if errors.Is(err, e) {
				return c.code, c.final
			}
		}
	}
	if brokerurl.Untrusted(err) {
		return pubsub.ErrUnauthenticated, true
	}
	switch text := err.Error(); {
	case strings.Contains(text, "remote error: tls:"), strings.Contains(text, "SASL"), strings.Contains(text, "server returned error"): // of SCRAM
		return pubsub.ErrUnauthenticated, true
	}
	if e, ok := errors.AsType[sarama.ConfigurationError](err); ok {
		return pubsub.ErrInvalid, e != ""
	}
	return pubsub.ErrUnavailable, false // the network's, or a leader's that is elected
}

// readCapabilities connects, and reads what the brokers' settings promise.
func (d *driver) readCapabilities(ctx context.Context) error {
	m, err := d.metadata(ctx, []string{"__consumer_offsets"}) // any topic: no name asks for all
	if err != nil {
		return err
	}
	nodes := len(m.Brokers)
	if nodes == 0 { // it answers, but the controller has not let it in, or has put it out
		return &brokerError{pubsub.ErrUnavailable, false, "the cluster has no broker at the moment"}
	}
	d.nodes = nodes
	settings, err := d.settings(ctx, sarama.BrokerResource, strconv.Itoa(int(m.Brokers[0].ID())))
	if err != nil {
		if code, _ := classify(err); code != pubsub.ErrDenied || d.cfg.Accept == 0 {
			return fmt.Errorf("reading the settings of a broker, which tell how durable it is (?durability=process does without): %w", err)
		}
	}
	number := func(name string, otherwise int64) int64 {
		if n, err := strconv.ParseInt(settings[name], 10, 64); err == nil {
			return n
		}
		return otherwise
	}
	d.limit = int(number("message.max.bytes", 1048588))
	if d.replicas = int16(d.cfg.Replicas); d.replicas == 0 {
		d.replicas = int16(min(3, nodes))
	}
	durability := pubsub.Process
	switch {
	case min(int(d.replicas), nodes) >= 3:
		durability = pubsub.Replicated
	case number("log.flush.interval.messages", 1<<62) == 1:
		durability = pubsub.Disk
	}
	if d.cfg.Accept > durability {
		return says(pubsub.ErrUnsupported, "the durability of topics with %d replicas on %d brokers is %v, and at least %v is asked for",
			d.replicas, nodes, durability, d.cfg.Accept)
	}
	if d.cfg.Accept != 0 && d.cfg.Accept <= pubsub.Process { // more than that is not lowered: it would not be checked
		durability = max(d.cfg.Accept, min(durability, pubsub.Process))
	}
	d.caps = pubsub.Capabilities{
		Durability: durability, OptedDown: d.cfg.Accept != 0 && d.cfg.Accept < pubsub.Process, History: true, Redelivery: true, Order: pubsub.OrderInGroup,
		Exclusive: true, LeaseMax: pubsub.Forever, StoresAttempts: pubsub.StoresHead, FreeRelease: true, Tiers: true, RetryLate: 3 * time.Second,
		Patterns: true, Partitions: true, MaxMessage: int64(d.limit) - pubsub.Headroom - framing, Lag: pubsub.LagExact, Waiting: pubsub.WaitingListed,
	}
	return nil
}

// framing is what a record has besides what Message.Size counts: its own frame, that of its batch, and our headers.
const framing = 4 << 10

// settings reads the configuration of a topic or a broker.
func (d *driver) settings(ctx context.Context, kind sarama.ConfigResourceType, name string) (map[string]string, error) {
	req := &sarama.DescribeConfigsRequest{Version: 2, Resources: []*sarama.ConfigResource{{Type: kind, Name: name}}}
	ask := func(b *sarama.Broker) (*sarama.DescribeConfigsResponse, error) { return b.DescribeConfigs(req) }
	var res *sarama.DescribeConfigsResponse
	var err error
	if kind == sarama.BrokerResource { // each knows its own only
		id, _ := strconv.ParseInt(name, 10, 32)
		address, err := d.addressOf(int32(id))
		if err != nil {
			return nil, err
		}
		res, err = at(ctx, d, address, ask)
		if err != nil {
			return nil, err
		}
	} else if res, err = anywhere(ctx, d, ask); err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, r := range res.Resources {
		if e := sarama.KError(r.ErrorCode); e != sarama.ErrNoError {
			return nil, e
		}
		for _, c := range r.Configs {
			all[c.Name] = c.Value
		}
	}
	return all, nil
}

// Ping implements pubsub.Driver.
func (d *driver) Ping(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if d.isClosed() {
		return errGone
	}
	_, err := d.metadata(ctx, []string{"__consumer_offsets"})
	return err
}

func (d *driver) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// As implements pubsub.Driver: target may be a **sarama.Config, with which a client connects as the adapter does, or a *[]string, the addresses.
func (d *driver) As(target any) bool {
	switch t := target.(type) {
	case **sarama.Config:
		c := *d.base
		*t = &c
	case *[]string:
		*t = d.addresses()
	default:
		return false
	}
	return true
}

// Close implements pubsub.Driver. Sessions that are open die; groups are told that their members leave.
func (d *driver) Close(ctx context.Context) error {
	d.mu.Lock()
	d.closed = true
	var members []*member
	for _, m := range d.members {
		members = append(members, m)
	}
	var producers []*producer
	for p := range d.sessions {
		producers = append(producers, p)
	}
	d.mu.Unlock()
	var all sync.WaitGroup
	for _, m := range members {
		all.Go(func() { m.end(ctx, errGone) })
	}
	for _, p := range producers {
		all.Go(func() { p.die(errGone) })
	}
	all.Wait()
	d.shut()
	return nil
}

// shut breaks all connections.
func (d *driver) shut() {
	d.end()
	d.mu.Lock()
	d.closed = true
	idle := d.idle
	d.idle = map[string][]*conn{}
	d.mu.Unlock()
	for _, list := range idle {
		for _, c := range list {
			c.close()
		}
	}
}
