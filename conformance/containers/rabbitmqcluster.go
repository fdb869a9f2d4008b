package containers

import (
	"fmt"
	"strconv"
)

// rabbitmqStart starts a node of a cluster. Its arguments are the cluster's secret, and the names of the other nodes.
//
// Nodes find each other's ports by epmd, of which there is one on the host; it dies with the container that it runs in. So every container tries
// again and again to run it, and the nodes then tell the new one where they are.
//
// A node that has lost its data is not the member that the others know: they have to forget that before it can join them.
const rabbitmqStart = `cookie=$1 me=$RABBITMQ_NODENAME
shift
test -e "$HOME/.erlang.cookie" || (umask 377 && printf %s "$cookie" >"$HOME/.erlang.cookie")
while :; do
	epmd
	sleep 0.2
done >/dev/null 2>&1 &
if ! test -e "/var/lib/rabbitmq/mnesia/$me"; then
	for other; do
		if epmd -names 2>/dev/null | grep -q "^name ${other%@*} " && rabbitmqctl -q -n "$other" forget_cluster_node "$me"; then break; fi
	done
fi
exec rabbitmq-server`

// rabbitmqCluster is three nodes on the host's network.
func rabbitmqCluster(s *site) []rabbitmqNode {
	const size = 3
	cookie, epmd := secret(), strconv.Itoa(s.port())
	conf := `cluster_name = omnibus
cluster_formation.peer_discovery_backend = classic_config
quorum_queue.continuous_membership_reconciliation.enabled = true
quorum_queue.continuous_membership_reconciliation.target_group_size = 3
quorum_queue.continuous_membership_reconciliation.interval = 1000
quorum_queue.continuous_membership_reconciliation.trigger_interval = 500
`
	for i := range size {
		conf += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s\n", i+1, rabbitmqName(i))
	}
	var nodes []rabbitmqNode
	for i := range size {
		client, admin := s.port(), s.port()
		n := rabbitmqNode{host: "127.0.0.1", streams: s.port(), conf: conf, script: rabbitmqStart, args: []string{cookie}}
		n.nodePlan = nodePlan{hostNetwork: true, client: port{client, client}, admin: port{admin, admin}}
		n.front = s.front(n.client)
		n.env = map[string]string{"ERL_EPMD_PORT": epmd, "RABBITMQ_DIST_PORT": strconv.Itoa(s.port())}
		for other := range size {
			if other != i {
				n.args = append(n.args, rabbitmqName(other))
			}
		}
		nodes = append(nodes, n)
	}
	return nodes
}
