package rabbitmq_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/internal/adaptertest"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

func mustOpen(t *testing.T, address string) {
	t.Helper()
	b, err := rabbitmq.Open(t.Context(), address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{{Topic: "orders", Group: "g"}}}); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), "orders", pubsub.Message{}); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// refused opens a URL that must not work, soon, and looks for the secret in what it is told.
func refused(t *testing.T, address string, code pubsub.Code, secret string) {
	t.Helper()
	begin := time.Now()
	adaptertest.Refused(t, rabbitmq.Open, address, code, secret)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestUserAndPassword(t *testing.T) {
	s := startServer(t, "userpass")
	mustOpen(t, s.address(nil))
	secret := url.Values{"password_file": {adaptertest.File(t, s.Params.Password+"\n")}}
	mustOpen(t, "amqp://"+s.Params.User+"@"+strings.TrimPrefix(s.URL(), "amqp://")+"?"+secret.Encode())
	refused(t, s.with(func(p *containers.Params) { p.Password = "wr0ng" }), pubsub.ErrUnauthenticated, "wr0ng")
	refused(t, s.URL(), pubsub.ErrUnauthenticated, "") // guest
	refused(t, s.address(url.Values{"ca": {"/no/such/file"}}), pubsub.ErrUnauthenticated, "")
}

func TestTLS(t *testing.T) {
	s, other := startServer(t, "mtls"), startServer(t, "tls")
	mustOpen(t, s.address(nil))
	mustOpen(t, other.address(nil))
	refused(t, s.with(func(p *containers.Params) { p.CAFile = other.Params.CAFile }), pubsub.ErrUnauthenticated, "")
	refused(t, s.with(func(p *containers.Params) { p.Mechanism = "" }), pubsub.ErrUnauthenticated, "") // a password, where only certificates count
	refused(t, other.with(func(p *containers.Params) { p.CAFile = "/no/such/file" }), pubsub.ErrUnauthenticated, "")
	refused(t, other.with(func(p *containers.Params) { p.CAFile = adaptertest.File(t, "no certificate") }), pubsub.ErrUnauthenticated, "")
	refused(t, "amqps://127.0.0.1:1", pubsub.ErrUnavailable, "")
}

func TestVhost(t *testing.T) {
	s := startServer(t, "vhost")
	mustOpen(t, s.address(nil))
	at := strings.LastIndex(s.URL(), "/")
	refused(t, s.URL()[:at]+"/nowhere", pubsub.ErrNotFound, "")
}

// Of several hosts one that is not there costs little, and one that is paused no more than its share of the time.
func TestSeveralHosts(t *testing.T) {
	s, silent := startServer(t, "default"), ownServer(t, "default")
	host := func(b *server) string { return strings.TrimPrefix(b.URL(), "amqp://") }
	mustOpen(t, "amqp://127.0.0.1:1,"+host(s))
	if err := silent.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	b, err := rabbitmq.Open(ctx, "amqp://"+host(silent)+","+host(s), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// What a user may not do is denied, soon, and does not hold up what he may.
func TestDenied(t *testing.T) {
	s := ownServer(t, "default")
	b := s.open(t, nil, nil)
	sub := pubsub.Subscription{Topic: "orders", Group: "g"}
	if err := b.Ensure(t.Context(), pubsub.Topology{Groups: []pubsub.Subscription{sub}}); err != nil {
		t.Fatal(err)
	}
	s.ctl(t, "add_user", "limited", "limited")
	s.ctl(t, "set_permissions", "limited", ".*", "amq.default", ".*") // may write to nothing else
	a, err := rabbitmq.Open(t.Context(), s.with(func(p *containers.Params) { p.User, p.Password = "limited", "limited" }), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	begin := time.Now()
	fates := make(chan error, 3)
	for range cap(fates) {
		a.PublishAsync(t.Context(), "orders", pubsub.Message{}, func(_ pubsub.Receipt, err error) { fates <- err })
	}
	for range cap(fates) {
		if err := <-fates; pubsub.CodeOf(err) != pubsub.ErrDenied {
			t.Errorf("a publish that is not allowed returned %v", err)
		}
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := a.DeliverTo(t.Context(), "orders", "g", pubsub.Message{}); err != nil {
		t.Errorf("what is allowed: %v", err)
	}
}
