package adaptertest_test

import (
	"net/url"
	"testing"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
)

func TestAddress(t *testing.T) {
	for want, c := range map[string]struct {
		url  string
		p    containers.Params
		more []url.Values
	}{
		"nats://h:1,h:2":              {"nats://h:1,h:2", containers.Params{CAFile: "not asked for"}, []url.Values{nil, {"ca": {""}}}},
		"nats://u:p%2Fw@h/v":          {"nats://h/v", containers.Params{User: "u", Password: "p/w"}, nil},
		"redis://:p@h?a=1&b=2":        {"redis://h?a=1", containers.Params{Password: "p"}, []url.Values{{"b": {"2"}}}},
		"kafka://h?a=3&b=4&c=1":       {"kafka://h?a=1", containers.Params{}, []url.Values{{"a": {"2"}, "b": {"4"}}, {"a": {"3"}, "c": {"1"}}}},
		"amqp://h/%2F?a=%2Fno%2Ffile": {"amqp://h/%2F", containers.Params{}, []url.Values{{"a": {"/no/file"}}}},
	} {
		if got := adaptertest.Address(c.url, c.p, c.more...); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
