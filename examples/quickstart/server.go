package main

import (
	"context"
	"strings"

	"github.com/IBM/sarama"
	"github.com/nats-io/nats.go"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// server names what b is connected to, with its version, as far as the native client tells. No program needs this to work.
func server(b *pubsub.Broker) string {
	var inside *memory.Server
	var conn *nats.Conn
	var conf *sarama.Config
	var client redis.UniversalClient
	var link *amqp.Connection
	switch {
	case b.As(&inside):
		return " of the broker in this process"
	case b.As(&conn):
		return " of NATS " + conn.ConnectedServerVersion()
	case b.As(&link):
		version, _ := link.Properties["version"].(string)
		return " of RabbitMQ " + version
	case b.As(&conf):
		return " of Kafka" // brokers tell what they can do, not who they are
	case b.As(&client):
		info, _ := client.Info(context.Background(), "server").Result() // who may not ask that is not told
		_, version, _ := strings.Cut(info, "\r\nredis_version:")
		version, _, _ = strings.Cut(version, "\r\n")
		return strings.TrimRight(" of Redis "+version, " ")
	}
	return ""
}
