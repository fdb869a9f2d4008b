// Package nats is the adapter for NATS JetStream, nats://host:4222, and for core NATS, nats+core://host:4222.
//
//	b, err := nats.Open(ctx, "nats://127.0.0.1:4222", nil) // a *pubsub.Broker: package pubsub says what it does
//
// # Meaning
//
// A topic is a subject in one stream, named by the stream parameter; what captures it may also be a stream that somebody else has made, with
// wildcards and limits retention. A group is a durable pull consumer of that stream. Its retries, its quarantine, its dead letters and what
// becomes of these lie in two streams beside it, NAME__work and NAME__dead, under subjects that begin with "omnibus.". See header.go for what a message looks like on
// the wire; messages of other clients are read as they are.
//
// A nil from Publish means that the stream has it: on file ([pubsub.Process]: the server flushes to the disk at intervals, and a client cannot
// read whether it does so always), or replicated with three replicas or more.
//
// Groups ordered by key are exclusive: pinned consumers. After a crash of the active member the next one waits for the end of the crashed one's
// leases, since JetStream would deliver new messages before those.
//
// # What it needs
//
// JetStream in the account, and a server of version 2.11 for exclusive groups; with an older one OrderByKey is refused. The user may ask
// the JetStream API for streams and consumers, publish and subscribe to the topics, to "omnibus.>" and to an inbox, and publish to $JS.ACK.>.
// With [pubsub.Verify] streams and consumers need only be read; Create makes what is missing, and never changes what is there but
// for the subjects of topics that are added.
//
// # URL
//
// nats://user:password@host1:4222,host2:4222?stream=NAME&replicas=3. [Config] names every parameter; an unknown one is refused. Secrets
// may be in files: password_file, nkey and creds.
//
// # Limits
//
//   - Retries that wait can be listed, made due and given up, but not those that are due within 2 s: a member may have them already. What is changed is copied, so
//     a process that dies between copy and removal leaves both.
//   - Topics of one stream share its retention, size and replicas: a topic that asks for others is refused with [pubsub.ErrConflict]. It needs
//     a Broker of its own with another ?stream=.
//   - A lease is over here a tenth of AckWait early, a second at the most: a message may have been that long on its way, and the server takes
//     whatever comes late for the word of the next holder.
//   - A hand-back counts as a delivery. A message that is handed back more often than MaxAttempts goes to its group's quarantine, where it is
//     handled like any other, one at a time.
//   - Seek makes a group's consumers anew, and is refused while it has members.
//   - No priorities. A message with a Delay waits in the stream, under omnibus.later.NAME, and counts in no lag until its time; the server (2.12 and
//     later) then stores it for its topic, 0.3 s late or less, by the clock of the server. A stream that does not allow message schedules has no
//     Delay. A delay as long as the stream's retention is refused. A retry waits in NAME__work, however long.
//
// # Core NATS
//
// nats+core://host:4222 is the same without JetStream: at most once, asked for by that name. A nil from Publish means that the server has read the
// message and knew a subscriber ([pubsub.ErrUnroutable] where there is none), no more; one PING confirms many. A publish whose answer is lost
// is sent again, and may come twice; with [pubsub.AckNone] it is not. A group is a queue group, of its own name where the topic is concrete, so that members of
// other clients can join it. Retries wait in this process; Subscription.Order and DeadLetter must be named, and Ensure refuses groups.
//
// Each subscription has a connection of its own, and stops reading it while MaxInFlight messages are held (over TLS a record of 16 KiB may be above
// that). The server then keeps up to max_pending (64 MiB) and writes for write_deadline (10 s); after that it cuts the consumer off, which is an
// [pubsub.EventDisconnected] that says so: what it had is lost. So is what is published between that and [pubsub.EventReconnected], after any
// break. What had come is handled all the same, and a drain handles what was on its way; what it cannot in its time is an error of the drain.
package nats
