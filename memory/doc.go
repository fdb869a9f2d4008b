// Package memory is a broker inside the process: the default for tests and small programs, and the adapter that shows what the
// contract of package pubsub means.
//
// It keeps every promise but durability: a nil from Publish covers the life of this process ([pubsub.Memory]), which whoever opens
// mem:// accepts by that name. Topics are logs with partitions; groups read them with a cursor, leases and stored attempts; what is
// settled by every group is kept as history until [Config.MaxBytes] needs the room. Nothing is done in the background but timers, so
// it runs in the virtual time of testing/synctest.
//
// A [Server] is the broker's process and can be broken on purpose: confirmations lost, sessions dropped, messages refused, everything
// stalled, crashed and restarted with its data. Each [Server.Driver] is another client process.
package memory
