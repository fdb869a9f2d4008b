package brokertest_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/internal/poll"
	"github.com/omnibus-go/omnibus/middleware/security"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What was signed is verified as it lies at the broker, in the topic and among dead letters, also with the key before the present one.
func (c command) testKeys(t *testing.T) {
	c.topic += "-signed"
	c.dir = t.TempDir()
	c.run(t, 0, "", "ensure", c.topic, "--group", "billing", "--group", "audit")
	c.run(t, 0, "", "keys", "new", "orders.keys", "orders", "--id", "one", "--also", "billing.keys")
	keys, err := security.OpenKeyring(filepath.Join(c.dir, "orders.keys"), security.KeyringOptions{Poll: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	b, err := brokers.Open(t.Context(), c.url, &pubsub.Options{Use: []pubsub.Middleware{security.Sign(security.SignOptions{Keys: keys, Producer: "orders"})}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	publish := func(m pubsub.Message) {
		t.Helper()
		m.Type, m.Key = "order", "a"
		if err := b.Publish(t.Context(), c.topic, m); err != nil {
			t.Fatal(err)
		}
	}
	publish(pubsub.Message{ID: "binary", Payload: []byte("\xff\x00"), ContentType: "application/x", Headers: pubsub.Headers{{Name: "region", Value: "eu"}}})
	publish(pubsub.Message{ID: "none"})
	c.run(t, 0, "", "keys", "rotate", "orders.keys", "orders", "--id", "two", "--also", "billing.keys", "--after", "100ms")
	poll.Within(t, time.Minute, "the second key", func() bool {
		return slices.ContainsFunc(keys.Keys(), func(k security.Key) bool { return k.ID == "two" && k.Status == security.Active })
	})
	publish(pubsub.Message{ID: "empty", Payload: []byte{}})

	inTopic := c.run(t, 0, "", "sub", c.topic, "--group", "audit", "--count", "3", "--json")
	c.fail(t, 3)
	dead := c.run(t, 0, "", "dlq", "export", c.topic, "billing")
	for where, stored := range map[string]string{"the topic": inTopic, "dead letters": dead} {
		out := c.run(t, 0, stored, "keys", "verify", "billing.keys", "--json")
		if strings.Count(out, `"verified":true,"producer":"orders"`) != 3 || strings.Count(out, `"key":"one"`) != 2 || strings.Count(out, `"key":"two"`) != 1 {
			t.Errorf("of %s it says %s", where, out)
		}
		c.run(t, 3, stored, "keys", "verify", "billing.keys", "--topic", "another")
	}
	c.run(t, 3, strings.Replace(inTopic, `"eu"`, `"us"`, 1), "keys", "verify", "billing.keys")
}
