// Package kafka is the adapter for Kafka, kafka://host:9092.
//
//	b, err := kafka.Open(ctx, "kafka://127.0.0.1:9092", nil) // a *pubsub.Broker: package pubsub says what it does
//
// # Meaning
//
// A topic is the Kafka topic of the same name. A group is the consumer group TOPIC__GROUP. What else it needs are topics beside it, whose names begin with
// "omnibus.": what is sent to the group alone, the tiers in which its retries wait, its quarantine, its dead letters and what becomes of these, see names.go. Records have the
// user's key, value and headers as they are, and a few headers of ours before those, see record.go; records of other clients are read as they are.
// Keys go to the partition where the Java client and librdkafka (partitioner=murmur2) put them.
//
// A nil from Publish means that all in-sync replicas have it (acks=all): on three replicas or more, with min.insync.replicas=2, [pubsub.Replicated];
// on fewer [pubsub.Process], since Kafka leaves it to the system when to write to the disk; [pubsub.Disk] where log.flush.interval.messages is 1. A session
// is idempotent: what a leader did not answer is sent again, in its order and stored once. Only what a session gives up, after half a minute
// or because it was cut, may be stored twice.
//
// Acks come in any order. What is committed is the offset up to which all is settled; what is settled beyond it, and how often the message there has failed
// and was begun with, stands in the metadata of the commit (4096 bytes; what does not fit comes again after a crash). Commits follow within 20 ms.
//
// # Groups
//
// A partition belongs to one member of a group at a time, whatever the Order: members share partitions, not messages, so a topic of one partition has one
// active member, and the others stand by. Rebalances are cooperative. A member that is to give up a partition brings to an end what runs of it, for as
// long as the group's AckWait, at most 30 s, and goes on with all others meanwhile. A member that does not answer is dead after SessionTimeout.
//
// Where a group begins is written down when it is made, in the first record of its quarantine, so it misses nothing from then on, also when its
// committed offsets have expired (7 days after its last member left, by default): then it begins there again.
//
// # What it needs
//
// Kafka 2.7 or later, tested with 4.3. The user may describe the cluster, its configuration and topics; create topics that begin with "omnibus." and those that
// Ensure or Subscribe name (with [pubsub.Verify] none); read and write these; and read the groups TOPIC__GROUP. Without the right to describe the
// configuration ?durability=process has to accept what a broker may do.
//
// # URL
//
// kafka://user:password@host1:9092,host2:9092?sasl=scram-sha-512&tls=true. [Config] names every parameter; an unknown one is refused. Secrets
// may be in files: password_file and token_file.
//
// # Limits
//
//   - Topics cannot differ only by "." and "_": Kafka refuses the second one.
//   - Transactions of others are read committed; Lag counts their control records.
//   - Time, for FromTime and Browse, is the record's timestamp, which has milliseconds; for messages of ours it is when they were sent. Message.Time
//     stands in a header.
//   - No Delay, no priorities, no deduplication by ID.
//   - A message that takes its process down is not found: how often it was begun with is stored, but the engine goes by counts of all messages
//     (Capabilities.Deliveries), which Kafka does not have.
//   - TopicSpec.MaxBytes is split evenly among the partitions (retention.bytes), and Kafka removes whole segments only.
//   - Retries that wait for a tier lie in a topic that keeps 14 days, so that what was retried does not stay for ever: a group that has no member for longer
//     than that loses the retries it left. Give omnibus.tiers.TOPIC__GROUP another retention.ms where that can happen.
//   - One consumer per group and process can use Instance: members of one group need different ones.
package kafka
