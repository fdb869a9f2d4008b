// Package redisstreams is the adapter for Redis Streams, redis://host:6379, of Redis 7.0 and later, and Valkey.
//
//	b, err := redisstreams.Open(ctx, "redis://127.0.0.1:6379/0", nil) // a *pubsub.Broker: package pubsub says what it does
//
// # Meaning
//
// A topic is a stream of its own name; of a topic with several partitions that stream is the first one, and {topic:1} and so on are the others. A group is a
// consumer group. names.go tells what else there is, such as a group's dead letters and what becomes of them, record.go what a message looks like: other clients add entries with XADD, and read ours.
//
// A nil from Publish means that the server has answered. What that covers follows from its settings, which Open reads from each master with CONFIG GET: with
// appendfsync always [pubsub.Disk]; with appendfsync no [pubsub.Process]; else [pubsub.Memory], also with appendfsync everysec: while such a server writes to
// the disk it answers before it has handed what it was told to the system, so that up to two seconds of it may be lost when its process is killed. There
// ?waitaof=true confirms a message when it is on the disk, which takes up to a second. With ?wait=1 one replica has a message before it is confirmed
// ([pubsub.Replicated]); a failover may still choose another one that lacks it, where there are several. A user who may not read the settings states what
// they are: ?durability=disk.
//
// Groups ordered by key are exclusive: each partition has one active member at a time. The next one takes all that the last one had not settled, before it
// reads on; after a crash it waits for the end of the partition's lease, which is as long as the group's AckWait.
//
// What waits for its retry stays pending in its group, and its failures are stored there: the delivery count of a pending entry is a million times the
// failures, and the deliveries. Consumers of a group named omnibus.waiting and omnibus.left hold what nobody has now.
//
// # What it needs
//
// The user may read and write the topics' streams, those in braces, and keys that begin with "omnibus."; call scripts (EVAL, EVALSHA), the commands for
// streams, and CLIENT ID and CLIENT UNBLOCK, without which the end of a subscription takes up to a second. With SCAN it may list topics, with CONFIG GET read how the server keeps
// its data.
//
// Before 8.6 Redis loads its append-only file with the rights of the default user, and leaves out what scripts and transactions have written where that
// user may not do it. So a server with "user default off" loses topics and groups at its next start; one with "user default off ~* &* +@all" is as closed
// and loses nothing. Open refuses the former, as far as the user may ask for it (ACL GETUSER).
//
// # URL
//
// redis://user:password@host:6379/0?wait=1, rediss:// with TLS, redis+cluster://host,host and redis+sentinel://sentinel,sentinel/master. [Config] names
// every parameter; an unknown one is refused. Secrets may be in files: password_file. Sentinels are asked without a user.
//
// # Limits
//
//   - Redis keeps all streams in memory, and messages for ever unless retention says otherwise: then those go that are older and that every group has
//     acked; whoever reads the topic removes them. Nothing else is ever removed, so a group that nobody reads any more keeps all that came since
//     (XGROUP DESTROY ends that). Who trims with MAXLEN takes from the groups what they have not read.
//   - Messages have at most 16 MiB.
//   - The client writes to the standard error when it cannot connect; redis.SetLogger, which is the whole program's, stops that.
//   - No patterns and no priorities.
//   - A message that is sent again, because its confirmation was lost, is stored twice before Redis 8.6, unless its publisher deduplicates by ID or it was
//     for one group alone, as replays and dead letters are. Redis 8.6 recognises the last 4,096 messages of a Broker in each partition for the time of
//     Config.Dedup, in topics that this adapter has made; in others 100, for 100 seconds, see XCFGSET.
//   - A message with more than 3,950 headers is stored, but has no Delay and is not deduplicated by ID; as a dead letter it may be stored twice.
//   - A message with a Delay waits in omnibus.later.{topic}, and counts in no lag until its time. Whoever has published one there or reads the topic then
//     delivers it: with nobody there it comes late.
//   - The lag of a group that began at a time or a position is unknown until it has come to the end once.
package redisstreams
