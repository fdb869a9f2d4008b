package redisstreams_test

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
	"github.com/omnibus-go/omnibus/redisstreams"
)

// intruders are those that the variant turns away, and what neither they nor we want to read anywhere.
func (s *server) intruders(t *testing.T) (all map[conformance.Intruder]func(context.Context, *pubsub.Options) (*pubsub.Broker, error), secrets []string) {
	t.Helper()
	const guess = "wr0ng/word"
	all = map[conformance.Intruder]func(context.Context, *pubsub.Options) (*pubsub.Broker, error){}
	add := func(who conformance.Intruder, change func(p *containers.Params)) {
		p := s.Params
		change(&p)
		address := (&server{Broker: s.Broker, params: &p}).address(nil)
		all[who] = func(ctx context.Context, opts *pubsub.Options) (*pubsub.Broker, error) {
			return redisstreams.Open(ctx, address, opts)
		}
	}
	p := s.Params
	if p.Password != "" {
		secrets = append(secrets, p.Password)
	}
	if p.CAFile != "" {
		stranger := otherAuthority(t)
		add(conformance.WrongCA, func(p *containers.Params) { p.CAFile = stranger })
	}
	if p.CertFile != "" {
		add(conformance.NoCertificate, func(p *containers.Params) { p.CertFile, p.KeyFile = "", "" })
	}
	if p.Password != "" {
		add(conformance.WrongPassword, func(p *containers.Params) { p.Password = guess })
		secrets = append(secrets, guess)
	}
	return all, secrets
}

// otherAuthority is the file of a certificate that has nothing to do with the server.
func otherAuthority(t *testing.T) (path string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return write(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

// write makes a file of the test's own.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
