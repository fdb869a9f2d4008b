// Package pubsubtest is for the tests of programs that use package pubsub.
//
// Everything runs on the real engine over the broker of package memory: there is no second implementation of retries, dead letters
// or middleware that could disagree with the first. In a bubble of [testing/synctest] time is virtual, so hours of backoff take
// microseconds and come out exactly:
//
//	synctest.Test(t, func(t *testing.T) {
//		fate := pubsubtest.Deliver(t, sub, bill, pubsub.Message{Payload: []byte(`{"cents":1999}`)})
//		fate.Want(t, pubsubtest.Fate{Acked: true, Attempts: 3})
//	})
//
// [Deliver] is for a handler: it delivers one message to it until its end, and a [Fate] says what that was. [Open] is for more: a
// [Broker] with middleware and several subscriptions, the messages that a service publishes ([WantMessages] compares them), and
// publishing that fails. A Broker is closed when the test ends, and a goroutine that outlives it fails the test.
//
// Outside of a bubble the same works in real time, for handlers that need a network; a wait then gives up after 30 seconds.
package pubsubtest
