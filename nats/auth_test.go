package nats_test

import (
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

func mustOpen(t *testing.T, address string) {
	t.Helper()
	b, err := nats.Open(t.Context(), address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Ensure(t.Context(), pubsub.Topology{Topics: []pubsub.TopicSpec{{Name: "orders"}}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "orders", pubsub.Message{}); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// refused opens a URL that must not work, and looks for the secret in what it is told.
func refused(t *testing.T, address string, code pubsub.Code, secret string) {
	t.Helper()
	adaptertest.Refused(t, nats.Open, address, code, secret)
}

func with(p containers.Params, s *server, change func(p *containers.Params)) string {
	change(&p)
	return s.addressOf(p, nil)
}

func TestUserAndPassword(t *testing.T) {
	s := startServer(t, "userpass")
	mustOpen(t, s.address(nil))
	file := url.Values{"password_file": {adaptertest.File(t, s.Params.Password+"\n")}}
	mustOpen(t, "nats://"+s.Params.User+"@"+strings.TrimPrefix(s.URL(), "nats://")+"?"+file.Encode())
	refused(t, with(s.Params, s, func(p *containers.Params) { p.Password = "wr0ng" }), pubsub.ErrUnauthenticated, "wr0ng")
	refused(t, with(s.Params, s, func(p *containers.Params) { p.User, p.Password, p.Token = "", "", "wr0ng" }), pubsub.ErrUnauthenticated, "wr0ng")
	refused(t, s.URL(), pubsub.ErrUnauthenticated, "")
}

func TestToken(t *testing.T) {
	s := startServer(t, "token")
	mustOpen(t, s.address(nil))
	refused(t, with(s.Params, s, func(p *containers.Params) { p.Token = "wr0ng" }), pubsub.ErrUnauthenticated, "wr0ng")
}

func TestKeys(t *testing.T) {
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	other := adaptertest.File(t, string(seed))
	s := startServer(t, "nkey")
	mustOpen(t, s.address(nil))
	refused(t, with(s.Params, s, func(p *containers.Params) { p.SeedFile = other }), pubsub.ErrUnauthenticated, string(seed))
	refused(t, with(s.Params, s, func(p *containers.Params) { p.SeedFile = adaptertest.File(t, "no seed") }), pubsub.ErrUnauthenticated, "no seed")
	refused(t, with(s.Params, s, func(p *containers.Params) { p.SeedFile = "/no/such/file" }), pubsub.ErrUnauthenticated, "")
}

func TestCredentialsFile(t *testing.T) {
	s := startServer(t, "creds")
	mustOpen(t, s.address(nil))
	refused(t, with(s.Params, s, func(p *containers.Params) { p.CredsFile = "/no/such/file" }), pubsub.ErrUnauthenticated, "")
	text, err := os.ReadFile(s.Params.CredsFile)
	if err != nil {
		t.Fatal(err)
	}
	forged := strings.Replace(string(text), "eyJ", "eyK", 1)
	refused(t, with(s.Params, s, func(p *containers.Params) { p.CredsFile = adaptertest.File(t, forged) }), pubsub.ErrUnauthenticated, "eyK")
}

func TestTLS(t *testing.T) {
	s, other := startServer(t, "mtls"), startServer(t, "tls")
	mustOpen(t, s.address(nil))
	mustOpen(t, other.address(nil))
	refused(t, with(s.Params, s, func(p *containers.Params) { p.CAFile = other.Params.CAFile }), pubsub.ErrUnauthenticated, "")
	refused(t, with(s.Params, s, func(p *containers.Params) { p.CertFile, p.KeyFile = "", "" }), pubsub.ErrUnauthenticated, "")
	refused(t, with(s.Params, s, func(p *containers.Params) { *p = containers.Params{} }), pubsub.ErrUnauthenticated, "")
	refused(t, with(s.Params, s, func(p *containers.Params) { p.CAFile = "/no/such/file" }), pubsub.ErrUnauthenticated, "")
}

// What a server without TLS or an account without JetStream makes of it.
func TestNotOffered(t *testing.T) {
	s := startServer(t, "default")
	refused(t, s.address(url.Values{"tls": {"true"}}), pubsub.ErrInvalid, "")
	refused(t, s.address(url.Values{"domain": {"nowhere"}}), pubsub.ErrUnsupported, "")
	refused(t, s.address(url.Values{"nope": {"1"}}), pubsub.ErrInvalid, "")
	refused(t, s.address(url.Values{"durability": {"replicated"}}), pubsub.ErrUnsupported, "")
	refused(t, "nats://127.0.0.1:1", pubsub.ErrUnavailable, "")
}
