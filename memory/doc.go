// Package memory is a broker inside the process: the default for tests and small programs, and the adapter that shows what the
// contract of package pubsub means.
//
//	b := memory.New(nil) // a *pubsub.Broker, with a server of its own; NewServer is for several that meet, and for faults
//	defer b.Close()
//
// It keeps every promise but durability: a nil from Publish covers the life of this process ([pubsub.Memory]), which whoever opens
// mem:// accepts by that name. Topics are logs with partitions; groups read them with a cursor, leases and stored attempts. Nothing is
// done in the background but timers, so it runs in the virtual time of testing/synctest.
//
// What every group has settled is history. It goes, the oldest first, when [Config.MaxBytes] or the topic's own MaxBytes needs the room, or
// when it is older than the topic's Retention. What a group still needs is never dropped, however old: then publishing fails with
// ErrExhausted. A message that is sent again within two minutes is stored once, in a topic as in the places of a group, unless the
// memory of it had to make room. There is one copy of everything: TopicSpec.Replicas above 1 is refused.
//
// Dead letters, and what becomes of them, are kept until somebody purges them.
//
// What is sent to one group alone (Broker.DeliverTo) takes its turn in the partition of its key. Where the group reads a pattern there is no
// such partition: it is in order with other messages for that group alone, not with those of the topics.
//
// A [Server] is the broker's process and can be broken on purpose: confirmations lost, sessions dropped, messages refused, everything
// stalled, crashed and restarted with its data. Each [Server.Driver] is another client process.
package memory
