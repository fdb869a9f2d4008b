package nats_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A server that is stopped reads nothing, and the client waits with what it writes. Closing does not wait with it, and says what is not confirmed.
func TestCloseWhileNobodyReads(t *testing.T) {
	s := ownServer(t, "default")
	for scheme, accept := range map[string]string{"nats": "memory", "nats+core": ""} {
		t.Run(scheme, func(t *testing.T) {
			more := url.Values{}
			if accept != "" {
				more.Set("durability", accept)
			}
			address := s.address(more)
			if scheme != "nats" {
				address = scheme + address[len("nats"):]
			}
			b, err := nats.Open(t.Context(), address, &pubsub.Options{DrainTimeout: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "stuck"}}}); err != nil {
				t.Fatal(err)
			}
			if err := s.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
			const n = 60 // more than lies in the buffers between
			fates := make(chan error, n)
			for range n {
				b.PublishAsync(t.Context(), "stuck", pubsub.Message{Payload: make([]byte, 900<<10)}, func(_ pubsub.Receipt, err error) { fates <- err })
			}
			for last := int64(-1); last != s.Traffic().Up; time.Sleep(time.Second) { // until nothing goes through
				last = s.Traffic().Up
			}
			begin := time.Now()
			_ = b.Close() // says that they are not confirmed
			if took := time.Since(begin); took > 8*time.Second {
				t.Errorf("closing took %v", took)
			}
			for range n {
				if err := <-fates; err == nil {
					t.Error("a message that nobody has read is stored")
				}
			}
			if err := s.Unpause(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
