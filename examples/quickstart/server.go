package main

import (
	"github.com/IBM/sarama"
	"github.com/nats-io/nats.go"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// server names what b is connected to, with its version, as far as the native client tells. No program needs this to work.
func server(b *pubsub.Broker) string {
	var inside *memory.Server
	var conn *nats.Conn
	var conf *sarama.Config
	switch {
	case b.As(&inside):
		return " of the broker in this process"
	case b.As(&conn):
		return " of NATS " + conn.ConnectedServerVersion()
	case b.As(&conf):
		return " of Kafka" // brokers tell what they can do, not who they are
	}
	return ""
}
