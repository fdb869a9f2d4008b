package conformance

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

func fidelity() []Property {
	return []Property{
		{
			Name: "Fidelity/NilAndEmpty", Promises: []int{20}, run: nilAndEmpty,
			Doc: "A nil payload comes as nil and an empty one as empty.",
		},
		{
			Name: "Fidelity/Payloads", Promises: []int{20}, run: payloads,
			Doc: "Payloads of any bytes and length come byte for byte: one byte, all bytes, no UTF-8, what looks like a frame.",
		},
		{
			Name: "Fidelity/Attributes", Promises: []int{20}, run: attributes,
			Doc: "ID, type, key, content type and time come as they were sent, whatever characters they have.",
		},
		{
			Name: "Fidelity/HeaderTexts", Promises: []int{20}, run: headerTexts,
			Doc: "Header names and values come with every awkward character, empty and binary ones too.",
		},
		{
			Name: "Fidelity/HeadersRepeated", Promises: []int{20}, run: headersRepeated,
			Doc: "Repeated headers come as often as they were sent, and all headers in their order.",
		},
		{
			Name: "Fidelity/HeaderKinds", Promises: []int{20}, run: headerKinds,
			Doc: "Typed headers keep their kind and value.",
		},
		{
			Name: "Fidelity/Largest", Promises: []int{20}, Gate: limited(), run: largest,
			Doc: "A message of exactly MaxMessage bytes is accepted and comes whole.",
		},
		{
			Name: "Fidelity/TooLarge", Promises: []int{2, 18}, Gate: limited(), run: tooLarge,
			Doc: "A message one byte larger than MaxMessage is ErrTooLarge, and the next one passes.",
		},
		{
			Name: "Fidelity/CallersMessage", Promises: []int{4}, run: callersMessage,
			Doc: "Publishing changes nothing of the caller's message, whatever middleware does, and what is sent is a copy.",
		},
		{
			Name: "Fidelity/MiddlewareView", Promises: []int{20}, run: middlewareView,
			Doc: "What publish middleware saw last is what consume middleware sees first, field by field.",
		},
		{
			Name: "Fidelity/MiddlewareViewSigned", Promises: []int{20}, run: middlewareViewSigned,
			Doc: "What publish middleware saw is what consume middleware sees, also of a message that is signed and encrypted.",
		},
		foreignProperty(),
	}
}

// roundTrip publishes plain messages, so that there is some traffic, and then those that are special; it returns what came of the
// special ones, in order.
func (e *env) roundTrip(special []pubsub.Message) []pubsub.Message {
	e.Helper()
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	var mu sync.Mutex
	got := map[string]pubsub.Message{}
	e.subscribe(p, e.sub(topic, "g"), func(ctx context.Context, d *pubsub.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		got[d.ID] = d.Message.Clone()
		if l.knows(d.ID) {
			return l.handler(p, "g", nil)(ctx, d)
		}
		return nil
	})
	l.mustPublish(p, topic, l.messages(30, 3)...)
	for i := range special {
		if special[i].ID == "" {
			special[i].ID = fmt.Sprintf("%s-special-%d", e.run, i)
		}
		e.must(p.Publish(e.Context(), topic, special[i]), "publish special message %d", i)
	}
	l.mustPublish(p, topic, l.messages(3, 3)...)
	l.await("g")
	out := make([]pubsub.Message, len(special))
	e.until(patience, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) >= len(l.all())+len(special)
	})
	mu.Lock()
	defer mu.Unlock()
	for i, m := range special {
		r, ok := got[m.ID]
		if !ok {
			e.Errorf("message %q did not come", m.ID)
		}
		out[i] = r
	}
	l.verify()
	return out
}

func nilAndEmpty(e *env) {
	got := e.roundTrip([]pubsub.Message{{Payload: nil}, {Payload: []byte{}}, {Payload: nil, Key: "k"}, {Payload: []byte{}, Key: "k"}})
	for i, m := range got {
		if isNil, want := m.Payload == nil, i%2 == 0; isNil != want || len(m.Payload) > 0 {
			e.Errorf("message %d has the payload %#v; want nil: %v", i, m.Payload, want)
		}
	}
}

func payloads(e *env) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	long := make([]byte, 100_000)
	for i := range long {
		long[i] = byte(e.rng.below(256))
	}
	sent := [][]byte{
		{0}, {0xff}, []byte("\n"), []byte("\r\n.\r\n"), all, []byte("\xff\xfe\x80 not UTF-8 \xc3\x28"), []byte(strings.Repeat("\x00", 100)),
		[]byte(`{"a":"\u0000"}`), []byte("$5\r\nhello\r\n"), []byte("PUB a 5\r\nhello\r\n"), long, long[:1<<16], long[:1<<16-1],
	}
	msgs := make([]pubsub.Message, len(sent))
	for i, b := range sent {
		msgs[i].Payload = b
	}
	for i, m := range e.roundTrip(msgs) {
		if !bytes.Equal(m.Payload, sent[i]) {
			e.Errorf("a payload of %d bytes, %.40q…, came as %d bytes, %.40q…", len(sent[i]), sent[i], len(m.Payload), m.Payload)
		}
	}
}

// awkward are texts that some wire format, somewhere, cannot take as they are.
func awkward() []string {
	return []string{
		"plain", " leading and trailing ", "tab\tand\nnewline\r\n", "UPPER lower", "ümläut ✓ 漢字 🎈", "colon: semi; comma, quote\" back\\slash",
		"percent%20%zz", "nul\x00byte", "\x01\x7f control", "=equals&amp", "a.b-c_d/e*f>g", "\xff\xfenot UTF-8", strings.Repeat("long ", 60),
	}
}

func attributes(e *env) {
	var msgs []pubsub.Message
	when := time.Date(2001, 2, 3, 4, 5, 6, 789_000_000, time.FixedZone("elsewhere", 3600))
	for i, s := range awkward() {
		msgs = append(msgs, pubsub.Message{
			ID: fmt.Sprintf("%s-%d-%s", e.run, i, s), Type: s, Key: s, ContentType: s, Payload: []byte(s), Time: when.Add(time.Duration(i) * time.Millisecond),
		})
	}
	for i, m := range e.roundTrip(slices.Clone(msgs)) {
		want := msgs[i]
		want.Time = want.Time.UTC()
		e.wantSame(m, want)
	}
}

// wantSame asserts that two messages have the same fields.
func (e *env) wantSame(got, want pubsub.Message) {
	e.Helper()
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		a, b := g.Field(i).Interface(), w.Field(i).Interface()
		if t, ok := a.(time.Time); ok && t.Equal(want.Time) {
			continue
		}
		if h, ok := a.(pubsub.Headers); ok && len(h) == 0 && len(want.Headers) == 0 {
			continue
		}
		if !reflect.DeepEqual(a, b) {
			e.Errorf("%s of message %.60q came as %.200q, want %.200q", g.Type().Field(i).Name, want.ID, fmt.Sprint(a), fmt.Sprint(b))
		}
	}
}

// sendHeaders asserts that each list of headers comes as it is.
func (e *env) sendHeaders(lists []pubsub.Headers) {
	e.Helper()
	msgs := make([]pubsub.Message, len(lists))
	for i, h := range lists {
		msgs[i] = pubsub.Message{Payload: []byte("with headers"), Headers: h}
	}
	for i, m := range e.roundTrip(msgs) {
		if !slices.Equal(m.Headers, lists[i]) {
			e.Errorf("headers %.200q came as %.200q", fmt.Sprint(lists[i]), fmt.Sprint(m.Headers))
		}
	}
}

func headerTexts(e *env) {
	var lists []pubsub.Headers
	for _, s := range awkward() {
		lists = append(lists,
			pubsub.Headers{{Name: "plain", Value: s}},
			pubsub.Headers{{Name: "x " + s, Value: "plain"}},
			pubsub.Headers{{Name: s, Value: s}, {Name: "after", Value: ""}})
	}
	bin := make([]byte, 256)
	for i := range bin {
		bin[i] = byte(i)
	}
	lists = append(lists,
		pubsub.Headers{{Name: "binary", Value: string(bin)}},
		pubsub.Headers{{Name: "empty", Value: ""}},
		pubsub.Headers{{Name: "Case", Value: "1"}, {Name: "case", Value: "2"}, {Name: "CASE", Value: "3"}},
		pubsub.Headers{{Name: "traceparent", Value: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, {Name: "Nats-Msg-Id", Value: "mine"}, {Name: "x-death", Value: "mine"}},
	)
	e.sendHeaders(lists)
}

func headersRepeated(e *env) {
	many := pubsub.Headers{}
	for i := range 60 {
		many = append(many, pubsub.Header{Name: fmt.Sprintf("h%d", i%20), Value: strconv.Itoa(i)})
	}
	e.sendHeaders([]pubsub.Headers{
		{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}},
		{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}, {Name: "a", Value: "1"}},
		{{Name: "z", Value: "1"}, {Name: "a", Value: "2"}, {Name: "m", Value: "3"}, {Name: "z", Value: ""}},
		many,
	})
}

func headerKinds(e *env) {
	e.sendHeaders([]pubsub.Headers{
		{{Name: "null", Kind: pubsub.HeaderNull}},
		{{Name: "int", Value: "-9223372036854775808", Kind: pubsub.HeaderInt}, {Name: "text", Value: "7"}},
		{{Name: "float", Value: "3.25", Kind: pubsub.HeaderFloat}},
		{{Name: "bool", Value: "true", Kind: pubsub.HeaderBool}, {Name: "bool", Value: "false", Kind: pubsub.HeaderBool}},
		{{Name: "time", Value: "2001-02-03T04:05:06Z", Kind: pubsub.HeaderTime}},
	})
}

// sized makes a message of exactly n bytes.
func (e *env) sized(n int64) pubsub.Message {
	m := pubsub.Message{ID: fmt.Sprintf("%s-sized-%d", e.run, n), Headers: pubsub.Headers{{Name: "h", Value: "v"}}}
	m.Payload = bytes.Repeat([]byte{'x'}, int(n-m.Size()))
	return m
}

func largest(e *env) {
	m := e.sized(e.caps.MaxMessage)
	got := e.roundTrip([]pubsub.Message{m})[0]
	if got.Size() != e.caps.MaxMessage || !bytes.Equal(got.Payload, m.Payload) {
		e.Errorf("a message of %d bytes came with %d, or others", e.caps.MaxMessage, got.Size())
	}
}

func tooLarge(e *env) {
	p, topic, l := e.open(), e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	l.mustPublish(p, topic, l.messages(30, 3)...)
	fill := func(n int64) pubsub.Message {
		m := l.message("key-0")
		m.Payload = nil
		m.Payload = bytes.Repeat([]byte{'x'}, int(n-m.Size()))
		return m
	}
	for range 2 {
		s := l.note(fill(e.caps.MaxMessage + 1))
		err := p.Publish(e.Context(), topic, s.msg)
		l.tell(s, err)
		e.wantCode(err, pubsub.ErrTooLarge, "publishing %d bytes, one more than MaxMessage", e.caps.MaxMessage+1)
		l.mustPublish(p, topic, fill(e.caps.MaxMessage))
		l.mustPublish(p, topic, l.messages(3, 3)...)
	}
	l.await("g")
	l.verify()
}

func callersMessage(e *env) {
	p := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{{
		Name: "changes everything",
		Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			m.Headers.Set("mine", "changed")
			m.Headers.Add("added", "by middleware")
			m.ContentType = "changed"
			return nil
		},
		Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				if d.ContentType != "changed" || d.Headers.Get("mine") != "changed" {
					e.Errorf("message %s came without the changes of the publish middleware: %v", d.ID, d.Headers)
				}
				return next(ctx, d)
			}
		},
	}}})
	topic, l := e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	msgs := l.messages(enough, 3)
	for i := range msgs {
		msgs[i].Headers = append(make(pubsub.Headers, 0, 8), pubsub.Header{Name: "mine", Value: "1"}, pubsub.Header{Name: "other", Value: "2"})
		msgs[i].Time = time.Unix(int64(i), 0)
	}
	want := make([]pubsub.Message, len(msgs))
	for i := range msgs {
		want[i] = msgs[i].Clone()
	}
	l.mustPublish(p, topic, msgs...)
	l.await("g")
	for i := range msgs {
		spare := msgs[i].Headers[:cap(msgs[i].Headers)]
		if !reflect.DeepEqual(msgs[i], want[i]) || spare[2] != (pubsub.Header{}) {
			e.Errorf("publishing changed the caller's message from %+v to %+v", want[i], msgs[i])
			break
		}
	}
	l.verify()
}

func middlewareView(e *env) {
	var mu sync.Mutex
	out, in := map[string]pubsub.Message{}, map[string]pubsub.Message{}
	probe := pubsub.Middleware{
		Name: "probe", // nearest to the wire: the last one out, the first one in
		Outgoing: func(_ context.Context, _ string, m *pubsub.Message) error {
			mu.Lock()
			defer mu.Unlock()
			out[m.ID] = m.Clone()
			return nil
		},
		Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				mu.Lock()
				in[d.ID] = d.Message.Clone()
				mu.Unlock()
				return next(ctx, d)
			}
		},
	}
	seal := pubsub.Middleware{
		Name: "seal",
		Outgoing: func(_ context.Context, topic string, m *pubsub.Message) error {
			m.Headers.Add("seal", topic+m.ID)
			m.Payload = append([]byte("\x00sealed\xff"), m.Payload...)
			return nil
		},
		Incoming: func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, d *pubsub.Delivery) error {
				b, ok := bytes.CutPrefix(d.Payload, []byte("\x00sealed\xff"))
				if !ok || d.Headers.Get("seal") != d.Topic+d.ID {
					e.Errorf("the seal of message %s is broken", d.ID)
				}
				d.Payload = b
				return next(ctx, d)
			}
		},
	}
	p := e.openWith(&pubsub.Options{Use: []pubsub.Middleware{probe, seal}})
	topic, l := e.topic("a"), e.ledger()
	e.subscribe(p, e.sub(topic, "g"), l.handler(p, "g", nil))
	msgs := l.messages(enough, 5)
	texts := awkward()
	for i := range msgs {
		m := &msgs[i]
		s := texts[i%len(texts)]
		m.Type, m.ContentType = s, s
		m.Headers = pubsub.Headers{{Name: "a", Value: s}, {Name: s, Value: "x"}, {Name: "a", Value: ""}}
		if i%7 == 0 {
			m.TTL = time.Hour
		}
	}
	l.mustPublish(p, topic, msgs...)
	l.await("g")
	mu.Lock()
	defer mu.Unlock()
	for _, m := range msgs {
		e.wantSame(in[m.ID], out[m.ID])
	}
	l.verify()
}
