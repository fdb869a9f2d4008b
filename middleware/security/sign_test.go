package security_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

func order() pubsub.Message {
	return pubsub.Message{
		ID: "o-1", Type: "order.placed", Key: "customer 7", ContentType: "application/json", Payload: []byte(`{"total":12}`),
		Time:    time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC),
		Headers: pubsub.Headers{{Name: "tenant", Value: "acme"}, {Name: "empty", Value: ""}, {Name: "subject", Value: "o-1"}},
	}
}

func suites() []security.Suite {
	return []security.Suite{security.Ed25519, security.P256, security.HMACSHA256}
}

func TestSignedArrivesAsItWasSent(t *testing.T) {
	for _, suite := range suites() {
		t.Run(string(suite), func(t *testing.T) {
			k := key(t, suite, "orders-1", "orders")
			accepts := ring(t, k)
			if suite != security.HMACSHA256 {
				accepts = ring(t, public(t, k))
			}
			out, in := security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders"}), security.Sign(security.SignOptions{Keys: accepts})
			for name, m := range map[string]pubsub.Message{
				"full":  order(),
				"least": {ID: "1", Type: "t", Payload: []byte("x")},
				"nil":   {ID: "1", Type: "t"},
				"empty": {ID: "1", Type: "t", Payload: []byte{}},
			} {
				got, err := receive(t.Context(), "orders.placed", mustSend(t, "orders.placed", m, out), in)
				if err != nil || !reflect.DeepEqual(got.msg, m) {
					t.Errorf("%s: %+v came as %+v, %v", name, m, got, err)
					continue
				}
				if v := got.verified; v.Producer != "orders" || v.Key != "orders-1" || v.Suite != suite || v.Topic != "orders.placed" || time.Since(v.Issued) > time.Minute {
					t.Errorf("%s: verified is %+v", name, v)
				}
			}
		})
	}
}

// An alteration is what somebody on the way does to a message, and as what it is refused.
type alteration struct {
	why  security.Refusal
	edit func(m *pubsub.Message)
}

// alterations are those of a message that alteredTopic has and a layer with Cover "role" has signed with Ed25519.
func alterations() map[string]alteration {
	sig := func(m *pubsub.Message) string { return m.Headers.Get("omnisig") }
	resign := func(edit func(text string) string) func(m *pubsub.Message) {
		return func(m *pubsub.Message) { m.Headers.Set("omnisig", edit(sig(m))) }
	}
	header := func(name, value string) func(m *pubsub.Message) {
		return func(m *pubsub.Message) { m.Headers.Set(name, value) }
	}
	return map[string]alteration{
		"id":                      {security.ErrForged, func(m *pubsub.Message) { m.ID = "o-2" }},
		"no id":                   {security.ErrForged, func(m *pubsub.Message) { m.ID = "" }},
		"type":                    {security.ErrForged, func(m *pubsub.Message) { m.Type = "order.paid" }},
		"key":                     {security.ErrForged, func(m *pubsub.Message) { m.Key = "customer 8" }},
		"no key":                  {security.ErrForged, func(m *pubsub.Message) { m.Key = "" }},
		"id and type swapped":     {security.ErrForged, func(m *pubsub.Message) { m.ID, m.Type = m.Type, m.ID }},
		"a byte from key to type": {security.ErrForged, func(m *pubsub.Message) { m.Type, m.Key = m.Type+m.Key[:1], m.Key[1:] }},
		"time":                    {security.ErrForged, func(m *pubsub.Message) { m.Time = m.Time.Add(time.Nanosecond) }},
		"no time":                 {security.ErrForged, func(m *pubsub.Message) { m.Time = time.Time{} }},
		"content type":            {security.ErrForged, func(m *pubsub.Message) { m.ContentType = "text/html" }},
		"payload":                 {security.ErrForged, func(m *pubsub.Message) { m.Payload[0]++ }},
		"payload longer":          {security.ErrForged, func(m *pubsub.Message) { m.Payload = append(m.Payload, 0) }},
		"payload shorter":         {security.ErrForged, func(m *pubsub.Message) { m.Payload = m.Payload[1:] }},
		"payload empty":           {security.ErrForged, func(m *pubsub.Message) { m.Payload = []byte{} }},
		"payload nil":             {security.ErrForged, func(m *pubsub.Message) { m.Payload = nil }},
		"header":                  {security.ErrForged, header("tenant", "evil")},
		"header empty":            {security.ErrForged, header("tenant", "")},
		"empty header missing":    {security.ErrForged, func(m *pubsub.Message) { m.Headers.Del("empty") }},
		"header missing":          {security.ErrForged, func(m *pubsub.Message) { m.Headers.Del("tenant") }},
		"header twice":            {security.ErrForged, func(m *pubsub.Message) { m.Headers.Add("tenant", "evil") }},
		"header of another kind":  {security.ErrForged, func(m *pubsub.Message) { m.Headers[0].Kind = pubsub.HeaderNative }},
		"values swapped": {security.ErrForged, func(m *pubsub.Message) {
			m.Headers[0].Value, m.Headers[1].Value = m.Headers[1].Value, m.Headers[0].Value
		}},
		"header that must be missing": {security.ErrForged, header("role", "admin")},
		"subject":                     {security.ErrForged, header("subject", "o-2")},
		"source added":                {security.ErrForged, header("source", "/evil")},
		"schema added":                {security.ErrForged, header("dataschema", "evil")},
		"omnienc added":               {security.ErrForged, header("omnienc", "T01O")},
		"no signature":                {security.ErrUnsigned, func(m *pubsub.Message) { m.Headers.Del("omnisig") }},
		"signature empty":             {security.ErrMalformed, header("omnisig", "")},
		"two signatures":              {security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Add("omnisig", sig(m)) }},
		"two omnienc":                 {security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Add("omnienc", "x"); m.Headers.Add("omnienc", "x") }},
		"another case beside it":      {security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Add("OmniSig", sig(m)) }},
		"another case of omnienc":     {security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Add("OMNIENC", "x") }},
		"another case":                {security.ErrMalformed, func(m *pubsub.Message) { m.Headers.Add("OMNISIG", sig(m)); m.Headers.Del("omnisig") }},
		"no text": {security.ErrMalformed, func(m *pubsub.Message) {
			m.Headers[len(m.Headers)-1].Kind = pubsub.HeaderNative
		}},
		"oversized":           {security.ErrMalformed, resign(func(s string) string { return s + strings.Repeat("A", 4<<10) })},
		"omnienc oversized":   {security.ErrMalformed, header("omnienc", strings.Repeat("A", 16<<10+1))},
		"thousands of others": {security.ErrMalformed, func(m *pubsub.Message) { m.Headers = append(m.Headers, make(pubsub.Headers, 1000)...) }},
		"padding":             {security.ErrMalformed, resign(func(s string) string { return s + "=" })},
		"trailing bytes":      {security.ErrForged, resign(func(s string) string { return s + "AAAA" })},
		"trailing newline":    {security.ErrMalformed, resign(func(s string) string { return s + "\n" })},
		"blank":               {security.ErrMalformed, resign(func(s string) string { return " " + s })},
		"standard alphabet":   {security.ErrMalformed, resign(func(s string) string { return s[:len(s)-4] + "+/+/" })},
		"spare bits": {security.ErrMalformed, resign(func(s string) string {
			const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
			return s[:len(s)-1] + string(alphabet[strings.IndexByte(alphabet, s[len(s)-1])|1]) // the last of 86 characters has 4 bits that count for nothing
		})},
		"cut":                   {security.ErrForged, resign(func(s string) string { return s[:len(s)-2] })},
		"only the preamble":     {security.ErrMalformed, resign(func(s string) string { return s[:strings.Index(s, ".")] })},
		"a dot at the end":      {security.ErrMalformed, resign(func(s string) string { return s[:strings.Index(s, ".")+1] })},
		"a dot more":            {security.ErrMalformed, resign(func(s string) string { return s + ".AA" })},
		"an empty further":      {security.ErrMalformed, resign(func(s string) string { return s + "~" })},
		"an unreadable further": {security.ErrMalformed, resign(func(s string) string { return s + "~AA.AA" })},
		"five":                  {security.ErrMalformed, resign(func(s string) string { return strings.Join([]string{s, s, s, s, s}, "~") })},
		"preamble longer":       {security.ErrMalformed, resign(preamble(func(p []byte) []byte { return append(p, 0) }))},
		"preamble shorter":      {security.ErrMalformed, resign(preamble(func(p []byte) []byte { return p[:len(p)-1] }))},
		"another version":       {security.ErrMalformed, resign(preamble(func(p []byte) []byte { p[0] = 2; return p }))},
		"another suite":         {security.ErrUnknownKey, resign(preamble(replace("\x07ed25519", "\x04p256")))},
		"none":                  {security.ErrUnknownKey, resign(preamble(replace("\x07ed25519", "\x04none")))},
		"no suite":              {security.ErrUnknownKey, resign(preamble(replace("\x07ed25519", "\x00")))},
		"another kid":           {security.ErrUnknownKey, resign(preamble(replace("\x08orders-1", "\x08orders-2")))},
		"another producer":      {security.ErrWrongProducer, resign(preamble(replace("\x06orders\x0d", "\x06ledger\x0d")))},
		"another destination":   {security.ErrForged, resign(preamble(replace("orders.placed", "orders.cancel")))},
		"names unsorted":        {security.ErrMalformed, resign(preamble(replace("\x05empty\x04role", "\x04role\x05empty")))},
		"names twice":           {security.ErrMalformed, resign(preamble(replace("\x04role\x07subject\x06tenant", "\x06tenant\x06tenant")))},
		"names upper case":      {security.ErrMalformed, resign(preamble(replace("\x06tenant", "\x06tenAnt")))},
		"a name less":           {security.ErrMalformed, resign(preamble(replace("\x06tenant", "")))},
		"covers a name less":    {security.ErrForged, resign(preamble(replace("\x04\x05empty\x04role\x07subject\x06tenant", "\x03\x05empty\x04role\x07subject")))},
		"covers its own header": {security.ErrMalformed, resign(preamble(replace("\x07subject", "\x07omnisig")))},
	}
}

const alteredTopic = "orders.placed"

// Attacks 1, 3, 8, 9, 10: what is altered on its way is refused, and what is added is not seen.
func TestAlteredIsRefused(t *testing.T) {
	k := key(t, security.Ed25519, "orders-1", "orders")
	layer := security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders", Cover: []string{"role"}})
	for name, attack := range alterations() {
		t.Run(name, func(t *testing.T) {
			wire := mustSend(t, alteredTopic, order(), layer)
			attack.edit(&wire)
			wantRefused(t, alteredTopic, wire, attack.why, layer)
		})
	}
	t.Run("untouched", func(t *testing.T) {
		if got, err := receive(t.Context(), alteredTopic, mustSend(t, alteredTopic, order(), layer), layer); got == nil || err != nil {
			t.Errorf("what nobody has touched is refused: %v", err)
		}
	})
}

// preamble edits the part before the signature.
func preamble(edit func(p []byte) []byte) func(string) string {
	return func(text string) string {
		front, back, _ := strings.Cut(text, ".")
		p, err := base64.RawURLEncoding.DecodeString(front)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(edit(p)) + "." + back
	}
}

// replace puts one text into the place of another, which is there once.
func replace(old, by string) func(p []byte) []byte {
	return func(p []byte) []byte {
		if strings.Count(string(p), old) != 1 {
			panic(fmt.Sprintf("%q is not once in %q", old, p))
		}
		return []byte(strings.Replace(string(p), old, by, 1))
	}
}

// Attack 17, and what it must not open: headers that nobody has signed are not seen, unless they are to be.
func TestAddedHeadersAreNotSeen(t *testing.T) {
	k := key(t, security.Ed25519, "orders-1", "orders")
	layer := security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders", Uncover: []string{"hops"}})
	m := order()
	m.Headers = append(m.Headers, pubsub.Header{Name: "hops", Value: "1"})
	wire := mustSend(t, "a", m, layer)
	wire.Headers = append(pubsub.Headers{
		{Name: "x-death", Value: "1", Kind: pubsub.HeaderNative}, {Name: "Nats-Sequence", Value: "7"}, {Name: "Tenant", Value: "evil"}, {Name: "role", Value: "admin"},
		{Name: "omnibus-replays", Value: "1"},
	}, wire.Headers...)
	wire.Headers.Set("hops", "2")
	m.Headers.Set("hops", "2")
	got, err := receive(t.Context(), "a", wire, layer)
	if err != nil || !reflect.DeepEqual(got.msg, m) {
		t.Errorf("it came as %+v, %v; want %+v", got, err, m)
	}
}

// Attack 2.
func TestAnotherDestinationIsRefused(t *testing.T) {
	k := key(t, security.Ed25519, "orders-1", "orders")
	layer := security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders"})
	wire := mustSend(t, "acme.orders", order(), layer)
	wantRefused(t, "other.orders", wire, security.ErrWrongDestination, layer)
	wantRefused(t, "acme.orders.dead", wire, security.ErrWrongDestination, layer)
	redrive := security.Sign(security.SignOptions{Keys: ring(t, k), Topics: []string{"acme.orders"}})
	got, err := receive(t.Context(), "acme.orders.dead", wire, redrive)
	if err != nil || got.verified.Topic != "acme.orders" {
		t.Errorf("a consumer of what was signed for another topic got %+v, %v", got, err)
	}
	staging := key(t, security.Ed25519, "orders-1", "orders") // the same names, another environment
	wantRefused(t, "acme.orders", wire, security.ErrForged, security.Sign(security.SignOptions{Keys: ring(t, staging)}))
}

// Attacks 5 and 6.
func TestKeysOfOthersAreRefused(t *testing.T) {
	orders, ledger := key(t, security.Ed25519, "k1", "orders"), key(t, security.Ed25519, "k2", "ledger")
	both := security.Sign(security.SignOptions{Keys: ring(t, public(t, orders), public(t, ledger))})
	thief := security.Sign(security.SignOptions{Keys: ring(t, relabel(t, ledger, "k2", "orders")), Producer: "orders"})
	wantRefused(t, "a", mustSend(t, "a", order(), thief), security.ErrWrongProducer, both)
	posing := security.Sign(security.SignOptions{Keys: ring(t, relabel(t, ledger, "k1", "orders")), Producer: "orders"})
	wantRefused(t, "a", mustSend(t, "a", order(), posing), security.ErrForged, both)

	// the public key of one suite as the secret of another
	var file struct{ Keys []map[string]string }
	decodeJSON(t, encodeKeys(t, public(t, orders)), &file)
	file.Keys[0]["suite"], file.Keys[0]["private"] = "hmac-sha256", file.Keys[0]["public"]
	delete(file.Keys[0], "public")
	confused, err := security.DecodeKeys(encodeJSON(t, file))
	if err != nil {
		t.Fatal(err)
	}
	forger := security.Sign(security.SignOptions{Keys: ring(t, confused...), Producer: "orders"})
	wantRefused(t, "a", mustSend(t, "a", order(), forger), security.ErrUnknownKey, both)

	wrapping := key(t, security.AES256GCM, "k1", "orders")
	wantRefused(t, "a", mustSend(t, "a", order(), forger), security.ErrUnknownKey, security.Sign(security.SignOptions{Keys: ring(t, wrapping)}))
}

// relabel gives a key another name and owner, as only its owner could.
func relabel(t *testing.T, k security.Key, id, owner string) security.Key {
	t.Helper()
	var file struct{ Keys []map[string]string }
	decodeJSON(t, encodeKeys(t, k), &file)
	file.Keys[0]["kid"], file.Keys[0]["owner"] = id, owner
	keys, err := security.DecodeKeys(encodeJSON(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return keys[0]
}

// Attack 7.
func TestTooLittleCoveredIsRefused(t *testing.T) {
	k := key(t, security.Ed25519, "orders-1", "orders")
	strict := security.Sign(security.SignOptions{Keys: ring(t, k), Require: []string{"tenant", "region"}})
	m := order()
	for cover, why := range map[string]security.Refusal{"": security.ErrUncovered, "other": security.ErrUncovered, "region": 0} {
		out := security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders"})
		if cover != "" {
			out = security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders", Cover: []string{cover}})
		}
		wire := mustSend(t, "a", m, out)
		if why != 0 {
			wantRefused(t, "a", wire, why, strict)
			continue
		}
		if _, err := receive(t.Context(), "a", wire, strict); err != nil {
			t.Errorf("what covers %q is refused: %v", cover, err)
		}
		wire.Headers.Add("region", "eu")
		wantRefused(t, "a", wire, security.ErrForged, strict)
	}
}

func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := key(t, security.Ed25519, "orders-1", "orders")
		plain := security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders"})
		aged := security.Sign(security.SignOptions{Keys: ring(t, k), MaxAge: time.Hour, MaxSkew: time.Second})
		m := order()
		forever := mustSend(t, "a", m, plain)
		m.TTL = 10 * time.Minute
		short := mustSend(t, "a", m, plain)
		for _, step := range []struct {
			wait           time.Duration
			short, forever security.Refusal
			maxAge         security.Refusal
		}{
			{0, 0, 0, 0},
			{11 * time.Minute, 0, 0, 0}, // clocks may be a minute apart
			{time.Millisecond, security.ErrExpired, 0, 0},
			{49*time.Minute + time.Second - time.Millisecond, security.ErrExpired, 0, 0},
			{time.Millisecond, security.ErrExpired, 0, security.ErrExpired},
			{10000 * time.Hour, security.ErrExpired, 0, security.ErrExpired},
		} {
			time.Sleep(step.wait)
			for _, c := range []struct {
				wire  pubsub.Message
				layer pubsub.Middleware
				why   security.Refusal
			}{{short, plain, step.short}, {forever, plain, step.forever}, {forever, aged, step.maxAge}} {
				if _, err := receive(t.Context(), "a", c.wire, c.layer); err != nil && c.why == 0 || c.why != 0 && !errors.Is(err, c.why) {
					t.Errorf("after %v: %v, want %v", step.wait, err, c.why)
				}
			}
		}
	})
	t.Run("future", func(t *testing.T) {
		k := key(t, security.Ed25519, "orders-1", "orders")
		layer := security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders"})
		wire := mustSend(t, "a", order(), layer)
		synctest.Test(t, func(t *testing.T) { // begins in 2000
			wantRefused(t, "a", wire, security.ErrExpired, security.Sign(security.SignOptions{Keys: ring(t, k)}))
		})
	})
}

func TestSeveralSignatures(t *testing.T) {
	a, b, c := key(t, security.Ed25519, "a", "orders"), key(t, security.P256, "b", "orders"), key(t, security.Ed25519, "c", "orders")
	wire := mustSend(t, "a", order(), security.Sign(security.SignOptions{Keys: ring(t, a, b), Producer: "orders"}))
	if n := strings.Count(wire.Headers.Get("omnisig"), "~"); n != 1 {
		t.Fatalf("two keys make %d signatures", n+1)
	}
	for name, accepts := range map[string]*security.Keyring{"first": ring(t, a), "second": ring(t, b, c), "both": ring(t, b, a), "first revoked": ring(t, a.With(security.Revoked), b)} {
		got, err := receive(t.Context(), "a", wire, security.Sign(security.SignOptions{Keys: accepts}))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := map[bool]string{true: "b", false: "a"}[strings.Contains(name, "second") || strings.Contains(name, "revoked")]; got.verified.Key != want {
			t.Errorf("%s: verified with %q, want %q", name, got.verified.Key, want)
		}
	}
	wantRefused(t, "a", wire, security.ErrUnknownKey, security.Sign(security.SignOptions{Keys: ring(t, c)}))
	// the first that is known decides: a forged one is not made good by the next
	first, second, _ := strings.Cut(wire.Headers.Get("omnisig"), "~")
	end := "AA"
	if strings.HasSuffix(first, end) {
		end = "BA"
	}
	wire.Headers.Set("omnisig", first[:len(first)-2]+end+"~"+second)
	wantRefused(t, "a", wire, security.ErrForged, security.Sign(security.SignOptions{Keys: ring(t, a, b)}))
}

// Attack 18: what a key says when it signed counts for nothing once it is revoked.
func TestRevokedBackdates(t *testing.T) {
	k := key(t, security.Ed25519, "orders-1", "orders")
	var wire pubsub.Message
	synctest.Test(t, func(t *testing.T) { // begins in 2000
		wire = mustSend(t, "a", order(), security.Sign(security.SignOptions{Keys: ring(t, k), Producer: "orders"}))
	})
	keys := ring(t, public(t, k).With(security.Passive))
	layer := security.Sign(security.SignOptions{Keys: keys})
	if _, err := receive(t.Context(), "a", wire, layer); err != nil {
		t.Fatal(err)
	}
	if err := keys.Replace(public(t, k).With(security.Revoked)); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "a", wire, security.ErrUnknownKey, layer)
}

func TestPublishRefuses(t *testing.T) {
	k := key(t, security.Ed25519, "orders-1", "orders")
	keys := ring(t, k)
	many := make(pubsub.Headers, 256)
	for i := range many {
		many[i].Name = fmt.Sprintf("h%d", i)
	}
	for name, c := range map[string]struct {
		opts security.SignOptions
		edit func(m *pubsub.Message)
		says string
	}{
		"no producer":      {security.SignOptions{Keys: keys}, nil, "Producer"},
		"no key":           {security.SignOptions{Keys: keys, Producer: "ledger"}, nil, `no active key that signs for "ledger"`},
		"only passive":     {security.SignOptions{Keys: ring(t, k.With(security.Passive)), Producer: "orders"}, nil, "no active key"},
		"only public":      {security.SignOptions{Keys: ring(t, public(t, k)), Producer: "orders"}, nil, "no active key"},
		"no type":          {security.SignOptions{Keys: keys, Producer: "orders"}, func(m *pubsub.Message) { m.Type = "" }, "Type"},
		"upper case":       {security.SignOptions{Keys: keys, Producer: "orders"}, func(m *pubsub.Message) { m.Headers.Add("X-A", "") }, `"X-A"`},
		"twice":            {security.SignOptions{Keys: keys, Producer: "orders"}, func(m *pubsub.Message) { m.Headers.Add("tenant", "") }, `"tenant"`},
		"typed":            {security.SignOptions{Keys: keys, Producer: "orders"}, func(m *pubsub.Message) { m.Headers[0].Kind = pubsub.HeaderInt }, `"tenant"`},
		"signed":           {security.SignOptions{Keys: keys, Producer: "orders"}, func(m *pubsub.Message) { m.Headers.Add("omnisig", "x") }, `"omnisig"`},
		"signed otherwise": {security.SignOptions{Keys: keys, Producer: "orders"}, func(m *pubsub.Message) { m.Headers.Add("OmniSig", "x") }, `"OmniSig"`},
		"too many":         {security.SignOptions{Keys: keys, Producer: "orders"}, func(m *pubsub.Message) { m.Headers = many }, "255"},
		"too long":         {security.SignOptions{Keys: keys, Producer: "orders"}, func(m *pubsub.Message) { m.Headers = longNames() }, "4096"},
		"two subjects":     {security.SignOptions{Keys: keys, Producer: "orders"}, func(m *pubsub.Message) { m.Headers.Add("subject", "x") }, "subject"},
		"nil keyring":      {security.SignOptions{}, nil, "Keys"},
		"negative":         {security.SignOptions{Keys: keys, MaxAge: -1}, nil, "MaxAge"},
		"negative skew":    {security.SignOptions{Keys: keys, MaxSkew: -1}, nil, "MaxSkew"},
		"covers upper":     {security.SignOptions{Keys: keys, Cover: []string{"A"}}, nil, `"A"`},
		"requires omnisig": {security.SignOptions{Keys: keys, Require: []string{"omnisig"}}, nil, `"omnisig"`},
		"both":             {security.SignOptions{Keys: keys, Require: []string{"a"}, Uncover: []string{"a"}}, nil, `"a"`},
	} {
		m := order()
		if c.edit != nil {
			c.edit(&m)
		}
		if _, err := send("a", m, security.Sign(c.opts)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error that says %s", name, err, c.says)
		}
	}
}

func longNames() pubsub.Headers {
	h := make(pubsub.Headers, 20)
	for i := range h {
		h[i].Name = fmt.Sprintf("%03d", i) + strings.Repeat("x", 200)
	}
	return slices.Clip(h)
}

func FuzzVerify(f *testing.F) {
	k := key(f, security.Ed25519, "orders-1", "orders")
	layer := security.Sign(security.SignOptions{Keys: ring(f, k), Producer: "orders"})
	genuine := mustSend(f, "a", order(), layer).Headers.Get("omnisig")
	f.Add(genuine)
	f.Add(genuine + "~" + genuine)
	f.Add(".")
	f.Fuzz(func(t *testing.T, text string) {
		m := order()
		m.Headers.Add("omnisig", text)
		got, err := receive(t.Context(), "a", m, layer)
		if got != nil && !slices.Contains(strings.Split(text, "~"), genuine) {
			t.Fatalf("%q is accepted", text)
		}
		if text == genuine && got == nil {
			t.Fatalf("what is genuine is refused: %v", err)
		}
	})
}
