// Package omnibus is the root of the module; it holds no code. Import these instead:
//
//   - [github.com/omnibus-go/omnibus/pubsub]: publishing and subscribing, whatever the broker
//   - [github.com/omnibus-go/omnibus/brokers]: any broker, by its URL
//   - [github.com/omnibus-go/omnibus/kafka], [github.com/omnibus-go/omnibus/rabbitmq], [github.com/omnibus-go/omnibus/redisstreams],
//     [github.com/omnibus-go/omnibus/nats]: one broker, and its client alone
//   - [github.com/omnibus-go/omnibus/memory]: the broker inside the process
//   - [github.com/omnibus-go/omnibus/config]: a service by one file
//   - [github.com/omnibus-go/omnibus/middleware]: layers around handlers, and [github.com/omnibus-go/omnibus/middleware/security] to sign and encrypt
//   - [github.com/omnibus-go/omnibus/dlq]: dead letters
//   - [github.com/omnibus-go/omnibus/pubsubtest]: tests of handlers
//   - [github.com/omnibus-go/omnibus/conformance]: the suite that proves an adapter
package omnibus
