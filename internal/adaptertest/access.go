package adaptertest

import (
	"context"
	"encoding/pem"
	"maps"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
	"github.com/omnibus-go/omnibus/conformance/containers"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Address is a URL with the user and the password of p, and with parameters: of several of one name the last counts. Those that are empty are left out.
func Address(rawURL string, p containers.Params, parameters ...url.Values) string {
	base, query, _ := strings.Cut(rawURL, "?")
	scheme, rest, _ := strings.Cut(base, "://")
	if p.User != "" || p.Password != "" {
		rest = url.UserPassword(p.User, p.Password).String() + "@" + rest
	}
	all, _ := url.ParseQuery(query) // it is ours, or opening it says what is wrong
	for _, more := range parameters {
		maps.Copy(all, more)
	}
	maps.DeleteFunc(all, func(_ string, values []string) bool { return len(values) == 1 && values[0] == "" })
	if len(all) > 0 {
		rest += "?" + all.Encode()
	}
	return scheme + "://" + rest
}

// Guess is a password, or a token, that is nobody's.
const Guess = "wr0ng/word"

// Opens opens the broker as a service does, as one who has p.
type Opens func(p containers.Params) func(ctx context.Context, opts *pubsub.Options) (*pubsub.Broker, error)

// Intruders are those that a broker turns away that asks for p, for the suite, and what neither they nor we want to read anywhere.
func Intruders(t *testing.T, p containers.Params, open Opens) (all map[conformance.Intruder]func(context.Context, *pubsub.Options) (*pubsub.Broker, error), secrets []string) {
	t.Helper()
	all = map[conformance.Intruder]func(context.Context, *pubsub.Options) (*pubsub.Broker, error){}
	add := func(who conformance.Intruder, change func(p *containers.Params)) {
		other := p
		change(&other)
		all[who] = open(other)
	}
	if p.CAFile != "" {
		stranger := OtherAuthority(t)
		add(conformance.WrongCA, func(p *containers.Params) { p.CAFile = stranger })
	}
	if p.CertFile != "" {
		add(conformance.NoCertificate, func(p *containers.Params) { p.CertFile, p.KeyFile = "", "" })
	}
	switch {
	case p.Password != "":
		add(conformance.WrongPassword, func(p *containers.Params) { p.Password = Guess })
	case p.Token != "":
		add(conformance.WrongPassword, func(p *containers.Params) { p.Token = Guess })
	}
	for _, secret := range []string{p.Password, p.Token} {
		if secret != "" {
			secrets = append(secrets, secret)
		}
	}
	if len(all) > 0 {
		secrets = append(secrets, Guess)
	}
	return all, secrets
}

// OtherAuthority is the file of a certificate that has nothing to do with any broker.
func OtherAuthority(t *testing.T) (path string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return File(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

// File makes a file of the test's own.
func File(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Refused opens a URL that must not work, and looks for the secret in what it is told.
func Refused(t *testing.T, open func(ctx context.Context, url string, opts *pubsub.Options) (*pubsub.Broker, error), address string, code pubsub.Code, secret string) {
	t.Helper()
	b, err := open(t.Context(), address, nil)
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
