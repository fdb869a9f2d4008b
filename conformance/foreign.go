package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func foreignProperty() Property {
	return Property{
		Name: "Fidelity/ForeignMessages", Promises: []int{20}, run: foreignMessages,
		Doc: "Messages that another client wrote come with their payload, and with the headers that it can say, typed ones too, and so they do when they are retried.",
		needs: func(h Harness) string {
			if h.ForeignPublish == nil {
				return "ForeignPublish, messages that another client writes"
			}
			return ""
		},
	}
}

// errOnce is why a handler fails at the first delivery of a message.
var errOnce = errors.New("not yet")

// foreignHeaders are those that another client writes. Their names and values are such that no protocol has to escape them.
func foreignHeaders() []pubsub.Headers {
	return []pubsub.Headers{
		nil,
		{{Name: "trace", Value: "abc"}},
		{{Name: "x-twice", Value: "a"}, {Name: "x-between", Value: "b"}, {Name: "x-twice", Value: "c"}},
		{{Name: "x-case", Value: "lower"}, {Name: "X-Case", Value: "upper"}},
		{{Name: "x-empty"}, {Name: "x-percent", Value: "100% %41 %zz"}, {Name: "x-unicode", Value: "Grüße ☃"}},
		{{Name: "x-long", Value: strings.Repeat("ü", 2000)}},
		{{Name: "x-int", Value: "-7", Kind: pubsub.HeaderInt}, {Name: "x-text", Value: "-7"}, {Name: "x-bool", Value: "true", Kind: pubsub.HeaderBool}},
		{{Name: "x-float", Value: "3.25", Kind: pubsub.HeaderFloat}, {Name: "x-null", Kind: pubsub.HeaderNull}, {Name: "x-time", Value: "2001-02-03T04:05:06Z", Kind: pubsub.HeaderTime}},
	}
}

func foreignMessages(e *env) {
	const count = enough / 2
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	s := e.sub(topic, "g")
	s.Retry = pubsub.Policy{MaxAttempts: 3, Delays: []time.Duration{50 * time.Millisecond}}
	var mu sync.Mutex
	got := map[string][]pubsub.Message{} // by payload
	e.subscribe(p, s, func(ctx context.Context, d *pubsub.Delivery) error {
		if l.knows(d.ID) {
			return l.handler(p, "g", nil)(ctx, d)
		}
		mu.Lock()
		defer mu.Unlock()
		seen := len(got[string(d.Payload)])
		got[string(d.Payload)] = append(got[string(d.Payload)], d.Message.Clone())
		if e.caps.Redelivery && seen == 0 && bytes.HasSuffix(d.Payload, []byte("again")) {
			return errOnce
		}
		return nil
	})
	l.mustPublish(p, topic, l.messages(30, 3)...)
	payload := func(i int) string {
		switch {
		case i == 0:
			return ""
		case i%10 == 1:
			return fmt.Sprintf("\x00\xff %d again", i)
		}
		return fmt.Sprintf("\x00\xff %d", i)
	}
	lists := foreignHeaders()
	said := make([]pubsub.Headers, count)
	for i := range count {
		var err error
		m := pubsub.Message{Payload: []byte(payload(i)), Headers: slices.Clone(lists[i%len(lists)])}
		said[i], err = e.h.ForeignPublish(e.Context(), topic, m)
		e.must(err, "publish as another client")
	}
	l.mustPublish(p, topic, l.messages(3, 3)...)
	l.await("g")
	complete := func() bool {
		mu.Lock()
		defer mu.Unlock()
		for i := range count {
			if n := len(got[payload(i)]); n == 0 || n == 1 && e.caps.Redelivery && strings.HasSuffix(payload(i), "again") {
				return false
			}
		}
		return true
	}
	e.until(patience, complete)
	mu.Lock()
	defer mu.Unlock()
	for i := range count {
		want := 1
		if e.caps.Redelivery && strings.HasSuffix(payload(i), "again") {
			want = 2
		}
		all := got[payload(i)]
		if len(all) != want {
			e.Errorf("message %q, which another client has written, came %d times, want %d", payload(i), len(all), want)
		}
		for attempt, m := range all {
			if !sameHeaders(m.Headers, said[i]) {
				e.Errorf("attempt %d of message %q, which another client has written: headers %.200q came as %.200q", attempt+1, payload(i), fmt.Sprint(said[i]), fmt.Sprint(m.Headers))
			}
			if m.Key != "" || m.Type != "" || m.ContentType != "" {
				e.Errorf("attempt %d of message %q, which another client has written, has the key %q, the type %q and the content type %q; it was given none", attempt+1, payload(i), m.Key, m.Type, m.ContentType)
			}
		}
	}
	if len(got) > count {
		e.Errorf("%d payloads came, another client has written %d", len(got), count)
	}
	l.verify()
}

// sameHeaders compares lists in which only headers of one name have an order: some protocols keep no other.
func sameHeaders(a, b pubsub.Headers) bool {
	byName := func(h pubsub.Headers) pubsub.Headers {
		h = slices.Clone(h)
		slices.SortStableFunc(h, func(x, y pubsub.Header) int { return strings.Compare(x.Name, y.Name) })
		return h
	}
	return slices.Equal(byName(a), byName(b))
}
