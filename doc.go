// Package omnibus is the root of the module; it holds no code. Import these instead:
//
//   - [github.com/omnibus-go/omnibus/pubsub]: publishing and subscribing, whatever the broker
//   - [github.com/omnibus-go/omnibus/memory]: the broker inside the process
//   - [github.com/omnibus-go/omnibus/nats]: NATS JetStream
//   - [github.com/omnibus-go/omnibus/brokers]: any broker, by its URL
//   - [github.com/omnibus-go/omnibus/conformance]: the suite that proves an adapter
package omnibus
