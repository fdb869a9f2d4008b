package containers

import (
	"fmt"
	"maps"
	"strings"
)

// rabbitmqKind is RabbitMQ with its management and with streams. Every variant but "cluster" is one node. "classic" is the server of
// "default": of which type a queue is says who declares it, and the URL of this variant tells clients to say classic.
func rabbitmqKind() kind {
	return kind{
		name:     "rabbitmq",
		image:    "rabbitmq:4.0-management",
		variants: []string{"default", "classic", "cluster", "tls", "mtls", "userpass", "vhost", "4.3", "3.10"},
		versions: map[string]string{"4.3": "rabbitmq:4.3-management", "3.10": "rabbitmq:3.10-management"},
		plan:     planRabbitMQ,
		ready:    rabbitmqReady,
		version:  rabbitmqVersion,
		regained: rabbitmqRegained,
	}
}

const (
	rabbitmqConfig      = "/etc/rabbitmq/omnibus.conf"
	rabbitmqPlugins     = "/etc/rabbitmq/omnibus-plugins"
	rabbitmqDefinitions = "/etc/rabbitmq/omnibus-definitions.json"
	rabbitmqErlang      = "-kernel inet_dist_use_interface {127,0,0,1}" // options
)

func planRabbitMQ(variant string, s *site) (*plan, error) {
	a, err := newRabbitMQAccess(variant, s)
	if err != nil {
		return nil, err
	}
	var nodes []rabbitmqNode
	if variant == "cluster" {
		nodes = rabbitmqCluster(s)
	} else {
		n := rabbitmqNode{nodePlan: nodePlan{client: s.publish(5672), admin: s.publish(15672)}, host: "0.0.0.0", streams: 5552}
		n.front, n.script = s.front(n.client), "exec rabbitmq-server"
		nodes = []rabbitmqNode{n}
	}
	p := &plan{scheme: a.scheme, tail: a.path, params: a.params}
	if variant == "classic" {
		p.tail += "?queue_type=classic"
	}
	for i, n := range nodes {
		p.nodes = append(p.nodes, n.configured(i, a))
	}
	return p, nil
}

// A rabbitmqNode is what a node's configuration is made of.
type rabbitmqNode struct {
	nodePlan
	host    string // that it binds
	streams int    // the port for the protocol of streams
	conf    string // lines of the configuration that only a node of a cluster has
	script  string // starts it
	args    []string
}

// rabbitmqName names a node for the others, and its folder. It is not the container's name, of which every container has another.
func rabbitmqName(node int) string { return fmt.Sprintf("rabbitmq-%d@localhost", node) }

// configured returns the node's plan with its configuration.
func (n rabbitmqNode) configured(node int, a rabbitmqAccess) nodePlan {
	p := n.nodePlan
	p.files = map[string]string{
		rabbitmqPlugins:     "[" + strings.Join(append([]string{"rabbitmq_management", "rabbitmq_stream"}, a.plugins...), ",") + "].\n",
		rabbitmqDefinitions: a.definitions,
		rabbitmqConfig: fmt.Sprintf(`definitions.import_backend = local_filesystem
definitions.local.path = %s
definitions.skip_if_unchanged = true
loopback_users = none
stream.listeners.tcp.1 = %s:%d
raft.wal_max_size_bytes = 67108864
log.file = false
log.console = true
log.console.level = warning
`, rabbitmqDefinitions, n.host, n.streams) + a.listeners(n.host, n.client.inside, n.admin.inside) + n.conf,
	}
	maps.Copy(p.files, a.files)
	// The official image and the one that `make setup` builds have these commands, and take these variables. Erlang makes a table of as many
	// files as may be open: hundreds of megabytes with the number that some daemons give to containers.
	p.cmd = append([]string{"bash", "-c", "ulimit -n 65536 2>/dev/null\n" + n.script, "rabbitmq"}, n.args...)
	p.env = map[string]string{
		"HOSTNAME":                            "localhost",
		"RUNNING_UNDER_SYSTEMD":               "1", // then no shell waits for the server: what is killed is the server itself
		"RABBITMQ_NODENAME":                   rabbitmqName(node),
		"RABBITMQ_CONFIG_FILE":                rabbitmqConfig,
		"RABBITMQ_ENABLED_PLUGINS_FILE":       rabbitmqPlugins,
		"ERL_EPMD_ADDRESS":                    "127.0.0.1",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": rabbitmqErlang,
	}
	maps.Copy(p.env, n.env)
	return p
}
