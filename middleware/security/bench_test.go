package security_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What a message costs: publish is encrypt and sign, consume verify and decrypt. The message has two headers.
func BenchmarkMessage(b *testing.B) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"1KiB", 1 << 10}, {"1MiB", 1 << 20}} {
		m := pubsub.Message{
			ID: "order-1234567890", Type: "order.placed", Key: "customer-42", ContentType: "application/json", Payload: bytes.Repeat([]byte("x"), size.bytes),
			Headers: pubsub.Headers{{Name: "tenant", Value: "acme"}, {Name: "region", Value: "eu-1"}},
		}
		for _, suite := range suites() {
			orders, billing := parties(b, suite, security.AES256GCM)
			benchmark(b, string(suite)+"/"+size.name+"/signed", m, orders.sign, pubsub.Middleware{}, billing.sign, pubsub.Middleware{})
			benchmark(b, string(suite)+"/"+size.name+"/both", m, orders.sign, orders.enc, billing.sign, billing.enc)
		}
		r := ring(b, key(b, security.AES256GCM, "k", "us"))
		enc := security.Encrypt(security.EncryptOptions{Unsigned: true, Recipients: []security.KMS{r.KMS("us")}})
		benchmark(b, "none/"+size.name+"/encrypted", m, pubsub.Middleware{}, enc, pubsub.Middleware{}, enc)
	}
}

func benchmark(b *testing.B, name string, m pubsub.Message, signs, encrypts, verifies, decrypts pubsub.Middleware) {
	b.Helper()
	ctx := context.Background()
	publish := func() pubsub.Message {
		out := m // the engine's copy: payload and headers are borrowed
		for _, l := range []pubsub.Middleware{encrypts, signs} {
			if l.Outgoing != nil {
				if err := l.Outgoing(ctx, "orders.placed", &out); err != nil {
					b.Fatal(err)
				}
			}
		}
		return out
	}
	handled := 0
	consume := pubsub.Handler(func(context.Context, *pubsub.Delivery) error { handled++; return nil })
	for _, l := range []pubsub.Middleware{decrypts, verifies} {
		if l.Incoming != nil {
			consume = l.Incoming(consume)
		}
	}
	wire := publish()
	b.Run(name+"/publish", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			publish()
		}
	})
	b.Run(name+"/consume", func(b *testing.B) {
		b.ReportAllocs()
		d := &pubsub.Delivery{Topic: "orders.placed", Group: "g"}
		for b.Loop() {
			d.Message = wire
			if err := consume(ctx, d); err != nil {
				b.Fatal(err)
			}
		}
		if handled == 0 {
			b.Fatal("nothing was handled")
		}
	})
}
