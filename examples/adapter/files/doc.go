// Package files is an adapter over a folder: in it a folder for each topic, in that a file for each group, to which every change is appended.
// It is small enough to be read at a sitting, and passes the conformance suite: copy it to begin an adapter of your own.
//
// It declares what it has, and nothing else: messages survive the process but not a power loss (nothing is fsynced), a group's leases end with
// their connection, and there is no history, no priority and no deduplication. One Bus has a folder at a time: other processes are not seen.
//
//	bus.go     what is stored: the Bus, its queues, their files
//	driver.go  a connection: pubsub.Driver and pubsub.Producer
//	source.go  a member of a group: pubsub.Source
package files
