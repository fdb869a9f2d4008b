package redisstreams_test

import (
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/redisstreams"
)

func TestParseURL(t *testing.T) {
	c, err := redisstreams.ParseURL("rediss://u:p%40ss@one:6380/3?wait=2&waitaof=true&retention=1h&dedup=5m&durability=replicated&name=shop")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(c.Servers, " ") != "one:6380" || c.User != "u" || c.Password != "p@ss" || c.DB != 3 || !c.TLS || c.Wait != 2 || !c.WaitAOF ||
		c.Retention != time.Hour || c.Dedup != 5*time.Minute || c.Accept != pubsub.Replicated || c.Name != "shop" {
		t.Errorf("got %+v", c)
	}
	c, err = redisstreams.ParseURL("redis+sentinel://:p@one,two:1/main?tls=true")
	if err != nil || strings.Join(c.Servers, " ") != "one two:1" || c.Master != "main" || c.Password != "p" || !c.TLS {
		t.Errorf("got %+v, %v", c, err)
	}
	c, err = redisstreams.ParseURL("redis+cluster://one:1,two:2")
	if err != nil || !c.Cluster || len(c.Servers) != 2 {
		t.Errorf("got %+v, %v", c, err)
	}
	for url, says := range map[string]string{
		"redis://h?nope=1":                  `unknown parameter "nope"`,
		"redis://h?wait=x":                  `"wait"`,
		"redis://h?wait=-1":                 "negative",
		"redis://h?wait=1&wait=1":           "more than once",
		"redis://h?durability=eternal":      "durability",
		"redis://h/orders":                  "number of a database",
		"redis://h,i":                       "redis+cluster",
		"redis+cluster://h,i/1":             "no path",
		"redis+sentinel://h,i":              "name of the master",
		"redis+sentinel://h,i/a/b":          "name of the master",
		"redis://u:secret@h:port":           "cannot be parsed",
		"redis://u:secret@h,u:secret@i":     "a user once",
		"redis://u@h":                       "needs a password",
		"mem://h":                           "scheme",
		"redis://h?cert=a":                  "belong together",
		"redis://h?password_file=/no/where": "password_file",
		"redis://u:?secret@h":               "unknown parameter (a ?",
	} {
		_, err := redisstreams.ParseURL(url)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", url, err, says)
		}
	}
}
