package report_test

import (
	"os"

	"github.com/omnibus-go/omnibus/conformance/report"
)

// What a broker's suite has said, as tables for a README. Make does the same of a folder, as one page.
func Example() {
	s := report.Of(map[string][]byte{"conformance-nats-default.json": []byte(`{
		"schema": "omnibus.conformance/1", "broker": "nats", "variant": "default", "server_version": "2.15.2",
		"seconds": 2, "properties": [{"name": "Order/PerKey", "status": "pass", "seconds": 2, "confirmed": 300, "received": 300}]}`)})
	s.Markdown(os.Stdout)
	// Output:
	// | suite | properties | confirmed | lost | duplicates, of allowed | out of order | seconds |
	// | --- | --- | --- | --- | --- | --- | --- |
	// | nats 2.15.2 | 1 pass | 300 | 0 | 0 of 0 | 0 | 2 |
}
