// Package middleware has the small layers, one file each. Each is a pubsub.Middleware, made by a function whose arguments are what it
// needs; options that cannot work are refused by Open and Subscribe, in words.
//
//	b, err := brokers.Open(ctx, url, &pubsub.Options{Use: []pubsub.Middleware{
//		middleware.Breaker(middleware.BreakerOptions{}),
//		middleware.Log(slog.Default()),
//		middleware.Timeout(30 * time.Second),
//	}})
//
// # Order
//
// Layers are listed from the wire inwards. Each names those that must stand before it where both are used, and says why; a harmful
// order is refused. This one is right:
//
//	Sign … Encrypt     package middleware/security: Sign, Access, Replay, Encrypt
//	Compress           is undone when the bytes are the publisher's again
//	Correlate
//	Validate           looks at what the publisher has sent
//	Retry              classifies what the layers below leave open
//	Poison             before Retry calls it a case for another try
//	Breaker            counts the handler's failures only
//	Dedup              is not asked while the circuit is open
//	RateLimit          is not spent on duplicates
//	ConcurrencyLimit   does not hold a slot while it waits for its turn
//	Log                measures the handler, not the waiting
//	Timeout            starts when the handler does
//
// Retrying, dead letters, counting attempts and recovering panics are the engine's: no layer can be in the wrong order with them. A
// layer only classifies. The innermost classification wins (the handler's own, then the layers outwards, then the subscription's rules and
// policy), so attempts never multiply.
//
// What a Broker publishes passes the layers in Options.Use only: Compress, Correlate and Validate belong there; in Subscription.Use their
// incoming halves alone are at work.
//
// # What a layer is shared by
//
// A layer may be given to a Broker, to subscriptions, or both, and is used by all of them at once. RateLimit and ConcurrencyLimit then
// count what all of them do together; Dedup, Poison and Breaker keep subscriptions apart. Panics of the handler reach them as errors.
// In a batch and a Receive loop each message passes its layers by itself: they have their say when its outcome is known.
package middleware
