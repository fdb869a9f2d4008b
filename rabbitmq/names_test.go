package rabbitmq_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// matches is the topic exchange's rule: "*" is a word, "#" any number of them, none included.
func matches(binding, key []string) bool {
	switch {
	case len(binding) == 0:
		return len(key) == 0
	case binding[0] == "#":
		return matches(binding[1:], key) || len(key) > 0 && matches(binding, key[1:])
	}
	return len(key) > 0 && (binding[0] == "*" || binding[0] == key[0]) && matches(binding[1:], key[1:])
}

// A pattern's bindings cover just the topics that it matches, in all their partitions.
func TestBindings(t *testing.T) {
	t.Parallel()
	topics := []string{"a", "b", "a.b", "a.c", "a.b.c", "b.b", "a.b.c.d", "x.a"}
	for _, pattern := range []string{"a", "a.b", "*", ">", "a.>", "a.*", "*.b", "*.*", "*.>", "a.*.c", "a.b.>"} {
		for _, topic := range topics {
			for _, lane := range []int32{0, 3} {
				key := rabbitmq.Key(topic, lane)
				bound := rabbitmq.Bound(pattern, topic, lane, func(binding, key string) bool {
					return matches(strings.Split(binding, "."), strings.Split(key, "."))
				})
				if want := pubsub.MatchPattern(pattern, topic); bound != want {
					t.Errorf("pattern %s, key %s: bound %v, want %v", pattern, key, bound, want)
				}
				if got := rabbitmq.TopicOf(key); got != topic {
					t.Errorf("the topic of %s is %s", key, got)
				}
			}
		}
	}
}

func TestQueueNames(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, exchange := range []string{"omnibus", "other"} {
		for _, topic := range []string{"a", "a.b", "a.>", "a_1"} {
			for _, group := range []string{"g", "g_1", "1"} {
				for kind := range pubsub.PlaceState + 1 {
					for _, lane := range []int32{0, 1, 11} {
						if kind != pubsub.PlaceMain && lane > 0 || kind == pubsub.PlaceRetry {
							continue
						}
						p := pubsub.Place{Topic: topic, Group: group, Kind: kind}
						name, what := rabbitmq.QueueName(exchange, "", p, lane), fmt.Sprint(exchange, p, lane)
						if other, taken := seen[name]; taken {
							t.Errorf("%s is %s and %s", name, what, other)
						}
						seen[name] = what
					}
				}
			}
		}
	}
	if got := rabbitmq.QueueName("amq.direct", "{topic}-{group}", pubsub.Place{Topic: "a", Group: "g"}, 0); got != "a-g" {
		t.Errorf("a queue that is there is %q", got)
	}
	longest := rabbitmq.LongestName(strings.Repeat("e", 40), pubsub.Place{Topic: strings.Repeat("t", 90), Group: strings.Repeat("g", 90)})
	if len(longest) > 255 {
		t.Errorf("a name of %d bytes", len(longest))
	}
}

// A message waits on the steps that make up its delay, never for less.
func TestDelay(t *testing.T) {
	t.Parallel()
	const step = 100 * time.Millisecond
	for _, d := range []time.Duration{1, step - 1, step, step + 1, time.Second, 7 * time.Second, 10 * time.Minute, 29 * time.Hour} {
		m := amqp.Publishing{Headers: amqp.Table{}}
		exchange := rabbitmq.Delay(&m, d)
		sum, top := time.Duration(0), -1
		for i := range 20 {
			if m.Headers[fmt.Sprint("omnibus.w", i)] == true {
				sum += step << i
				top = i
			}
		}
		if sum < d || sum >= d+step || exchange != fmt.Sprint("omnibus.wait.", top) || len(m.Headers) == 0 || m.Headers["omnibus.due"] != nil {
			t.Errorf("%v waits %v from %s: %v", d, sum, exchange, m.Headers)
		}
	}
	m := amqp.Publishing{Headers: amqp.Table{}}
	begin := time.Now()
	exchange := rabbitmq.Delay(&m, 100*time.Hour)
	if due, _ := m.Headers["omnibus.due"].(int64); exchange != "omnibus.wait.19" || time.UnixMilli(due).Sub(begin).Round(time.Second) != 100*time.Hour {
		t.Errorf("what waits longer than the ladder is goes to %s with %v", exchange, m.Headers)
	}
}
