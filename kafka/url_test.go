package kafka_test

import (
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	c, err := kafka.ParseURL("kafka://u:p%40ss@one:9092,two:9093?client_id=me@home&replicas=3&retention=1h&durability=replicated&tls=true&sasl=scram-sha-512")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(c.Servers, " ") != "one:9092 two:9093" || c.User != "u" || c.Password != "p@ss" || c.ClientID != "me@home" || c.Replicas != 3 ||
		c.Retention != time.Hour || c.Accept != pubsub.Replicated || !c.TLS || c.SASL != "scram-sha-512" {
		t.Errorf("got %+v", c)
	}
	for url, says := range map[string]string{
		"kafka://h?nope=1":                  `unknown parameter "nope"`,
		"kafka://h?replicas=x":              `"replicas"`,
		"kafka://h?replicas=1&replicas=2":   `parameter "replicas" is there more than once`,
		"kafka://h?durability=eternal":      "durability",
		"kafka://h?compression=secret":      "compression is",
		"kafka://h/path":                    "no path",
		"kafka://u:secret@h:port":           "cannot be parsed",
		"kafka://u:secret@h,u:secret@i":     "a user once",
		"mem://h":                           "scheme",
		"kafka://h?cert=a":                  "belong together",
		"kafka://h?password_file=/no/where": "password_file",
		"kafka://u:?secret@h":               "unknown parameter (a ?",
		"kafka://u:?secret=1@h":             "unknown parameter (a ?",
		"kafka://u:?a=1&a=secret@h":         "parameter (a ? in a password is %3F) is there more than once",
	} {
		_, err := kafka.ParseURL(url)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", url, err, says)
		}
	}
}
