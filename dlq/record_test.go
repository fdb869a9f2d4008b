package dlq_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/omnibus-go/omnibus/dlq"
	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

func headers(pairs ...string) (h pubsub.Headers) {
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func utc(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		panic(err)
	}
	return t
}

// Whoever wrote a dead letter: what it says is read, and what a replay sends has none of it.
func TestFormats(t *testing.T) {
	for _, c := range []struct {
		name    string
		headers pubsub.Headers
		want    dlq.Record
		keeps   string // the names of the message's own headers
		bad     string
	}{
		{
			name: "ours",
			headers: headers("a", "1", "omnibus-dlq-id", "d-1", "omnibus-dlq-source-topic", "orders", "omnibus-dlq-source-group", "billing",
				"omnibus-dlq-source-position", "1.0.7.0", "omnibus-dlq-source-broker", "kafka", "omnibus-dlq-reason", "max-attempts",
				"omnibus-dlq-category", "timeout", "omnibus-dlq-error", "too slow", "omnibus-dlq-error-type", "*net.DNSError",
				"omnibus-dlq-fingerprint", "1:abc", "omnibus-dlq-stack", "main.go:7", "omnibus-dlq-attempts", "5",
				"omnibus-dlq-first-failed", "2026-01-02T03:04:05.5Z", "omnibus-dlq-last-failed", "2026-01-02T03:05:00Z",
				"omnibus-dlq-service", "bill", "omnibus-dlq-host", "h-1", "omnibus-dlq-version", "v1.2.3", "omnibus-dlq-trace", "4bf9",
				"omnibus-dlq-history", `[{"attempt":4,"at":"2026-01-02T03:04:59Z","type":"t","error":"e","later":1},{"attempt":5,"at":"2026-01-02T03:05:00Z","type":"u","error":"f"}]`,
				"omnibus-dlq-of-a-later-version", "?", "omnibus-replays", "2", "omnibus-replay-of", "d-0", "b", "2"),
			want: dlq.Record{Format: dlq.FormatOmnibus, ID: "d-1", Topic: "orders", Group: "billing", SourcePosition: "1.0.7.0", Broker: "kafka",
				Reason: "max-attempts", Category: "timeout", Error: "too slow", ErrorType: "*net.DNSError", Fingerprint: "1:abc", Stack: "main.go:7",
				Attempts: 5, FirstFailed: utc("2026-01-02T03:04:05.5Z"), LastFailed: utc("2026-01-02T03:05:00Z"), Service: "bill", Host: "h-1", Version: "v1.2.3", Trace: "4bf9",
				History: []dlq.Attempt{{Number: 4, At: utc("2026-01-02T03:04:59Z"), ErrorType: "t", Error: "e"},
					{Number: 5, At: utc("2026-01-02T03:05:00Z"), ErrorType: "u", Error: "f"}},
				Replays: 2, ReplayOf: "d-0"},
			keeps: "a b",
		},
		{
			name: "ours, broken",
			headers: headers("omnibus-dlq-id", "d-1", "omnibus-dlq-attempts", "many", "omnibus-dlq-history", "[{", "omnibus-dlq-last-failed", "yesterday", "omnibus-dlq-error", "e",
				"omnibus-replays", "-1", "a", "1"),
			want:  dlq.Record{Format: dlq.FormatOmnibus, ID: "d-1", Error: "e"},
			keeps: "a", bad: `omnibus-replays is "-1"` + "\n" + `header omnibus-dlq-attempts is "many"` + "\n" + `header omnibus-dlq-history is "[{"` + "\n" + `header omnibus-dlq-last-failed is "yesterday"`,
		},
		{
			name: "Spring",
			headers: headers("a", "1", "kafka_dlt-original-topic", "orders", "kafka_dlt-original-partition", "\x00\x00\x00\x03",
				"kafka_dlt-original-offset", "\x00\x00\x00\x00\x00\x00\x01\x02", "kafka_dlt-original-timestamp", "\x00\x00\x01\x9b\x00\x00\x00\x00",
				"kafka_dlt-original-consumer-group", "billing", "kafka_dlt-exception-fqcn", "org.springframework.kafka.listener.ListenerExecutionFailedException",
				"kafka_dlt-exception-cause-fqcn", "java.lang.IllegalStateException", "kafka_dlt-exception-message", "no stock",
				"kafka_dlt-exception-stacktrace", "at a.b.C"),
			want: dlq.Record{Format: dlq.FormatSpring, Broker: "kafka", Topic: "orders", Group: "billing", SourcePosition: "3/258",
				Error: "no stock", ErrorType: "java.lang.IllegalStateException", Stack: "at a.b.C"},
			keeps: "a",
		},
		{
			name: "Spring, broken",
			headers: headers("kafka_dlt-original-partition", "xyz", "kafka_dlt-original-offset", "7", "kafka_dlt-key-exception-message", "key",
				"kafka_dlt-key-exception-fqcn", "K", "kafka_dlt-key-exception-stacktrace", "S"),
			want: dlq.Record{Format: dlq.FormatSpring, Broker: "kafka", Error: "key", ErrorType: "K", Stack: "S"},
			bad:  `kafka_dlt-original-partition is "xyz"`,
		},
		{
			name: "MassTransit",
			headers: headers("Content-Type", "application/vnd.masstransit+json", "MT-Reason", "fault", "MT-Fault-ExceptionType", "System.TimeoutException",
				"MT-Fault-Message", "too slow", "MT-Fault-Timestamp", "2026-01-02T03:04:05.1234567Z", "MT-Fault-StackTrace", "at X",
				"MT-Fault-InputAddress", "rabbitmq://host/vhost/billing?durable=true", "MT-Fault-ConsumerType", "Billing.Consumer", "MT-Fault-RetryCount", "4",
				"MT-Host-MachineName", "h-1", "MT-Host-ProcessName", "bill"),
			want: dlq.Record{Format: dlq.FormatMassTransit, Reason: "fault", Group: "billing", Error: "too slow", ErrorType: "System.TimeoutException",
				Stack: "at X", Attempts: 5, LastFailed: utc("2026-01-02T03:04:05.1234567Z"), Service: "bill", Host: "h-1"},
			keeps: "Content-Type",
		},
		{
			name: "NServiceBus",
			headers: headers("NServiceBus.MessageId", "7", "NServiceBus.FailedQ", "billing@h-1", "NServiceBus.ExceptionInfo.ExceptionType", "System.Exception",
				"NServiceBus.ExceptionInfo.Message", "no", "NServiceBus.ExceptionInfo.StackTrace", "at Y", "NServiceBus.TimeOfFailure", "2026-01-02 03:04:05:123456 Z",
				"NServiceBus.ProcessingEndpoint", "bill", "NServiceBus.ProcessingMachine", "h-1"),
			want: dlq.Record{Format: dlq.FormatNServiceBus, Group: "billing", Error: "no", ErrorType: "System.Exception", Stack: "at Y",
				LastFailed: utc("2026-01-02T03:04:05.123456Z"), Service: "bill", Host: "h-1"},
			keeps: "NServiceBus.MessageId NServiceBus.ProcessingEndpoint NServiceBus.ProcessingMachine",
		},
		{
			name: "RabbitMQ",
			headers: append(headers("a", "1", "x-first-death-queue", "billing", "x-first-death-reason", "rejected", "x-first-death-exchange", "omnibus",
				"x-last-death-queue", "tier", "x-last-death-reason", "expired"), pubsub.Header{Name: "x-death", Value: "\x00\x01", Kind: pubsub.HeaderNative}),
			want:  dlq.Record{Format: dlq.FormatRabbitMQ, Broker: "rabbitmq", Group: "billing", Reason: "expired"},
			keeps: "a",
		},
		{
			name:    "Watermill",
			headers: headers("reason_poisoned", "no stock", "topic_poisoned", "orders", "handler_poisoned", "bill", "subscriber_poisoned", "kafka.Subscriber", "a", "1"),
			want:    dlq.Record{Format: dlq.FormatWatermill, Error: "no stock", Topic: "orders", Service: "bill"},
			keeps:   "a",
		},
		{
			name:    "ours, of what the broker had dead-lettered before", // then that is part of the message
			headers: headers("x-first-death-queue", "tier", "x-first-death-reason", "expired", "omnibus-dlq-id", "d-1"),
			want:    dlq.Record{Format: dlq.FormatOmnibus, ID: "d-1"},
			keeps:   "x-first-death-queue x-first-death-reason",
		},
		{name: "raw", headers: headers("a", "1", "Kafka_dlt-x", "y", "x-deadline", "soon"), want: dlq.Record{}, keeps: "a Kafka_dlt-x x-deadline"},
		{name: "bare", want: dlq.Record{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := memory.New(nil)
			defer b.Close()
			sub := pubsub.Subscription{Topic: "dead", Group: "g"}
			if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
				t.Fatal(err)
			}
			if err := b.Publish(t.Context(), "dead", pubsub.Message{ID: "m-1", Key: "k", Payload: []byte("p"), Headers: c.headers}); err != nil {
				t.Fatal(err)
			}
			q := dlq.OpenTopic(b, "dead")
			all := list(t, q, dlq.Filter{})
			if len(all) != 1 {
				t.Fatalf("%d records", len(all))
			}
			got := all[0]
			bad := ""
			if got.Bad != nil {
				bad = got.Bad.Error()
			}
			if !strings.Contains(bad, c.bad) || (bad == "") != (c.bad == "") {
				t.Errorf("it cannot read %q, want %q", bad, c.bad)
			}
			if !slices.EqualFunc(got.Stored.Headers, c.headers, func(a, b pubsub.Header) bool { return a == b }) || string(got.Message.Payload) != "p" || got.Message.Key != "k" {
				t.Errorf("stored as %+v, the message is %+v", got.Stored, got.Message)
			}
			var kept []string
			for _, h := range got.Message.Headers {
				kept = append(kept, h.Name)
			}
			if strings.Join(kept, " ") != c.keeps {
				t.Errorf("the message has the headers %q, want %q", kept, c.keeps)
			}
			if c.want.ID == "" {
				c.want.ID = "@" + got.Position.String()
			}
			if c.want.Fingerprint == "" && !strings.HasPrefix(got.Fingerprint, "0:") {
				t.Errorf("fingerprint %q", got.Fingerprint)
			} else if c.want.Fingerprint == "" {
				got.Fingerprint = ""
			}
			got.Message, got.Stored, got.Position, got.Bad = pubsub.Message{}, pubsub.Message{}, pubsub.Position{}, nil
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
			rep, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{Topic: "dead"})
			if err != nil || rep.Replayed != 1 {
				t.Fatal(rep, err)
			}
			again := list(t, q, dlq.Filter{})
			m := again[1].Stored
			names := slices.Collect(func(yield func(string) bool) {
				for _, h := range m.Headers {
					if !yield(h.Name) {
						return
					}
				}
			})
			want := strings.TrimSpace(c.keeps + " omnibus-replays omnibus-replay-of")
			if strings.Join(names, " ") != want || m.ID != "m-1" || string(m.Payload) != "p" || m.Headers.Get("omnibus-replays") != fmt.Sprint(c.want.Replays+1) {
				t.Errorf("replayed as %+v, want the headers %s", m, want)
			}
		})
	}
}

// A record that the adapter cannot decode is listed as it lies there; a replay reports it and sends the others.
func TestUndecodableIsListedRaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, b := newProcess(t, memory.NewServer(memory.Config{}))
		defer b.Close()
		kill(t, b, billing(), 10, 0)
		errBad := errors.New("not a frame")
		p.stray = func(r *pubsub.Record) {
			if r.Msg.ID == "m-00004" {
				*r.Msg, r.Bad = pubsub.Message{Payload: []byte("\x00raw")}, errBad
			}
		}
		q := dlq.Open(b, "orders", "billing")
		all := list(t, q, dlq.Filter{})
		if len(all) != 10 {
			t.Fatalf("%d records, want 10", len(all))
		}
		if r := all[4]; r.Format != dlq.FormatRaw || !errors.Is(r.Bad, errBad) || string(r.Stored.Payload) != "\x00raw" || r.ID != "@"+r.Position.String() {
			t.Errorf("%+v", r)
		}
		if r, err := q.Show(t.Context(), all[4].ID); err != nil || r.ID != all[4].ID {
			t.Errorf("%+v, %v", r, err)
		}
		rep, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{})
		if err != nil || rep.Replayed != 9 || rep.Failed != 1 || rep.Failures[0].ID != all[4].ID || !errors.Is(rep.Failures[0].Err, errBad) {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

// What the engine had added is none of the message's, and a count that is too large does not begin anew.
func TestEngineHeadersAndLargeCounts(t *testing.T) {
	for _, count := range []string{"9223372036854775807", "99999999999999999999"} {
		synctest.Test(t, func(t *testing.T) {
			p, b := newProcess(t, memory.NewServer(memory.Config{}))
			defer b.Close()
			kill(t, b, billing(), 1, 0)
			p.stray = func(r *pubsub.Record) {
				r.Msg.Headers = append(slices.Clip(r.Msg.Headers), headers("omnibus-expires", "1 1s", "omnibus-attempts", "7", "omnibus-retry", "x", "omnibus-topic", "x",
					"omnibus-replays", count)...)
			}
			q := dlq.Open(b, "orders", "billing")
			r := list(t, q, dlq.Filter{})[0]
			for _, h := range r.Message.Headers {
				if strings.HasPrefix(h.Name, "omnibus-") {
					t.Errorf("the message has the header %s", h.Name)
				}
			}
			if r.Replays != 1<<30 || r.Bad != nil {
				t.Errorf("replayed %d times, %v", r.Replays, r.Bad)
			}
			if rep, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{}); err != nil || rep.Skipped != 1 {
				t.Errorf("%+v, %v", rep, err)
			}
			var sent string
			p.out = func(o *pubsub.Out) error { sent = o.Msg.Headers.Get("omnibus-replays"); return nil }
			if rep, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{MaxReplays: pubsub.Unlimited}); err != nil || rep.Replayed != 1 || sent != "1073741825" {
				t.Errorf("%+v, %v: sent as %q", rep, err, sent)
			}
		})
	}
}

func TestBrowsingTakesAndCountsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		kill(t, b, billing(), 110, 3)
		q := dlq.Open(b, "orders", "billing")
		text := func() string {
			var s strings.Builder
			for _, r := range list(t, q, dlq.Filter{}) {
				fmt.Fprintf(&s, "%+v\n", r)
			}
			return s.String()
		}
		want := text()
		if n := strings.Count(want, "\n"); n != 110 {
			t.Fatalf("%d records", n)
		}
		for range 5 {
			if got := text(); got != want {
				t.Fatal("another list says something else")
			}
		}
		for range q.List(t.Context(), dlq.Filter{}) { // leaving early is fine
			break
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		n := 0
		for _, err := range q.List(ctx, dlq.Filter{}) {
			if n++; n == 100 {
				stop()
			}
			if n == 101 && !errors.Is(err, pubsub.ErrCanceled) || n > 101 {
				t.Errorf("record %d: %v", n, err)
			}
		}
	})
}

func TestFilterAndGroups(t *testing.T) {
	b := memory.New(nil)
	defer b.Close()
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "dead"}}, Groups: []pubsub.Subscription{{Topic: "dead", Group: "g"}}}); err != nil {
		t.Fatal(err)
	}
	at := utc("2026-01-02T03:00:00Z")
	add := func(id, fingerprint, category, text string, hours int, m pubsub.Message) {
		t.Helper()
		m.Headers = append(m.Headers, headers("omnibus-dlq-id", id, "omnibus-dlq-source-topic", "orders."+id, "omnibus-dlq-source-group", "g-"+id,
			"omnibus-dlq-reason", "r-"+id, "omnibus-dlq-category", category, "omnibus-dlq-error", text, "omnibus-dlq-error-type", "t-"+id,
			"omnibus-dlq-fingerprint", fingerprint, "omnibus-dlq-last-failed", at.Add(time.Duration(hours)*time.Hour).Format(time.RFC3339Nano))...)
		if err := b.Publish(t.Context(), "dead", m); err != nil {
			t.Fatal(err)
		}
	}
	add("a", "1:x", "timeout", "slow a", 3, pubsub.Message{Type: "order", Key: "k-1", Headers: headers("tenant", "acme", "tenant", "emca")})
	add("b", "1:y", "timeout", "slow b", 1, pubsub.Message{Type: "order", Key: "k-2", Headers: headers("tenant", "emca")})
	add("c", "1:x", "", "no", 0, pubsub.Message{Type: "refund", Key: "k-1"})
	add("d", "1:x", "timeout", "slow d", 2, pubsub.Message{})
	if err := b.Publish(t.Context(), "dead", pubsub.Message{Time: at.Add(-time.Hour)}); err != nil { // raw
		t.Fatal(err)
	}
	q := dlq.OpenTopic(b, "dead")
	for _, c := range []struct {
		name string
		f    dlq.Filter
		want string
	}{
		{"all", dlq.Filter{}, "a b c d raw"},
		{"IDs", dlq.Filter{IDs: []string{"d", "b", "x"}}, "b d"},
		{"no ID", dlq.Filter{IDs: []string{}}, ""},
		{"Topic", dlq.Filter{Topic: "orders.b"}, "b"},
		{"Group", dlq.Filter{Group: "g-c"}, "c"},
		{"Reason", dlq.Filter{Reason: "r-d"}, "d"},
		{"Category", dlq.Filter{Category: "timeout"}, "a b d"},
		{"ErrorType", dlq.Filter{ErrorType: "t-a"}, "a"},
		{"Fingerprint", dlq.Filter{Fingerprint: "1:y"}, "b"},
		{"Type", dlq.Filter{Type: "order"}, "a b"},
		{"Key", dlq.Filter{Key: "k-1"}, "a c"},
		{"Error", dlq.Filter{Error: "slow"}, "a b d"},
		{"Header", dlq.Filter{Header: map[string]string{"tenant": "emca"}}, "a b"},
		{"Since", dlq.Filter{Since: at.Add(2 * time.Hour)}, "a d"},
		{"Before", dlq.Filter{Before: at.Add(time.Hour)}, "c raw"},
		{"Where", dlq.Filter{Where: func(r *dlq.Record) bool { return r.Error == "no" }}, "c"},
		{"several", dlq.Filter{Category: "timeout", Fingerprint: "1:x", Since: at.Add(3 * time.Hour)}, "a"},
	} {
		var got []string
		for _, r := range list(t, q, c.f) {
			id := r.ID
			if strings.HasPrefix(id, "@") {
				id = "raw"
			}
			got = append(got, id)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	groups, err := q.Groups(t.Context(), dlq.Filter{})
	if err != nil || len(groups) != 3 {
		t.Fatal(groups, err)
	}
	g := groups[0]
	if g.Fingerprint != "1:x" || g.Count != 3 || !g.First.Equal(at) || !g.Last.Equal(at.Add(3*time.Hour)) || g.Sample.ID != "a" || g.Error != "slow a" ||
		g.Category != "timeout" || g.Reason != "r-a" || g.ErrorType != "t-a" {
		t.Errorf("%+v", g)
	}
	if groups[1].Fingerprint != "1:y" || groups[2].Count != 1 {
		t.Errorf("%+v", groups[1:])
	}
	if r, err := q.Show(t.Context(), "c"); err != nil || r.Error != "no" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := q.Show(t.Context(), "nobody"); !errors.Is(err, pubsub.ErrNotFound) {
		t.Error(err)
	}
	// to the groups that failed: only their own words say which
	rep, err := q.Replay(t.Context(), dlq.Filter{}, dlq.Replay{})
	if err != nil || rep.Replayed != 0 || rep.Failed != 5 {
		t.Fatalf("%+v, %v", rep, err)
	}
	codes := map[pubsub.Code]int{}
	for _, f := range rep.Failures {
		codes[pubsub.CodeOf(f.Err)]++
	}
	if want := map[pubsub.Code]int{pubsub.ErrUnroutable: 4, pubsub.ErrInvalid: 1}; !maps.Equal(codes, want) {
		t.Errorf("%v", rep.Failures)
	}
}

func TestFailuresOfOneKindHaveOneFingerprint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		n := 0
		subscribe(t, b, billing(), func(_ context.Context, d *pubsub.Delivery) error {
			n++
			if d.Type == "other" {
				return pubsub.Permanent(&time.ParseError{Message: fmt.Sprint(n)})
			}
			return pubsub.Permanent(errors.New(fmt.Sprint("declined ", n)))
		})
		for _, typ := range []string{"order", "order", "other", "other", "order"} {
			if err := b.Publish(t.Context(), "orders", pubsub.Message{Type: typ}); err != nil {
				t.Fatal(err)
			}
		}
		settle(t, b, billing())
		groups, err := dlq.Open(b, "orders", "billing").Groups(t.Context(), dlq.Filter{})
		if err != nil || len(groups) != 2 || groups[0].Count != 3 || groups[1].Count != 2 || groups[0].Error != "declined 5" {
			t.Fatalf("%+v, %v", groups, err)
		}
		if want := pubsub.Fingerprint(errors.New("any")); groups[0].Fingerprint != want {
			t.Errorf("the fingerprint is %q, the engine's is %q", groups[0].Fingerprint, want)
		}
		r := groups[0].Sample
		if r.Bad != nil || r.Host == "" || len(r.History) != 1 || r.History[0].Error != r.Error || r.History[0].Number != 1 || r.FirstFailed.IsZero() ||
			!r.History[0].At.Equal(r.FirstFailed) {
			t.Errorf("what the engine wrote is read as %+v", r)
		}
	})
}

func TestRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(nil)
		defer b.Close()
		topics := map[string]string{"timeout": "dead.timeouts", "": "dead.rest"}
		sub := billing()
		sub.Retry = pubsub.Policy{MaxAttempts: 1}
		is := func(text string) func(error) bool { return func(err error) bool { return err.Error() == text } }
		once := pubsub.Policy{MaxAttempts: 1}
		sub.Rules = []pubsub.Rule{{Category: "timeout", When: is("slow"), Retry: once}, {Category: "partner", When: is("partner"), Retry: once}}
		sub.DeadLetter.Route = dlq.Route(topics)
		topics["timeout"] = "changed.later"
		if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{{Topic: "dead.timeouts", Group: "g"}}}); err != nil {
			t.Fatal(err)
		}
		subscribe(t, b, sub, func(_ context.Context, d *pubsub.Delivery) error { return errors.New(d.Type) })
		for _, typ := range []string{"slow", "partner", "other", "slow"} {
			if err := b.Publish(t.Context(), "orders", pubsub.Message{Type: typ}); err != nil {
				t.Fatal(err)
			}
		}
		settle(t, b, sub)
		for name, c := range map[string]struct {
			q    *dlq.Queue
			want string
		}{"routed": {dlq.OpenTopic(b, "dead.timeouts"), "slow slow"}, "the group's own": {dlq.Open(b, "orders", "billing"), "partner other"}} {
			var got []string
			for _, r := range list(t, c.q, dlq.Filter{}) {
				got = append(got, r.Message.Type)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
		var none map[string]string
		if to := dlq.Route(none)(nil, errors.New("x")); to != "" {
			t.Errorf("no topics: %q", to)
		}
	})
}

// What was too large for its place is listed with what is known of it, and not replayed: its group has it still.
func TestWhatIsStillAtItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 40 << 10
		b := memory.New(nil)
		defer b.Close()
		if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "dead", MaxBytes: limit}}}); err != nil {
			t.Fatal(err)
		}
		sub := billing()
		sub.DeadLetter.Topic = "dead"
		c, err := b.Subscribe(t.Context(), sub, func(context.Context, *pubsub.Delivery) error { return pubsub.Permanent(errDeclined) })
		if err != nil {
			t.Fatal(err)
		}
		big := pubsub.Message{ID: "big", Key: "k", Payload: make([]byte, limit), Headers: pubsub.Headers{{Name: "a", Value: "b"}}}
		if err := b.PublishBatch(t.Context(), "orders", []pubsub.Message{{ID: "small", Payload: []byte("x")}, big}); err != nil {
			t.Fatal(err)
		}
		pause(t, time.Minute)
		q := dlq.OpenTopic(b, "dead")
		all := list(t, q, dlq.Filter{})
		if len(all) != 2 || all[0].AtSource || !all[1].AtSource || all[1].Bad != nil {
			t.Fatalf("%+v", all)
		}
		if r := all[1]; r.Message.ID != "big" || r.Message.Key != "k" || r.Message.Payload != nil || r.Message.Headers != nil || r.SourcePosition == "" || r.Reason != "permanent" {
			t.Errorf("%+v", r)
		}
		if st := c.State(); st.Phase != pubsub.Blocked {
			t.Errorf("the state is %v", st.Phase)
		}
		plan, err := q.Plan(t.Context(), dlq.Filter{}, dlq.Replay{})
		if err != nil || plan.Count != 1 || plan.Skipped != (dlq.Skipped{AtSource: 1}) {
			t.Errorf("%d messages, skipped %+v, %v", plan.Count, plan.Skipped, err)
		}
	})
}
