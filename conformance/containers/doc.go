// Package containers starts real brokers on any machine and breaks them on purpose: for the conformance suite, and for any test
// that asks what a program does when its broker dies or the network fails.
//
//	b := containers.OwnForTest(t, "nats", "default") // closed with the test; elsewhere Start
//	open(b.URL())           // through a proxy: what the broker announces leads there too
//	b.BlackHole()           // bytes vanish, connections stay
//	b.Mend()
//	b.Kill(ctx)             // SIGKILL; the error says so if the process is still there
//	b.Restart(ctx)          // the same ports, the same data; returns once the broker answers
//
// # Where a broker comes from
//
// In this order, where NATS stands for the kind in capitals:
//
//  1. OMNIBUS_NATS_URL: a broker that runs already, for the variant "default"; OMNIBUS_NATS_TLS_URL and the like for the others.
//     Nothing of it can be broken: every control returns [ErrNotOurs]. [OwnForTest] passes it over.
//  2. a container of the image OMNIBUS_NATS_IMAGE; a variant that is another version has a variable of its own, as OMNIBUS_KAFKA_4_0_IMAGE
//     for Kafka's "4.0",
//  3. or of the image that `make setup` built of packages, on a machine that can pull none,
//  4. or of the official image.
//
// Containers need a Docker daemon. Their ports are open on 127.0.0.1 only. A cluster uses the host's network, so that what a
// node announces is what a client reaches; that needs Linux, or a Docker Desktop with host networking enabled.
// A container bears the process that started it in a label: what a process left behind is removed by the next Start of any
// process on that host. Start sets TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1 and TESTCONTAINERS_RYUK_DISABLED=true in the environment
// where they are unset: the label does what the reaper would.
//
// # Kafka
//
// Its nodes are brokers and controllers at once; kafka-1 has the node id 1. They talk among themselves past the proxies, on a listener that
// asks nobody for credentials and can be reached from 127.0.0.1 only. They give each other up after 5 s instead of Kafka's 9, unless they are for work by
// hand or lent, and groups may choose a session of 1 s; topics are not made by who uses them. A node is ready once it has caught up with all partitions that it keeps: then
// another one may lose its data. A topic of a cluster has three replicas, of which one may be away. Where [Broker.Version] has "4.3", Kafka
// says no more.
//
// # RabbitMQ
//
// The URL's path is the virtual host, "/" where there is none. The server of the variant "classic" is that of "default": of which type a queue is
// says who declares it, and the URL has the parameter queue_type=classic, which clients other than the adapter do not know. Users are guest
// with the password guest, or those of Params; they administrate, so that tests can make others. In "mtls" clients are who their certificate
// says, and guest is for the management ([Node.Admin]) only.
//
// The nodes of a cluster have an epmd of their own, where rabbitmq-1 is called rabbitmq-1@localhost. One whose data was removed joins those
// that serve meanwhile as a new member. Restart returns once it has its part in every quorum queue and stream: then another one may lose its data.
// Streams come back a moment after their node is ready. If all nodes of 4.0 are killed after one has joined again, a stream may come back on
// one node only, or not at all.
//
// Servers that are killed less than 2 s after a quorum queue was declared have lost it: it comes back empty, and before 4.3 without a leader, of use
// to nobody.
//
// # Redis
//
// It writes each command to the disk before it answers. The cluster has three masters, redis-0 to redis-2, and a replica of each; behind the sentinels,
// redis-2 to redis-4, are a master and a replica, and clients find them by the name [RedisMaster]. Servers give each other up after 2 s. Replicas and
// sentinels reach a server as clients do, through its proxy, since a server announces one address only: a fault of the network between clients and a node is
// one between the nodes, too. A server that was wiped begins 5 s later: as an empty master it would have its replica throw away what that has.
//
// # Faults
//
// Faults of a process and faults of the network can be combined. Each can be shown to have happened: a killed process comes
// back with another [Node.PID], a proxy that lets nothing through has [Node.Traffic] that stands still while Dropped grows, and
// a cut one refuses connections.
package containers
