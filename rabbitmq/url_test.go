package rabbitmq_test

import (
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	c, err := rabbitmq.ParseURL("amqps://u:p%40ss@one:5671,two/team%2Fa?exchange=orders&queue_type=classic&replicas=3&heartbeat=5s&durability=disk&max_size=1000")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(c.Servers, " ") != "one:5671 two" || c.User != "u" || c.Password != "p@ss" || c.Vhost != "team/a" || !c.TLS || c.Exchange != "orders" ||
		!c.Classic || c.Replicas != 3 || c.Heartbeat != 5*time.Second || c.Accept != pubsub.Disk || c.MaxSize != 1000 {
		t.Errorf("got %+v", c)
	}
	for url, vhost := range map[string]string{"amqp://h": "", "amqp://h/": "", "amqp://h/%2F": "/", "amqp://h/a": "a"} {
		if c, err := rabbitmq.ParseURL(url); err != nil || c.Vhost != vhost {
			t.Errorf("%s has the vhost %q (%v), want %q", url, c.Vhost, err, vhost)
		}
	}
	for url, says := range map[string]string{
		"amqp://h?nope=1":                                  `unknown parameter "nope"`,
		"amqp://h?replicas=x":                              `"replicas"`,
		"amqp://h?queue_type=stream":                       `"queue_type"`,
		"amqp://h?heartbeat=1ms":                           "heartbeat",
		"amqp://h?exchange=a&exchange=b":                   "more than once",
		"amqp://h?durability=eternal":                      "durability",
		"amqp://h?queues=all":                              "{group}",
		"amqp://h?queues={group}&replicas=3":               "excludes",
		"amqp://h?auth=external":                           "cert and key",
		"amqp://u:secret@h?auth=external&cert=a&key=b":     "exclude",
		"amqp://u:secret@h:port":                           "cannot be parsed",
		"amqp://u:secret@h,u:secret@i":                     "a user once",
		"mem://h":                                          "scheme",
		"amqp://h?cert=a":                                  "belong together",
		"amqp://h?password_file=/no/where":                 "password_file",
		"amqp://u:?secret@h":                               "unknown parameter (a ?",
		"amqp://h?exchange=" + strings.Repeat("secret", 9): "exchange has",
	} {
		_, err := rabbitmq.ParseURL(url)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", url, err, says)
		}
	}
}
