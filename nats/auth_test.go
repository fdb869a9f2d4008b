package nats_test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/pubsub"
)

// write makes a file of the test's own.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

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
	b, err := nats.Open(t.Context(), address, nil)
	if err == nil {
		_ = b.Close()
		t.Fatalf("opened, want %q", code.Error())
	}
	if pubsub.CodeOf(err) != code {
		t.Errorf("%v (%+v), want %q", err, pubsub.CodeOf(err), code.Error())
	}
	if secret != "" && strings.Contains(err.Error(), secret) {
		t.Errorf("the error tells the secret: %v", err)
	}
}

func with(p containers.Params, s *server, change func(p *containers.Params)) string {
	change(&p)
	return (&server{Broker: s.Broker, params: &p}).address(nil)
}

func TestUserAndPassword(t *testing.T) {
	s := startServer(t, "userpass")
	mustOpen(t, s.address(nil))
	file := url.Values{"password_file": {write(t, s.Params.Password+"\n")}}
	mustOpen(t, "nats://"+s.Params.User+"@"+strings.TrimPrefix(s.URL(), "nats://")+"?"+file.Encode())
	refused(t, with(s.Params, s, func(p *containers.Params) { p.Password = "wr0ng" }), pubsub.ErrUnauthenticated, "wr0ng")
	refused(t, with(s.Params, s, func(p *containers.Params) { p.User, p.Token = "", "wr0ng" }), pubsub.ErrUnauthenticated, "wr0ng")
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
	other := write(t, string(seed))
	s := startServer(t, "nkey")
	mustOpen(t, s.address(nil))
	refused(t, with(s.Params, s, func(p *containers.Params) { p.SeedFile = other }), pubsub.ErrUnauthenticated, string(seed))
	refused(t, with(s.Params, s, func(p *containers.Params) { p.SeedFile = write(t, "no seed") }), pubsub.ErrUnauthenticated, "no seed")
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
	refused(t, with(s.Params, s, func(p *containers.Params) { p.CredsFile = write(t, forged) }), pubsub.ErrUnauthenticated, "eyK")
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
