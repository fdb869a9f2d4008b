package containers

import "strconv"

// rabbitmqStart starts a node of a cluster. Its arguments are the cluster's secret, and of each other node the name and the port for clients.
//
// Nodes find each other by epmd, of which they share one. It ends with the container that it runs in, so every container tries again and
// again to run it; nodes notice, and tell the new one where they are. A node must not look for others that are there before they have.
//
// A node that has lost its data is not the member that the others know. They have to forget that one before it can join them. Quorum queues then
// take it in by themselves; of streams it has to ask for copies, once it is one of those that manage them.
const rabbitmqStart = `rm -f ~/.erlang.cookie
(umask 377; echo "$1" >~/.erlang.cookie)
shift
while :; do
	epmd
	sleep 0.1
done >/dev/null 2>&1 &
serving=()
while (($#)); do
	if (</dev/tcp/127.0.0.1/$2) 2>/dev/null; then
		serving+=("$1")
		until epmd -names 2>/dev/null | grep -q "^name ${1%@*} "; do sleep 0.1; done
	fi
	shift 2
done
if ! test -e "/var/lib/rabbitmq/mnesia/$RABBITMQ_NODENAME"; then
	for other in "${serving[@]}"; do
		rabbitmqctl -q -n "$other" forget_cluster_node "$RABBITMQ_NODENAME" || continue
		until rabbitmqctl -q eval '
			true = rabbit:is_running(),
			Me = node(),
			true = lists:all(fun({{resource, Vhost, queue, Name}, #{name := Stream}}) ->
				case rabbit_stream_coordinator:members(Stream) of
					{ok, #{Me := {Copy, _}}} -> is_pid(Copy);
					_ -> rabbit_stream_queue:add_replica(Vhost, Name, Me), false
				end
			end, [{amqqueue:get_name(Q), amqqueue:get_type_state(Q)} || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_stream_queue]).
		'; do sleep 0.5; done >/dev/null 2>&1 &
		break
	done
fi
exec rabbitmq-server`

// rabbitmqCluster is three nodes on the host's network.
func rabbitmqCluster(s *site) []rabbitmqNode {
	const size = 3
	cookie, epmd := secret(), strconv.Itoa(s.port())
	const conf = `cluster_name = omnibus
cluster_formation.peer_discovery_backend = classic_config
quorum_queue.continuous_membership_reconciliation.enabled = true
quorum_queue.continuous_membership_reconciliation.target_group_size = 3
quorum_queue.continuous_membership_reconciliation.interval = 1000
quorum_queue.continuous_membership_reconciliation.trigger_interval = 500
cluster_formation.classic_config.nodes.1 = rabbitmq-0@localhost
cluster_formation.classic_config.nodes.2 = rabbitmq-1@localhost
cluster_formation.classic_config.nodes.3 = rabbitmq-2@localhost
`
	nodes := make([]rabbitmqNode, size)
	for i := range nodes {
		client, admin := s.port(), s.port()
		n := &nodes[i]
		*n = rabbitmqNode{host: "127.0.0.1", streams: s.port(), conf: conf, script: rabbitmqStart, args: []string{cookie}}
		n.nodePlan = nodePlan{hostNetwork: true, client: port{client, client}, admin: port{admin, admin}}
		n.front = s.front(n.client)
		n.env = map[string]string{
			"ERL_EPMD_PORT": epmd, "RABBITMQ_DIST_PORT": strconv.Itoa(s.port()),
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": rabbitmqErlang + " -rabbit stream_tick_interval 1000", // how often those that manage streams look for nodes
		}
	}
	for i := range nodes {
		for other, n := range nodes {
			if other != i {
				nodes[i].args = append(nodes[i].args, rabbitmqName(other), strconv.Itoa(n.client.inside))
			}
		}
	}
	return nodes
}
