package containers

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

// kafkaKind is Kafka without ZooKeeper: every node is a broker and a controller. Every variant but "cluster" is one node.
func kafkaKind() kind {
	return kind{
		name:     "kafka",
		image:    "apache/kafka:4.3.1",
		variants: []string{"default", "cluster", "tls", "mtls", "plain", "scram256", "scram512", "oauthbearer", "4.0"},
		versions: map[string]string{"4.0": "apache/kafka:4.0.2"},
		plan:     planKafka,
		ready:    kafkaReady,
		version:  kafkaVersion,
	}
}

const (
	kafkaConfig = "/etc/kafka/omnibus.properties"
	kafkaData   = "/var/lib/kafka/data"
)

func planKafka(variant string, s *site) (*plan, error) {
	id := newClusterID()
	if variant == "cluster" {
		return &plan{scheme: "kafka", nodes: kafkaCluster(id, s)}, nil
	}
	access, err := kafkaAccess(variant, s)
	if err != nil {
		return nil, err
	}
	inside := s.port() // other brokers, if only this one itself, and ready find it at the same address from inside and outside
	n := kafkaNode{nodePlan: nodePlan{client: s.publish(9092), admin: port{inside, inside}}, host: "0.0.0.0", access: access}
	n.front, n.brief = s.front(n.client), s.proxied
	n.voters, n.controller, n.replicas = "0@127.0.0.1:9093", 9093, 1
	return &plan{scheme: "kafka", nodes: []nodePlan{n.configured(id)}, params: access.params, token: access.token}, nil
}

func kafkaCluster(id string, s *site) (plans []nodePlan) {
	const size = 3
	var nodes []kafkaNode
	var voters []string
	for i := range size {
		client, admin, controller := s.port(), s.port(), s.port()
		n := kafkaNode{
			id: i, host: "127.0.0.1", controller: controller, replicas: size, access: access{protocol: "PLAINTEXT"},
		}
		n.nodePlan = nodePlan{hostNetwork: true, client: port{client, client}, admin: port{admin, admin}}
		n.front, n.brief = s.front(n.client), s.proxied
		nodes = append(nodes, n)
		voters = append(voters, fmt.Sprintf("%d@%s", i, local(controller)))
	}
	for _, n := range nodes {
		n.voters = strings.Join(voters, ",")
		plans = append(plans, n.configured(id))
	}
	return plans
}

// newClusterID makes a name for a cluster in the form that Kafka asks for. It begins with a letter: it is an argument of a command.
func newClusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// A kafkaNode is what a node's configuration is made of.
type kafkaNode struct {
	nodePlan
	id         int    // also the number in its name: kafka-0
	host       string // that it binds
	controller int    // the port where controllers talk
	voters     string // all of these
	replicas   int    // of a topic that does not ask for a number, and of Kafka's own
	brief      bool   // it is a test's: to start soon counts more than to be fast later
	access     access
}

// A node that was killed comes back only once its own new process, or the others, have given the old one up. So their patience is less than
// Kafka's own, but not by much: a node that a busy machine makes wait for longer is out as well, and with the only one everything.
const (
	kafkaPatience    = 5 * time.Second
	kafkaOwnPatience = 9 * time.Second
)

// configured returns the node's plan with its configuration. What it announces to clients is its front.
func (n kafkaNode) configured(cluster string) nodePlan {
	isr := max(n.replicas-1, 1) // of three replicas one may be away
	patience := kafkaPatience
	if !n.brief {
		patience = kafkaOwnPatience // nobody kills it, and whoever measures keeps it busy
	}
	conf := fmt.Sprintf(`process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
listener.security.protocol.map=CLIENT:%s,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
listeners=CLIENT://%s:%d,INTERNAL://%s:%d,CONTROLLER://127.0.0.1:%d
advertised.listeners=CLIENT://%s,INTERNAL://%s
log.dirs=%s
`, n.id, n.voters, n.access.protocol, n.host, n.client.inside, n.host, n.admin.inside, n.controller, local(n.front), local(n.admin.outside), kafkaData)
	conf += fmt.Sprintf(`broker.session.timeout.ms=%d
broker.heartbeat.interval.ms=%d
default.replication.factor=%d
min.insync.replicas=%d
offsets.topic.replication.factor=%d
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=%d
transaction.state.log.min.isr=%d
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=%d
share.coordinator.state.topic.min.isr=%d
share.coordinator.state.topic.num.partitions=8
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
delete.topic.enable=true
log.cleaner.dedupe.buffer.size=8388608
`, patience.Milliseconds(), patience.Milliseconds()/4, n.replicas, isr, n.replicas, n.replicas, isr, n.replicas, isr)
	p := n.nodePlan
	p.files = map[string]string{kafkaConfig: conf + n.access.conf}
	maps.Copy(p.files, n.access.files)
	// The official image and the one that `make setup` builds have these commands, and take these variables.
	p.cmd = append([]string{"sh", "-c", fmt.Sprintf(`test -e %s/meta.properties || /opt/kafka/bin/kafka-storage.sh format -c %s "$@" || exit
exec /opt/kafka/bin/kafka-server-start.sh %s`, kafkaData, kafkaConfig, kafkaConfig), "kafka", "-t", cluster}, n.access.format...)
	java := "-XX:+UseSerialGC -XX:SharedArchiveFile=/opt/kafka/kafka.jsa" // without that archive of classes Java starts, too
	if n.brief {
		java += " -XX:TieredStopAtLevel=1" // with half the work
	}
	p.env = map[string]string{
		"KAFKA_HEAP_OPTS": "-Xmx512m", "KAFKA_JVM_PERFORMANCE_OPTS": java, "KAFKA_OPTS": n.access.opts, "EXTRA_ARGS": "", // no log of the garbage collector
	}
	return p
}

// kafkaReady asks the node itself, where nodes talk among themselves: that the cluster takes it for alive, and that it has caught up with
// every partition that it keeps and knows who leads it.
func kafkaReady(ctx context.Context, admin string) error {
	const attempt = 5 * time.Second // what is asked meanwhile may never be answered
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	return askKafka(ctx, admin, nil, func(b *sarama.Broker) error {
		m, err := b.GetMetadata(&sarama.MetadataRequest{Version: 1}) // of all topics
		if err != nil {
			return err
		}
		i := slices.IndexFunc(m.Brokers, func(b *sarama.Broker) bool { return b.Addr() == admin })
		if i < 0 {
			return fmt.Errorf("%s is not among the %d brokers that are alive", admin, len(m.Brokers))
		}
		for _, t := range m.Topics {
			for _, p := range t.Partitions {
				id := m.Brokers[i].ID()
				if slices.Contains(p.Replicas, id) && (p.Leader < 0 || !slices.Contains(p.Isr, id)) {
					return fmt.Errorf("partition %d of %s has the leader %d, and of %d only %d are in sync", p.ID, t.Name, p.Leader, p.Replicas, p.Isr)
				}
			}
		}
		return nil
	})
}

// kafkaVersion asks for what a broker tells everybody who connects, with TLS if it wants that: "4.3". It is "" where TLS asks for a certificate.
func kafkaVersion(ctx context.Context, client string) (string, error) {
	var level int16
	ask := func(b *sarama.Broker) error {
		r, err := b.ApiVersions(&sarama.ApiVersionsRequest{Version: 3, ClientSoftwareName: "omnibus", ClientSoftwareVersion: "1"})
		if err != nil {
			return err
		}
		i := slices.IndexFunc(r.SupportedFeatures, func(f sarama.SupportedFeatureKey) bool { return f.Name == "metadata.version" })
		if i < 0 {
			return fmt.Errorf("%s has no metadata.version: it is no Kafka since 3.3", client)
		}
		level = r.SupportedFeatures[i].MaxVersion
		return nil
	}
	err := askKafka(ctx, client, nil, ask)
	if err == nil || ctx.Err() != nil {
		return kafkaRelease(level), err
	}
	var mutual atomic.Bool
	secured := askKafka(ctx, client, &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // it is told nothing
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			mutual.Store(true)
			return new(tls.Certificate), nil
		},
	}, ask)
	switch {
	case secured == nil:
		return kafkaRelease(level), nil
	case mutual.Load():
		return "", nil
	}
	return "", errors.Join(err, secured)
}

// kafkaRelease names the release that brought a level of Kafka's metadata: no broker says which one it is, but all of them up to which level they go.
func kafkaRelease(level int16) string {
	latest := []struct {
		level int16 // the last one of the release
		name  string
	}{{21, "3.9"}, {25, "4.0"}, {27, "4.1"}, {29, "4.2"}, {30, "4.3"}}
	for _, r := range latest {
		if level <= r.level {
			return r.name
		}
	}
	return fmt.Sprintf("with metadata.version %d", level)
}

// askKafka connects to one broker for a question, until ctx ends.
func askKafka(ctx context.Context, addr string, secured *tls.Config, ask func(*sarama.Broker) error) error {
	cfg := sarama.NewConfig()
	cfg.ClientID = "omnibus"
	cfg.ApiVersionsRequest = false // the questions are such that every broker understands them
	cfg.Net.Proxy.Enable, cfg.Net.Proxy.Dialer = true, dialer{ctx}
	cfg.Net.TLS.Enable, cfg.Net.TLS.Config = secured != nil, secured
	b := sarama.NewBroker(addr)
	if err := b.Open(cfg); err != nil {
		return err
	}
	if _, err := b.Connected(); err != nil {
		return err
	}
	return errors.Join(ask(b), b.Close())
}

// A dialer ties connections to ctx, which sarama does not know.
type dialer struct{ ctx context.Context }

func (d dialer) Dial(network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(d.ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return bound{conn, context.AfterFunc(d.ctx, func() { _ = conn.Close() })}, nil
}

// A bound connection closes when its context ends.
type bound struct {
	net.Conn
	free func() bool
}

func (b bound) Close() error {
	b.free()
	return b.Conn.Close()
}
