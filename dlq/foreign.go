package dlq

import (
	"slices"
	"strings"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// Format says whose headers a dead letter has.
type Format string

const (
	FormatRaw         Format = ""            // none that are known here
	FormatOmnibus     Format = "omnibus"     // ours
	FormatSpring      Format = "spring"      // Spring for Apache Kafka: kafka_dlt-*
	FormatMassTransit Format = "masstransit" // MT-Fault-*, MT-Reason
	FormatNServiceBus Format = "nservicebus" // NServiceBus.FailedQ, NServiceBus.ExceptionInfo.*
	FormatRabbitMQ    Format = "rabbitmq"    // the broker's own: x-death, x-first-death-*, x-last-death-*
	FormatWatermill   Format = "watermill"   // reason_poisoned and the like
)

// A format is how one library or broker tells of a failure.
type format struct {
	name Format
	sign func(name string) bool // a header that only such a dead letter has
	owns func(name string) bool // its headers: a replay takes them off. They are those of sign where it is nil
	read func(r *Record, p *parser)
}

// formatOf finds the format of a dead letter. Ours comes first: what a group of ours gave up may have been somebody else's dead letter before, and
// then those headers are part of the message.
func formatOf(h pubsub.Headers) format {
	for _, f := range formats {
		for i := range h {
			if f.sign(h[i].Name) {
				if f.owns == nil {
					f.owns = f.sign
				}
				return f
			}
		}
	}
	return format{}
}

var formats = []format{
	{name: FormatOmnibus, sign: prefix(headerDead), read: readOwn},
	{name: FormatSpring, sign: prefix("kafka_dlt-"), read: readSpring},
	{name: FormatMassTransit, sign: prefix("MT-Fault-"), owns: prefix("MT-Fault-", "MT-Reason", "MT-Host-"), read: readMassTransit},
	{
		name: FormatNServiceBus, sign: prefix("NServiceBus.FailedQ", "NServiceBus.ExceptionInfo."),
		owns: prefix("NServiceBus.FailedQ", "NServiceBus.ExceptionInfo.", "NServiceBus.TimeOfFailure", "NServiceBus.Retries", "NServiceBus.FLRetries"),
		read: readNServiceBus,
	},
	{name: FormatWatermill, sign: exactly("reason_poisoned"),
		owns: exactly("reason_poisoned", "topic_poisoned", "handler_poisoned", "subscriber_poisoned"), read: readWatermill},
	// last: a broker adds its own to what any of the others wrote
	{name: FormatRabbitMQ, sign: prefix("x-death", "x-first-death-", "x-last-death-"), read: readRabbitMQ},
}

func prefix(names ...string) func(string) bool {
	return func(name string) bool {
		for _, p := range names {
			if strings.HasPrefix(name, p) {
				return true
			}
		}
		return false
	}
}

func exactly(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

// readSpring reads KafkaHeaders.DLT_*. Numbers are big-endian bytes; where key or value could not be deserialized the exception's headers have
// another name.
func readSpring(r *Record, p *parser) {
	const dlt = "kafka_dlt-"
	r.Broker = "kafka"
	r.Topic, r.Group = p.text(dlt+"original-topic"), p.text(dlt+"original-consumer-group")
	if part, off := p.integer(dlt+"original-partition"), p.integer(dlt+"original-offset"); part != "" && off != "" {
		r.SourcePosition = part + "/" + off
	}
	r.ErrorType = p.first(dlt+"exception-cause-fqcn", dlt+"exception-fqcn", dlt+"key-exception-fqcn")
	r.Error = p.first(dlt+"exception-message", dlt+"key-exception-message")
	r.Stack = p.first(dlt+"exception-stacktrace", dlt+"key-exception-stacktrace")
}

func readMassTransit(r *Record, p *parser) {
	const fault = "MT-Fault-"
	r.Reason, r.ErrorType, r.Error, r.Stack = p.text("MT-Reason"), p.text(fault+"ExceptionType"), p.text(fault+"Message"), p.text(fault+"StackTrace")
	r.Group = queueOf(p.text(fault + "InputAddress"))
	r.LastFailed = p.time(fault+"Timestamp", time.RFC3339Nano, "2006-01-02T15:04:05.999999999")
	r.Attempts = p.number(fault + "RetryCount")
	if p.text(fault+"RetryCount") != "" {
		r.Attempts++ // the first one was no retry
	}
	r.Service, r.Host = p.text("MT-Host-ProcessName"), p.text("MT-Host-MachineName")
}

// queueOf is the last part of an address such as rabbitmq://host/vhost/queue?durable=true.
func queueOf(address string) string {
	address, _, _ = strings.Cut(address, "?")
	return address[strings.LastIndexByte(address, '/')+1:]
}

func readNServiceBus(r *Record, p *parser) {
	const nsb = "NServiceBus."
	r.Group, _, _ = strings.Cut(p.text(nsb+"FailedQ"), "@") // queue@machine, with some transports
	r.ErrorType = p.first(nsb+"ExceptionInfo.InnerExceptionType", nsb+"ExceptionInfo.ExceptionType")
	r.Error, r.Stack = p.text(nsb+"ExceptionInfo.Message"), p.text(nsb+"ExceptionInfo.StackTrace")
	r.LastFailed = p.time(nsb+"TimeOfFailure", "2006-01-02 15:04:05.000000 Z")
	r.Service, r.Host = p.text(nsb+"ProcessingEndpoint"), p.text(nsb+"ProcessingMachine")
}

// readRabbitMQ reads what the broker writes when a queue dead-letters. x-death itself is a table, which adapters keep in their own encoding;
// the first and the last death are texts beside it.
func readRabbitMQ(r *Record, p *parser) {
	r.Broker = "rabbitmq"
	r.Group = p.first("x-first-death-queue", "x-last-death-queue")
	r.Reason = p.first("x-last-death-reason", "x-first-death-reason")
}

func readWatermill(r *Record, p *parser) {
	r.Error, r.Topic = p.text("reason_poisoned"), p.text("topic_poisoned")
	r.Service = p.text("handler_poisoned")
}
