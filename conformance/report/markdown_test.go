package report_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/conformance/report"
	"github.com/omnibus-go/omnibus/internal/bench"
)

// Of each capability the table says who does it: the broker, omnibus, or nobody.
func TestCapabilities(t *testing.T) {
	s := report.Of(map[string][]byte{
		"conformance-kafka-default.json": []byte(`{"schema": "omnibus.conformance/1", "broker": "kafka", "variant": "default", "server_version": "4.3", "capabilities": {
			"Durability": "process", "Redelivery": true, "Order": "group", "Tiers": true, "RetryIn": "0s", "Waiting": "listed", "Patterns": true, "LeaseMax": "forever", "Dedup": "0s", "Lag": "exact", "MaxMessage": 1028108}}`),
		"conformance-nats-core.json": []byte(`{"schema": "omnibus.conformance/1", "broker": "nats", "variant": "core", "server_version": "2.15.2", "capabilities": {
			"Durability": "none", "Order": "member", "RetryIn": "0s", "LeaseMax": "0s", "Deliveries": true, "Patterns": true, "Lag": "unknown"}}`),
		"conformance-nats-cluster.json": []byte(`{"schema": "omnibus.conformance/1", "broker": "nats", "variant": "cluster", "capabilities": {"Durability": "replicated"}}`),
		"conformance-redis-default.json": []byte(`{"schema": "omnibus.conformance/1", "broker": "redis", "variant": "default", "server_version": "8.0.2", "capabilities": {
			"Durability": "disk", "Redelivery": true, "Order": "member", "Exclusive": true, "Deliveries": true, "RetryIn": "forever", "Waiting": "managed", "LeaseMax": "30m0s", "Dedup": "2m0s"}}`),
		"conformance-mine-default.json":    []byte(`{"schema": "omnibus.conformance/1", "broker": "theirs", "variant": "default", "capabilities": {"Redelivery": true}}`),
		"conformance-unknown-default.json": []byte(`{"schema": "omnibus.conformance/1", "broker": "unknown", "variant": "default", "capabilities": {}}`),
	})
	var out bytes.Buffer
	s.Capabilities(&out)
	for _, row := range []string{
		"|  | kafka 4.3 | nats 2.15.2 core | redis 8.0.2 | theirs |",
		"| a nil from Publish survives | a crash of the broker | – | a loss of power | – |",
		"| what was not settled comes back after a crash | broker | – | omnibus | yes |",
		"| order per key in a group of many members | broker | – | omnibus | – |",
		"| retries that wait at the broker | omnibus | – | omnibus | – |",
		"| what can be done with those: listed, or retried now and given up, too | listed | – | all | – |",
		"| messages that kill their process are found | – | – | omnibus | – |",
		"| patterns of topics | omnibus | broker | – | – |",
		"| Message.Priority | – | – | – | – |",
		"| Message.ID sent twice is stored once, within | – | – | omnibus, 2 min | – |",
		"| longest run of a handler | no bound | – | 30 min | – |",
		"| lag | exact | – | – | – |",
		"| largest message, with default settings | 1 MiB | – | – | – |",
	} {
		if !strings.Contains(out.String(), row+"\n") {
			t.Errorf("the table lacks %q:\n%s", row, &out)
		}
	}
	out.Reset()
	if report.Of(nil).Capabilities(&out); out.Len() > 0 {
		t.Errorf("without reports there is %q", &out)
	}
}

// A README has a few comparisons of each broker: ours beside the best of each peer.
func TestComparisons(t *testing.T) {
	row := func(op, shape string, callers, size int, impl, rate, median string) string {
		return `{"op": "` + op + `", "shape": "` + shape + `", "callers": ` + strconv.Itoa(callers) + `, "size": ` + strconv.Itoa(size) + `, "impl": "` + impl +
			`", "msgs_per_s": ` + rate + `, "p99_us": 1234, "ratio_to_raw": ` + median + `}`
	}
	spread := func(median string) string { return `{"median": ` + median + `, "min": 0.5, "max": 1.25}` }
	s := report.Of(map[string][]byte{
		"bench-kafka-default.json": []byte(`{"schema": "omnibus.bench/1", "broker": "kafka", "rows": [` + strings.Join([]string{
			row("publish", "async", 1, 256, "raw", "400000", spread("1")),
			row("publish", "async", 1, 256, "omnibus", "394123.4", spread("0.985")),
			row("publish", "async", 1, 256, "franz-go", "500000", spread("1.372")),
			row("publish", "async", 1, 256, "watermill", "5000", spread("0.0123")),
			row("publish", "async", 1, 1024, "omnibus", "77", spread("0.77")), // another size
			row("publish", "blocking", 16, 256, "omnibus", "88", spread("0.88")),
			row("consume", "workers=1", 1, 256, "omnibus", "900", spread("0.9")),
			row("consume", "workers=16/keys=1000", 16, 256, "omnibus", "99", "null"),
			row("consume", "workers=64/handler=1ms/defaults", 64, 256, "omnibus", "66", spread("0.66")),
		}, ",") + `]}`),
		"bench-nats-default.json": []byte(`{"schema": "omnibus.bench/1", "broker": "nats", "rows": [` + strings.Join([]string{
			row("consume", "workers=1", 1, 256, "watermill", "40", spread("0.04")),
			row("consume", "workers=1", 1, 256, "watermill-async-ack", "600", spread("0.59")),
			row("consume", "workers=1", 1, 256, "omnibus", "950", spread("0.95")),
			row("latency", "rate=1000", 16, 256, "watermill-async-ack", "1000", spread("12.6")),
			row("latency", "rate=1000", 16, 256, "watermill", "1000", spread("22")),
			row("latency", "rate=1000", 16, 256, "omnibus", "1000", spread("1.05")),
		}, ",") + `]}`),
		"bench-redis-alone.json": []byte(`{"schema": "omnibus.bench/1", "broker": "redis", "rows": [` + row("publish", "async", 1, 256, "omnibus", "55", "null") + `]}`),
	})
	var out bytes.Buffer
	s.Markdown(&out)
	const want = `
| benchmark | omnibus | of raw (min to max) | franz-go, of raw | Watermill, of raw |
| --- | --- | --- | --- | --- |
| kafka: publish, handed over | 394,123/s | 0.98 (0.50 to 1.25) | 1.4 | 0.012 |
| kafka: consume | 900/s | 0.90 (0.50 to 1.25) | – | – |
| nats: consume | 950/s | 0.95 (0.50 to 1.25) | – | 0.59 |
| nats: p99 of the delay at 1,000 a second | 1.23 ms | 1.05 (0.50 to 1.25) | – | 13 |
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", &out, want)
	}
}

// What the README shows is what `make bench` measures.
func TestComparisonsAreMeasured(t *testing.T) {
	type row struct {
		Op      string             `json:"op"`
		Shape   string             `json:"shape"`
		Callers int                `json:"callers"`
		Size    int                `json:"size"`
		Impl    string             `json:"impl"`
		Ratio   map[string]float64 `json:"ratio_to_raw"`
	}
	var rows []row
	for _, s := range bench.Shapes() {
		_, text, _ := strings.Cut(s.Name(), "/callers=")
		callers, err := strconv.Atoi(regexp.MustCompile(`^\d+`).FindString(text))
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row{string(s.Op), s.Text(), callers, s.Size, "omnibus", map[string]float64{"median": 1}})
	}
	text, err := json.Marshal(map[string]any{"schema": "omnibus.bench/1", "broker": "kafka", "rows": rows})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	report.Of(map[string][]byte{"bench-kafka-default.json": text}).Markdown(&out)
	for _, name := range []string{"publish, handed over", "publish, 64 callers wait", "consume", "consume, 16 workers, keys in order", "p99 of the delay at 1,000 a second"} {
		if !strings.Contains(out.String(), "| kafka: "+name+" |") {
			t.Errorf("nothing that is measured is called %q:\n%s", name, &out)
		}
	}
}
