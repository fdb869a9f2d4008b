package rabbitmq_test

import (
	"context"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/rabbitmq"
)

// with is the address of somebody who is not quite who gets in.
func (s *server) with(change func(p *containers.Params)) string {
	p := s.Params
	change(&p)
	return (&server{Broker: s.Broker, params: &p}).address(nil)
}

// intruders are those that the variant turns away, and what neither they nor we want to read anywhere.
func (s *server) intruders(t *testing.T) (all map[conformance.Intruder]func(context.Context, *pubsub.Options) (*pubsub.Broker, error), secrets []string) {
	t.Helper()
	const guess = "wr0ng/word"
	all = map[conformance.Intruder]func(context.Context, *pubsub.Options) (*pubsub.Broker, error){}
	add := func(who conformance.Intruder, change func(p *containers.Params)) {
		address := s.with(change)
		all[who] = func(ctx context.Context, opts *pubsub.Options) (*pubsub.Broker, error) {
			return rabbitmq.Open(ctx, address, opts)
		}
	}
	p := s.Params
	if p.CAFile != "" {
		stranger := otherAuthority(t)
		add(conformance.WrongCA, func(p *containers.Params) { p.CAFile = stranger })
	}
	if p.CertFile != "" {
		add(conformance.NoCertificate, func(p *containers.Params) { p.CertFile, p.KeyFile, p.Mechanism = "", "", "" })
		return all, nil
	}
	add(conformance.WrongPassword, func(p *containers.Params) {
		if p.User == "" {
			p.User = "guest"
		}
		p.Password = guess
	})
	secrets = []string{guess}
	if p.Password != "" {
		secrets = append(secrets, p.Password)
	}
	return all, secrets
}

// otherAuthority is the file of a certificate that has nothing to do with the server.
func otherAuthority(t *testing.T) (path string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return file(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

// file makes a file of the test's own.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
