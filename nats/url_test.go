package nats_test

import (
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestParseURL(t *testing.T) {
	c, err := nats.ParseURL("nats://u:p%40ss@one:4222,two:4333?stream=orders&replicas=3&retention=1h&durability=replicated&tls=true")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(c.Servers, " ") != "one:4222 two:4333" || c.User != "u" || c.Password != "p@ss" || c.Stream != "orders" || c.Replicas != 3 ||
		c.Retention != time.Hour || c.Accept != pubsub.Replicated || !c.TLS {
		t.Errorf("got %+v", c)
	}
	for url, says := range map[string]string{
		"nats://h?nope=1":                  `unknown parameter "nope"`,
		"nats://h?replicas=x":              `"replicas"`,
		"nats://h?replicas=9":              "replicas",
		"nats://h?stream=a.b":              "stream",
		"nats://h?stream=a&stream=b":       "more than once",
		"nats://h?durability=eternal":      "durability",
		"nats://h/path":                    "no path",
		"nats://u:secret@h?token=secret":   "exclude",
		"nats://u:secret@h:port":           "cannot be parsed",
		"nats://u:secret@h,u:secret@i":     "a user once",
		"mem://h":                          "scheme",
		"nats://h?cert=a":                  "belong together",
		"nats://h?password_file=/no/where": "password_file",
		"nats://u:?secret@h":               "unknown parameter (a ?",
		"nats://u:?secret=1@h":             "unknown parameter (a ?",
		"nats://u:?a=1&a=secret@h":         "parameter (a ? in a password is %3F) is there more than once",
	} {
		_, err := nats.ParseURL(url)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", url, err, says)
		}
	}
}
