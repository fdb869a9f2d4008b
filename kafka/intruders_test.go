package kafka_test

import (
	"context"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/pubsub"
)

// intruders are those that the variant turns away, and what neither they nor we want to read anywhere.
func (s *server) intruders(t *testing.T) (all map[conformance.Intruder]func(context.Context, *pubsub.Options) (*pubsub.Broker, error), secrets []string) {
	t.Helper()
	const guess = "wr0ng-word"
	all = map[conformance.Intruder]func(context.Context, *pubsub.Options) (*pubsub.Broker, error){}
	add := func(who conformance.Intruder, change func(p *containers.Params)) {
		p := s.Params
		change(&p)
		address := (&server{Broker: s.Broker, params: &p, tokens: s.tokens}).address(t, nil)
		all[who] = func(ctx context.Context, opts *pubsub.Options) (*pubsub.Broker, error) {
			return kafka.Open(ctx, address, opts)
		}
	}
	p := s.Params
	for _, secret := range []string{p.Password, p.Token} {
		if secret != "" {
			secrets = append(secrets, secret)
		}
	}
	if p.CAFile != "" {
		stranger := otherAuthority(t)
		add(conformance.WrongCA, func(p *containers.Params) { p.CAFile = stranger })
	}
	if p.CertFile != "" {
		add(conformance.NoCertificate, func(p *containers.Params) { p.CertFile, p.KeyFile = "", "" })
	}
	switch {
	case p.Password != "":
		add(conformance.WrongPassword, func(p *containers.Params) { p.Password = guess })
	case p.Token != "":
		add(conformance.WrongPassword, func(p *containers.Params) { p.Token = guess })
	}
	if len(all) > 0 {
		secrets = append(secrets, guess)
	}
	return all, secrets
}

// otherAuthority is the file of a certificate that has nothing to do with the server.
func otherAuthority(t *testing.T) (path string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	path = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
