package pubsubtest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

func text(s string) pubsub.Message { return pubsub.Message{Payload: []byte(s)} }

func TestWantMessagesPasses(t *testing.T) {
	got := pubsub.Message{
		ID: "1", Type: "order.placed", Key: "c-42", ContentType: "application/json", Time: time.Unix(1, 0), TTL: time.Hour, Priority: 3,
		Payload: []byte(`{"a":1,"b":[12345678901234567890,null]}`),
		Headers: pubsub.Headers{{Name: "tenant", Value: "acme"}, {Name: "trace", Value: "1"}, {Name: "tenant", Value: "shop"}},
	}
	for name, want := range map[string]pubsub.Message{
		"nothing":  {},
		"itself":   got,
		"the time": {Time: time.Unix(1, 0).UTC()},
		"JSON":     text("{\n \"b\": [12345678901234567890, null], \"a\": 1 }"),
		"headers":  {Headers: pubsub.Headers{{Name: "tenant", Value: "acme"}, {Name: "tenant", Value: "shop"}}},
	} {
		if said := failure(t, func(t *fakeT) { pubsubtest.WantMessages(t, []pubsub.Message{got}, want) }); said != "" {
			t.Errorf("%s: %s", name, said)
		}
	}
	pubsubtest.WantMessages(t, nil)
}

func TestWantMessagesShowsWhatDiffers(t *testing.T) {
	long := func(changed int) pubsub.Message {
		var b strings.Builder
		for i := range 100 {
			if i == changed {
				b.WriteString("changed\n")
			} else {
				fmt.Fprintf(&b, "line %d\n", i)
			}
		}
		return text(b.String())
	}
	all := pubsub.Message{
		ID: "1", Type: "order.placed", Key: "c-42", ContentType: "application/json", Time: time.Unix(1, 0).UTC(), Delay: time.Second, TTL: time.Hour,
		Priority: 3, Payload: []byte(`{"id":"o-1","items":[{"sku":"tea","n":1},{"sku":"cup","n":2}]}`),
		Headers: pubsub.Headers{{Name: "tenant", Value: "acme"}, {Name: "trace", Value: "7", Kind: pubsub.HeaderInt}},
	}
	other := pubsub.Message{
		ID: "2", Type: "", Key: " c-42", ContentType: "text/plain", Time: time.Unix(2, 0).UTC(), TTL: time.Minute,
		Payload: []byte(`{"id":"o-1","items":[{"sku":"tea","n":3},{"sku":"cup","n":2}]}`),
		Headers: pubsub.Headers{{Name: "tenant", Value: "acme"}, {Name: "tenant", Value: "shop"}, {Name: "trace", Value: "7"}},
	}
	a, b, c, d := text("alpha"), text("beta"), text("gamma"), text("delta")
	for name, x := range map[string]struct{ got, want []pubsub.Message }{
		"want-none":       {nil, []pubsub.Message{all}},
		"want-unexpected": {[]pubsub.Message{all}, nil},
		"want-fields":     {[]pubsub.Message{other}, []pubsub.Message{all}},
		"want-missing":    {[]pubsub.Message{a, c, d}, []pubsub.Message{a, b, c, d}},
		"want-too-much":   {[]pubsub.Message{a, b, c, c}, []pubsub.Message{a, b, c}},
		"want-moved":      {[]pubsub.Message{b, c, a}, []pubsub.Message{a, b, c}},
		"want-one-other":  {[]pubsub.Message{d, a, b}, []pubsub.Message{a, c}},
		"want-text":       {[]pubsub.Message{long(50)}, []pubsub.Message{long(-1)}},
		"want-long":       {[]pubsub.Message{long(-1)}, []pubsub.Message{text("short")}},
		"want-binary":     {[]pubsub.Message{text("\x00\x01\x02")}, []pubsub.Message{text("\x00\x01\x03")}},
		"want-nothing":    {nil, []pubsub.Message{{}}},
		"want-empty":      {[]pubsub.Message{{}}, []pubsub.Message{a}},
		"want-no-payload": {[]pubsub.Message{a}, []pubsub.Message{{Payload: []byte{}}}},
		"want-number":     {[]pubsub.Message{text(`{"n":12345678901234567890}`)}, []pubsub.Message{text(`{"n":12345678901234567891}`)}},
		"want-two-values": {[]pubsub.Message{text(`{"n":1}{}`)}, []pubsub.Message{text(`{"n":1}`)}},
	} {
		golden(t, name, failure(t, func(t *fakeT) { pubsubtest.WantMessages(t, x.got, x.want...) }))
	}
}
