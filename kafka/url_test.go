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
		"kafka://h?session_timeout=1ms":     "session_timeout is",
		"kafka://h?session_timeout=600h":    "session_timeout is", // of milliseconds the protocol has 31 bits
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

// TestServersStayAsTheyAre: what is opened with a Config does not change it.
func TestServersStayAsTheyAre(t *testing.T) {
	f := newFake(t)
	host, _, _ := strings.Cut(f.address, ":")
	c := kafka.Config{Servers: []string{f.address, host, "[::1]"}}
	d, err := c.Driver(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close(t.Context()) }()
	if got := strings.Join(c.Servers, " "); got != f.address+" "+host+" [::1]" {
		t.Errorf("the servers became %s", got)
	}
	var addresses []string
	d.As(&addresses)
	if got := strings.Join(addresses, " "); got != f.address+" "+host+":9092 [::1]:9092" {
		t.Errorf("it knows the servers %s", got)
	}
}
