// Package pubsub publishes and consumes messages, the same way on every broker.
//
//	b, err := brokers.Open(ctx, os.Getenv("BROKER_URL"), nil) // or kafka.Open, nats.Open, memory.New, ...: then no other client is linked
//	_, err = b.Subscribe(ctx, pubsub.Subscription{Topic: "orders", Group: "billing"}, func(ctx context.Context, d *pubsub.Delivery) error {
//		return bill(ctx, d.Payload) // nil acks; an error is retried, and given up in the end
//	})
//	err = b.Publish(ctx, "orders", pubsub.Message{Key: "c-42", Payload: order}) // nil: the broker has it
//	err = b.Run(ctx)                                                            // until ctx ends; then it drains
//
// A [Broker] is opened by an adapter (packages kafka, rabbitmq, redisstreams, nats, memory) or by a [Mux] that picks one by URL. It is a [Publisher] and a
// [Subscriber].
//
// # Guarantees
//
// Publish returns nil only when the broker has accepted the message at its declared durability ([Capabilities]). Cancelled, refused,
// unroutable and unconfirmed messages never return nil, and [ErrUnconfirmed] (fate unknown) is told apart from certainly not stored. Messages of
// one key are stored in the order in which they were published.
//
// Groups get every message at least once. Handlers of one key run one after the other, also while one of its messages waits for a retry; other keys go
// on. Never more than Subscription.MaxInFlight messages are held. What is given up is stored as a dead letter before the original is acked. A handler that
// succeeds on the replay of one has that stored, too, before the replay is acked: see package dlq.
// No panic of a handler ends the process, and no goroutine outlives [Broker.Close], except inside a handler that ignores its context.
//
// # The two paths
//
//	publish:  app → Publisher → check, copy, id, time → middleware, Outgoing → window, runs → driver → broker → a fate per message
//	consume:  broker → driver → lanes and keys, bounded → middleware, Incoming → handler → error → outcome → ack, retry, dead letter
//
// Middleware is listed from the wire inwards. A handler's error decides: nil acks, [Permanent], [RetryAfter], [Snooze], [Pause] and [RetryBy] say what they
// mean, any other error is retried by the first [Rule] that matches, else by Subscription.Retry.
//
// # Errors
//
// Every error is an [*Error] with a [Code] from a closed set; a code is itself a target of errors.Is. [CodeOf] reads it. Hint says what to do.
package pubsub
