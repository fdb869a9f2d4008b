// Package rabbitmq is the adapter for RabbitMQ, amqp://host:5672.
//
//	b, err := rabbitmq.Open(ctx, "amqp://guest:guest@127.0.0.1:5672", nil) // a *pubsub.Broker: package pubsub says what it does
//
// # Meaning
//
// A topic is a routing key of one topic exchange, "omnibus" unless ?exchange= names another. A group is a durable queue TOPIC__GROUP that is bound to it, a
// quorum queue unless ?queue_type=classic asks for another. What else a group needs has names that begin with "omnibus.", see names.go: its quarantine,
// its dead letters and what becomes of these, which lie in a stream each, and the ladder in which all groups' retries wait, see ladder.go. Messages are described in header.go; those of
// other clients are read as they are.
//
// A nil from Publish means that every queue which the message was routed to has it on disk ([pubsub.Disk]; in a cluster a quorum queue also has it on
// most of its nodes, but AMQP does not say how many there are). Publish is mandatory: where no queue takes the message it is [pubsub.ErrUnroutable]. A
// message that a queue refuses, because it is full, is [pubsub.ErrUnconfirmed]: the broker does not say which, and other groups may have it.
//
// A group that keeps an order by key is a queue with a single active consumer; of a topic with partitions it has one queue for each, which its members share
// out among themselves. Everything goes back in its place when the active member leaves. Other groups compete for one queue.
//
// Retries that keep no order are copies, which wait in the ladder and come back to their queue: no plugin is needed. What is published with a delay waits
// there too.
//
// # What it needs
//
// RabbitMQ with quorum queues and streams: 3.10 or later. The user may configure, write and read what is named in names.go; with [pubsub.Verify]
// nothing is made, and of what is there only names and arguments are compared.
//
// Queues and exchanges that are there can be used as they are: ?exchange= names an exchange of any type, and ?queues={group} (or a name made of {topic} and
// {group}) the queues of groups. Those are neither declared nor bound; their retries wait in the process, and orders across members, patterns and the
// quarantine are refused or left out, since nobody knows what those queues are.
//
// # URL
//
// amqp://user:password@host1:5672,host2:5672/vhost?queue_type=quorum, amqps:// over TLS. [Config] names every parameter; an unknown one is refused.
// A secret may be in a file: password_file. With auth=external the certificate says who we are.
//
// # Limits
//
//   - A quorum queue that was made less than about a second before its only node is killed comes back empty, confirmed messages gone: the server's doing.
//     Make groups when a service is set up, not when it is about to crash.
//   - A hand-back counts as a delivery. A message that is handed back more often than MaxAttempts goes to its group's quarantine, where it is handled like any
//     other, one at a time. Classic queues count nothing: there a message that takes its process down is not found.
//   - A retry is a copy, and nothing deduplicates: a member that dies between the copy and the acknowledgement leaves both, and each has its attempts.
//   - A partition that another member is to have is held up by a handler for the group's AckWait at most; then that member handles the message, too.
//   - A lease ends with its channel: the server ends that when a message is held for 30 minutes (consumer_timeout).
//   - MaxInFlightBytes bounds what is handed to handlers. The client holds up to MaxInFlight messages, whatever their size: lower it where they are large.
//   - All headers of a message have to fit into one frame, 128 KiB by default; a published message may fill it but for 17 KiB.
//   - A queue keeps no history: groups start when they are made. TopicSpec.Retention, MaxBytes and Replicas are refused; policies of the server bound queues.
//   - All groups of an exchange share the ladder. A step keeps what a queue has no room for: one group's full queue, with more than 32 retries for it that are due,
//     stops the step, and the retries of the others with it, until up to 3 min after there is room. So let policies bound the queues of groups by age, not by length, or
//     raise the server's dead_letter_worker_consumer_prefetch above the retries that may wait, and lower dead_letter_worker_publisher_confirm_timeout.
//   - A message with a delay needs a group of its topic, or of a pattern that covers it, when it is published; else it is [pubsub.ErrUnroutable]. A live tail is none,
//     nor is a queue that others have bound to the topics: for such a one, bind the exchange omnibus.wait.19 to omnibus.later by the topic. A group that is removed
//     before the message is due does not get it, and nobody is told.
//   - When another node begins to lead a quorum queue, messages may be lost on their way to a consumer, which is told nothing. So a consumer that gets nothing for
//     a minute begins anew, and gets them. Where members of an ordered group share it out, they come with the partition's next message.
//   - Lag is what no member has got yet. What members hold, and what waits in the ladder, AMQP does not count.
//   - Dead letters lie in a stream, which the server leaves to the system to write to the disk, and which it keeps for ever unless a policy ends that. Purge
//     is refused: AMQP removes a stream as a whole or not at all. What becomes of them lies in a stream of its own: let a policy keep that as long.
//   - While the broker is short of memory or disk it takes no messages: publishers wait, and Ping says so. Consumers go on.
//   - No priorities, no deduplication.
package rabbitmq
