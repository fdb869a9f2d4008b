package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An ability is a row of the table of capabilities: what a service may ask of its broker.
type ability struct {
	name string
	has  func(declared) string // in a few words; "" = nobody does it; yes = who does it is all that there is to say
	ours []string              // the brokers on which omnibus does it, since they cannot
}

// yes says that what is asked for is done.
const yes = "yes"

// nobody does it: who asks for it is told so.
const nobody = "–"

// abilities are in the order in which a reader wants to hear of them.
func abilities() []ability {
	return []ability{
		{"a nil from Publish survives", declared.survives, nil},
		{"what was not settled comes back after a crash", flag("Redelivery"), []string{"redis"}},
		{"order per key in a group of many members", func(d declared) string {
			if d["Order"] == "group" {
				return yes
			}
			return flag("Exclusive")(d)
		}, []string{"redis"}},
		{"partitions", flag("Partitions"), []string{"rabbitmq", "redis", "nats"}},
		{"retries that wait at the broker", func(d declared) string {
			if d.flag("Tiers") || d.lasts("RetryIn") != "" {
				return yes
			}
			return ""
		}, []string{"kafka", "rabbitmq", "redis", "nats"}},
		{"what can be done with those: listed, or retried now and given up, too", func(d declared) string {
			switch d.text("Waiting") {
			case "listed":
				return "listed"
			case "managed":
				return "all"
			}
			return ""
		}, nil},
		{"dead letters of each group, with state and replay", flag("Redelivery"), []string{"kafka", "rabbitmq", "redis", "nats", "memory"}},
		{"messages that kill their process are found", func(d declared) string {
			if d.flag("Redelivery") {
				return flag("Deliveries")(d)
			}
			return ""
		}, []string{"kafka", "rabbitmq", "redis", "nats", "memory"}},
		{"history: earliest, a time, a position, Seek", flag("History"), nil},
		{"patterns of topics", flag("Patterns"), []string{"kafka"}},
		{"Message.Delay", flag("Schedule"), []string{"rabbitmq", "redis"}},
		{"Message.Priority", flag("Priority"), nil},
		{"Message.ID sent twice is stored once, within", func(d declared) string { return d.lasts("Dedup") }, []string{"redis"}},
		{"longest run of a handler", func(d declared) string { return d.lasts("LeaseMax") }, nil},
		{"lag", func(d declared) string {
			if text := d.text("Lag"); text != "unknown" {
				return text
			}
			return ""
		}, nil},
		{"largest message, with default settings", declared.largest, nil},
	}
}

// Capabilities writes a table for a README: what each broker has declared to the suite, and whether the broker does it or omnibus. It has the
// runs on one node with default settings, and those of NATS without JetStream; a broker that is none of this module's says only that it does it.
func (s *Set) Capabilities(w io.Writer) {
	head := []string{""}
	var of []Conformance
	for _, c := range s.Conformance {
		if len(c.Capabilities) > 0 && (c.Variant == "default" || c.Variant == "core") {
			head, of = append(head, c.Label()), append(of, c)
		}
	}
	all := abilities()
	if len(of) == 0 {
		all = nil
	}
	table(w, head, len(all), func(i int) []string {
		cells := []string{all[i].name}
		for _, c := range of {
			cells = append(cells, all[i].cell(c))
		}
		return cells
	})
}

func (a ability) cell(c Conformance) string {
	has := a.has(c.Capabilities)
	switch {
	case has == "":
		return nobody
	case has != yes && a.ours == nil:
		return has
	case !slices.Contains([]string{"kafka", "memory", "nats", "rabbitmq", "redis"}, c.Broker):
		return has
	}
	who := "broker"
	if slices.Contains(a.ours, c.Broker) {
		who = "omnibus"
	}
	if has != yes {
		who += ", " + has
	}
	return who
}

// declared is Report.Capabilities.
type declared map[string]any

func (d declared) flag(name string) bool { x, _ := d[name].(bool); return x }

func (d declared) text(name string) string { x, _ := d[name].(string); return x }

func flag(name string) func(declared) string {
	return func(d declared) string {
		if d.flag(name) {
			return yes
		}
		return ""
	}
}

// survives is Durability in words.
func (d declared) survives() string {
	switch text := d.text("Durability"); text {
	case "none":
		return ""
	case "memory":
		return "nothing"
	case "process":
		return "a crash of the broker"
	case "disk":
		return "a loss of power"
	case "replicated":
		return "the loss of a machine"
	default:
		return text
	}
}

// lasts is a duration in words, "" for none.
func (d declared) lasts(name string) string {
	text := d.text(name)
	if text == "forever" {
		return "no bound"
	}
	t, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return text
	case t == 0:
		return ""
	case t%time.Minute == 0:
		return strconv.Itoa(int(t/time.Minute)) + " min"
	}
	return t.String()
}

// largest is MaxMessage, "" where no limit is known.
func (d declared) largest() string {
	x, _ := d["MaxMessage"].(float64)
	if x == 0 {
		return ""
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", x/(1<<20)), ".0") + " MiB"
}
