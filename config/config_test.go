package config_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

var errStop = errors.New("this is far enough")

// caught is a mux that keeps what Open is called with.
func caught(scheme string, opts *pubsub.Options, address *string) pubsub.Mux {
	return pubsub.Mux{{Schemes: []string{scheme}, Open: func(_ context.Context, u string, o *pubsub.Options) (*pubsub.Broker, error) {
		if opts != nil {
			*opts = *o
		}
		if address != nil {
			*address = u
		}
		return nil, errStop
	}}}
}

// Each key of a file arrives where it belongs.
func TestWholeFile(t *testing.T) {
	subs := map[string]pubsub.Subscription{}
	declined := errors.New("declined")
	c, err := config.Load("testdata/whole.yaml", &config.Options{
		Layers:      map[string]pubsub.Middleware{"tenant": tenant()},
		Failures:    map[string]func(error) bool{"declined": func(err error) bool { return errors.Is(err, declined) }},
		DedupStores: map[string]middleware.DedupStore{"shared": middleware.NewDedupStore(10)},
		Env:         env(map[string]string{"KIND": "declined"}),
		Adjust:      func(name string, s *pubsub.Subscription) { subs[name] = *s },
	})
	if err != nil {
		t.Fatal(err)
	}
	var o pubsub.Options
	if _, err := c.Open(t.Context(), caught("mem", &o, nil)); !errors.Is(err, errStop) {
		t.Fatal(err)
	}
	if got := names(o.Use); got != "sign access replay encrypt compress correlate retry poison breaker dedup rate-limit concurrency log tenant" {
		t.Errorf("layers %s", got)
	}
	if o.Logger == nil || !o.Logger.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("the log's level is not debug")
	}
	o.Use, o.Logger = nil, nil
	want := pubsub.Options{Service: "checkout", Manage: pubsub.Verify, DrainTimeout: 20 * time.Second, MaxDowntime: time.Hour, Require: pubsub.Capabilities{
		Durability: pubsub.Memory, History: true, Redelivery: true, Order: pubsub.OrderInGroup, Exclusive: true, LeaseMax: pubsub.Forever, Deliveries: true,
		StoresAttempts: pubsub.StoresAll, FreeRelease: true, RetryIn: time.Hour, Tiers: true, RetryLate: time.Minute, Schedule: true, Priority: true,
		Patterns: true, Partitions: true, Dedup: time.Minute, MaxMessage: 64 << 10, Lag: pubsub.LagExact, Waiting: pubsub.WaitingListed,
	}}
	if !same(o, want) {
		t.Errorf("got  %+v\nwant %+v", o, want)
	}

	billing := subs["billing"]
	if len(billing.Rules) != 2 || !billing.Rules[0].When(fmt.Errorf("x: %w", context.DeadlineExceeded)) || !billing.Rules[0].When(declined) ||
		billing.Rules[0].When(errStop) || !billing.Rules[1].When(declined) || billing.Rules[1].When(context.DeadlineExceeded) {
		t.Errorf("rules %+v", billing.Rules)
	}
	for i := range billing.Rules {
		billing.Rules[i].When = nil
	}
	slow := (&pubsub.Delivery{})
	_, category := pubsub.Rule{Category: "slow", When: func(error) bool { return true }}.Classify(errStop)
	if to := billing.DeadLetter.Route(slow, category); to != "orders.slow" {
		t.Errorf("the category slow goes to %q", to)
	}
	if got := names(billing.Use); got != "timeout" {
		t.Errorf("layers %s", got)
	}
	billing.Use, billing.DeadLetter.Route = nil, nil
	wantBilling := pubsub.Subscription{
		Topic: "orders.*", Group: "bill", Start: pubsub.FromTime(time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)), Order: pubsub.OrderPerMember, Concurrency: 16,
		MaxInFlight: 100, MaxInFlightBytes: 1 << 20, MaxParked: 40, OnParkedFull: pubsub.ParkDeadLetter, AckWait: time.Minute, HandlerTimeout: pubsub.Forever,
		Retry: pubsub.Policy{MaxAttempts: 7},
		Rules: []pubsub.Rule{
			{Category: "slow", Retry: pubsub.Policy{Name: "listed", MaxAttempts: pubsub.Unlimited, Delays: []time.Duration{time.Second, time.Minute, time.Hour}}},
			{Category: "declined"},
		},
		DeadLetter: pubsub.DeadLetter{Topic: "orders.dead"},
	}
	if !same(billing, wantBilling) {
		t.Errorf("got  %+v\nwant %+v", billing, wantBilling)
	}
	if audit := subs["audit"]; !same(audit, pubsub.Subscription{Topic: "orders.eu", Group: "audit", DeadLetter: pubsub.DeadLetter{Drop: true}}) {
		t.Errorf("%+v", audit)
	}

	if ledger := subs["ledger"]; !same(ledger, pubsub.Subscription{Topic: "orders.eu", Group: "ledger", AfterDeadLetter: pubsub.BlockKey}) {
		t.Errorf("%+v", ledger)
	}

	var text bytes.Buffer
	for _, s := range c.Explain() {
		from := "default"
		if !s.Default {
			from = fmt.Sprintf("line %d", s.Origin.Line)
		}
		if s.Origin.Source != "" {
			from += ", " + s.Origin.Source
		}
		fmt.Fprintf(&text, "%s = %s (%s)\n", s.Path, s.Value, from)
	}
	golden(t, "testdata/whole.explained", text.Bytes())
}

// same compares what is left when functions and layers are taken out.
func same[T any](a, b T) bool { return fmt.Sprintf("%#v", a) == fmt.Sprintf("%#v", b) }

func names(layers []pubsub.Middleware) string {
	var all []string
	for _, m := range layers {
		all = append(all, m.Name)
	}
	return strings.Join(all, " ")
}

// whole.yaml has every key there is.
func TestWholeFileIsWhole(t *testing.T) {
	var keys []string
	var visit func(any)
	visit = func(x any) {
		switch x := x.(type) {
		case map[string]any:
			for k, v := range x {
				keys = append(keys, k)
				visit(v)
			}
		case []any:
			for _, v := range x {
				if name, ok := v.(string); ok {
					keys = append(keys, name) // a layer
				}
				visit(v)
			}
		}
	}
	visit(parseYAML(t, "testdata/whole.yaml"))
	of := comments(t, ".")
	checked := 0
	for _, typ := range []any{
		config.File{}, config.Log{}, config.Require{}, config.Topic{}, config.Publisher{}, config.Policy{}, config.Rule{}, config.Subscription{}, config.DeadLetters{},
		config.Layer{}, config.Access{}, config.Breaker{}, config.Compress{}, config.Dedup{}, config.Encrypt{}, config.Poison{}, config.RateLimit{}, config.Replay{}, config.Retry{},
		config.Sign{},
	} {
		for f := range fields(typ) {
			if checked++; !slices.Contains(keys, f) {
				t.Errorf("%T: %q is not there", typ, f)
			}
		}
	}
	if checked < 80 || len(of) < checked {
		t.Errorf("%d keys", checked)
	}
}

func fields(of any) map[string]reflect.StructField {
	all := map[string]reflect.StructField{}
	for f := range reflect.TypeOf(of).Fields() {
		if name := f.Tag.Get("yaml"); name != "-" {
			all[name] = f
		}
	}
	return all
}

// A password may have any character, wherever the URL has it, and what the broker is told is that password.
func TestReferencesInTheURL(t *testing.T) {
	const password = `p@ss:w/o?r#d&=%+ ${env:X} ü`
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	get := env(map[string]string{"PASSWORD": password, "HOSTS": "a:9092,b:9093", "ALL": "kafka://u:p@h:1?tls=true", "EMPTY": "", "VHOST": "a/b"})
	load := func(broker string) (address string, c *config.Config) {
		t.Helper()
		c, err := config.Parse(filepath.Join(dir, "omnibus.yaml"), []byte("broker: "+broker), &config.Options{Env: get})
		if err != nil {
			t.Fatal(err)
		}
		scheme, _, _ := strings.Cut(broker, "://")
		if strings.HasPrefix(broker, "$") {
			scheme = "kafka"
		}
		if _, err := c.Open(t.Context(), caught(scheme, nil, &address)); !errors.Is(err, errStop) {
			t.Fatal(err)
		}
		for _, s := range c.Explain() {
			if s.Path == "broker" && (strings.Contains(s.Value, "p@ss") || strings.Contains(s.Value, url.QueryEscape(password)) || strings.Contains(s.Value, ":p@")) {
				t.Errorf("Explain shows it: %s", s.Value)
			}
		}
		return address, c
	}
	for _, broker := range []string{
		"kafka://app:${env:PASSWORD}@${env:HOSTS}?client_id=${env:PASSWORD}",
		"kafka://app:${file:password}@${env:HOSTS}?client_id=${file:password}",
		"kafka://app:${env:EMPTY:-}${env:PASSWORD}@${env:HOSTS}?client_id=${env:NONE:-}${env:PASSWORD:-x}",
	} {
		address, c := load(broker)
		k, err := kafka.ParseURL(address)
		if err != nil {
			t.Fatalf("%s: %v", broker, err)
		}
		if k.User != "app" || k.Password != password || k.ClientID != password || !slices.Equal(k.Servers, []string{"a:9092", "b:9093"}) {
			t.Errorf("%s: %+v", broker, k)
		}
		for _, s := range c.Explain() {
			if s.Path == "broker" && s.Value != "kafka://***@${env:HOSTS}?client_id=***" {
				t.Error(s.Value)
			}
		}
	}
	address, _ := load("amqp://app:x@h/${env:VHOST}")
	if r, err := rabbitmq.ParseURL(address); err != nil || r.Vhost != "a/b" {
		t.Errorf("%+v, %v", r, err)
	}
	if address, _ := load("${env:ALL}"); address != "kafka://u:p@h:1?tls=true" {
		t.Error(address)
	}
	if address, _ := load("${env:NONE:-kafka://h:2}"); address != "kafka://h:2" {
		t.Error(address)
	}
	if address, _ := load("${env:ALL}&client_id=${env:PASSWORD}"); address != "kafka://u:p@h:1?tls=true&client_id="+strings.ReplaceAll(url.QueryEscape(password), "+", "%20") {
		t.Error(address)
	}
	if address, _ := load("kafka://h/$${env:ALL}"); address != "kafka://h/${env:ALL}" {
		t.Error(address)
	}
}

// What an editor writes around a secret is no part of it.
func TestSecretFilesOfEditors(t *testing.T) {
	for _, text := range []string{"p@ss", "p@ss\n", "p@ss\r\n", "\ufeffp@ss\r\n"} {
		path := write(t, "broker: kafka://app:${file:password}@h:9092\n")
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), "password"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if k, err := kafka.ParseURL(c.File().Broker); err != nil || k.Password != "p@ss" {
			t.Errorf("%q is put in as %q, %v", text, k.Password, err)
		}
	}
}

// What is put in is never parsed as YAML, and is of the type of its key.
func TestReferencesElsewhere(t *testing.T) {
	get := env(map[string]string{"N": "16", "D": "1m", "INJECT": "x\nmanage: off", "B": "true"})
	c, err := config.Parse("o.yaml", []byte(`
broker: mem://
service: ${env:INJECT}
drain_timeout: ${env:D}
subscriptions:
  billing: {topic: "orders${env:N}", concurrency: "${env:N}", dead_letters: {drop: "${env:B}"}, max_in_flight: "${env:M:-300}"}
`), &config.Options{Env: get})
	if err != nil {
		t.Fatal(err)
	}
	f := c.File()
	s := f.Subscriptions["billing"]
	if f.Service != "x\nmanage: off" || f.Manage != "" || f.DrainTimeout != time.Minute || s.Topic != "orders16" || s.Concurrency != 16 || !s.DeadLetters.Drop || s.MaxInFlight != 300 {
		t.Errorf("%+v", f)
	}
	for _, x := range c.Explain() {
		want := map[string]string{
			"service": "${env:INJECT}", "subscriptions.billing.topic": "orders${env:N}", "subscriptions.billing.concurrency": "16", "drain_timeout": "1m",
		}[x.Path]
		if want != "" && x.Value != want {
			t.Errorf("%s is shown as %q, want %q", x.Path, x.Value, want)
		}
	}
}

// Whatever a secret was put into by mistake, no error has it.
func TestSecretsAreInNoError(t *testing.T) {
	checked := 0
	for _, secret := range []string{"s3cr3t", "s3cr3t.__/", "*.s3cr3t", strings.Repeat("s3cr3t", 50), "-5s3cr3t", "s3cr3t\"q"} {
		for _, line := range []string{
			"broker: ${env:SECRET}", "broker: nats://${env:SECRET}:${env:SECRET}@127.0.0.1:1?stream=${env:SECRET}&tls=${env:SECRET}",
			"broker: kafka://h/${env:SECRET}", "broker: amqp://h:${env:SECRET}", "broker: redis://h/${env:SECRET}", "broker: ${env:SECRET}://h", "broker: mem://x?${env:SECRET}=1",
			"manage: ${env:SECRET}", "drain_timeout: ${env:SECRET}", "log: {level: '${env:SECRET}'}", "require: {history: '${env:SECRET}'}", "require: {max_message: '${env:SECRET}'}",
			"middleware: [{own: '${env:SECRET}'}]", "middleware: [{dedup: {store: '${env:SECRET}'}}]", "middleware: [{timeout: '${env:SECRET}'}]",
			"middleware: [{breaker: {ratio: '${env:SECRET}'}}]", "policies: {p: {factor: '${env:SECRET}'}}", "policies: {p: {delays: ['${env:SECRET}']}}",
			"topics: {a: {partitions: '${env:SECRET}'}}", "topics: {'${env:SECRET}': {}}",
			"subscriptions: {s: {topic: '${env:SECRET}'}}", "subscriptions: {s: {topic: a, group: '${env:SECRET}'}}", "subscriptions: {s: {topic: a, start: '${env:SECRET}'}}",
			"subscriptions: {s: {topic: a, retry: '${env:SECRET}'}}", "subscriptions: {s: {topic: a, rules: [{category: c, when: ['${env:SECRET}']}]}}",
			"subscriptions: {s: {topic: a, dead_letters: {topic: '${env:SECRET}'}}}",
			"subscriptions: {s: {topic: a, rules: [{category: c, when: [timeout]}], dead_letters: {routes: {c: '${env:SECRET}'}}}}",
			"topics: {a: {}}\nsubscriptions: {s: {topic: '${env:SECRET}'}}",
		} {
			text := "broker: mem://\n" + line
			if strings.HasPrefix(line, "broker") {
				text = line
			}
			c, err := config.Parse("o.yaml", []byte(text), &config.Options{Env: env(map[string]string{"SECRET": secret})})
			if err == nil {
				err = c.Check(brokers.All())
			}
			if err == nil {
				continue
			}
			checked++
			if strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	if checked < 100 {
		t.Errorf("%d errors", checked)
	}
}

// A file that holds a secret and cannot be read is not replaced by a default, and one without end is not read to it.
func TestReferencedFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "large"), bytes.Repeat([]byte("x"), 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"${file:folder:-x}":  "is a directory",
		"${file:large:-x}":   "more than 1048576 bytes",
		"${file:none}":       "no such file",
		"${file:}":           "neither to the environment nor to a file",
		"${env:A-B}":         "neither to the environment nor to a file",
		"${env:NONE:-a}${x}": "neither to the environment nor to a file",
	} {
		_, err := config.Parse(filepath.Join(dir, "o.yaml"), []byte("broker: mem://\nservice: '"+ref+"'"), &config.Options{Env: env(nil)})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "o.yaml:2: service: ") {
			t.Errorf("%s: %v, want %q", ref, err, want)
		}
	}
	if _, err := config.Load(filepath.Join(dir, "none.yaml"), nil); !errors.Is(err, pubsub.ErrInvalid) || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	if _, err := config.Load(filepath.Join(dir, "large"), nil); !errors.Is(err, pubsub.ErrInvalid) || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

// JSON is read by the same rules.
func TestJSON(t *testing.T) {
	c, err := config.Parse("o.json", []byte("{\n\t\"broker\": \"mem:\\/\\/x\",\n\t\"topics\": {\"orders\": {\"partitions\": 4}, \"refunds\": null},\n\t\"service\": \"a\\\\/\\ud83d\\ude00\\u00e4\",\n\t\"subscriptions\": {\"b\": {\"topic\": \"orders\", \"ack_wait\": \"1m\"}}\n}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if f := c.File(); f.Broker != "mem://x" || f.Service != `a\/😀ä` || f.Topics["orders"].Partitions != 4 || len(f.Topics) != 2 || f.Subscriptions["b"].AckWait != time.Minute {
		t.Errorf("%+v", f)
	}
}

// A program's logger keeps its look, and the file's level is on top of its own.
func TestLogLevelOverAProgramsLogger(t *testing.T) {
	var out bytes.Buffer
	own := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var o pubsub.Options
	c, err := config.Parse("o.yaml", []byte("broker: mem://\nlog: {level: warn}\n"), &config.Options{Logger: own})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context(), caught("mem", &o, nil)); !errors.Is(err, errStop) {
		t.Fatal(err)
	}
	l := o.Logger.With("a", 1).WithGroup("g")
	l.InfoContext(t.Context(), "quiet")
	l.WarnContext(t.Context(), "loud", "b", 2)
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "msg=loud a=1 g.b=2") {
		t.Error(got)
	}
	_, err = config.Parse("o.yaml", []byte("broker: mem://\nlog: {format: json}\n"), &config.Options{Logger: own})
	if err == nil || !strings.HasPrefix(err.Error(), "o.yaml:2: log.format: ") {
		t.Errorf("a format that has no effect: %v", err)
	}
}

func TestConfigPrintsNoSecret(t *testing.T) {
	c, err := config.Parse("omnibus.yaml", []byte("broker: nats://user:hush@127.0.0.1:4222\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%v %+v %s", c, c, c); got != "omnibus.yaml omnibus.yaml omnibus.yaml" {
		t.Errorf("a Config prints %q", got)
	}
}

// What is wrong with single keys is told at once, and what does not fit together once these are right: a name that a broken key should have would only
// mislead.
func TestProblemsAreToldInTwoSteps(t *testing.T) {
	const text = "broker: mem://\nservice: [x]\nmanage: maybe\nsubscriptions:\n  a: {topic: jobs, group: g, retry: patient}\n  b: {topic: jobs, group: g}\n"
	right := strings.NewReplacer("service: [x]\n", "\n", "manage: maybe\n", "\n").Replace(text)
	for _, c := range []struct {
		text string
		want []string
	}{
		{text, []string{"service", "manage"}},
		{right, []string{"subscriptions.a.retry", "subscriptions.b"}},
	} {
		_, err := config.Parse("omnibus.yaml", []byte(c.text), nil)
		problems, _ := errors.AsType[config.Errors](err)
		var got []string
		for _, p := range problems {
			got = append(got, p.Path)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q, want %q: %v", got, c.want, err)
		}
	}
}
