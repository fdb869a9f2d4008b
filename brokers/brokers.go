// Package brokers opens a broker of any kind by its URL, so that a program changes its broker with one line of its environment.
// It links the clients of all of them; a program that knows its broker imports that adapter alone.
//
//	mem://name              [github.com/omnibus-go/omnibus/memory]: in the process; without a name a fresh broker each time
//	kafka://host:9092       [github.com/omnibus-go/omnibus/kafka]: Kafka; several hosts of a cluster with commas
//	amqp://host:5672        [github.com/omnibus-go/omnibus/rabbitmq]: RabbitMQ; several hosts of a cluster with commas
//	amqps://host:5671       the same over TLS
//	nats://host:4222        [github.com/omnibus-go/omnibus/nats]: NATS JetStream; several hosts of a cluster with commas
//	nats+core://host:4222   [github.com/omnibus-go/omnibus/nats]: NATS without JetStream, at most once
//	redis://host:6379       [github.com/omnibus-go/omnibus/redisstreams]: Redis Streams, of Redis or Valkey
//	rediss://host:6379      [github.com/omnibus-go/omnibus/redisstreams]: the same with TLS
//	redis+cluster://host    [github.com/omnibus-go/omnibus/redisstreams]: a cluster; several of its hosts with commas
//	redis+sentinel://h/name [github.com/omnibus-go/omnibus/redisstreams]: what sentinels watch under that name; several of them with commas
//
// Each adapter documents the parameters of its URLs. One that it does not know is refused.
package brokers

import (
	"context"

	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
	"github.com/omnibus-go/omnibus/redisstreams"
)

// Open opens url. ctx bounds the opening only; 10 s where it has no deadline. A nil opts is the zero value. An unknown scheme, a URL
// that cannot be read and an unknown parameter are an ErrInvalid, whose hint says what there is; errors never show the URL's user,
// password or parameters. Safe for concurrent use.
//
// Each call opens mem://name on a broker of its own; who wants to meet on one opens it twice through the same [All].
func Open(ctx context.Context, url string, opts *pubsub.Options) (*pubsub.Broker, error) {
	return All().Open(ctx, url, opts)
}

// All has the openers of every adapter, for what takes a [pubsub.Mux]; append one of your own. What is opened as mem://name through one
// All is one broker.
func All() pubsub.Mux {
	return pubsub.Mux{memory.Opener(), kafka.Opener(), rabbitmq.Opener(), nats.Opener(), redisstreams.Opener()}
}
