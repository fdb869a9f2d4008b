// Package brokerurl reads what the URLs of all adapters have in common: several hosts, a user, parameters, files. No error repeats what may be
// secret.
package brokerurl

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
)

// A constant is an error that no program can change.
type constant string

func (c constant) Error() string { return string(c) }

const (
	// ErrNoParameter is what the function given to Parameters says of a parameter that it does not know.
	ErrNoParameter = constant("unknown parameter")

	// ErrNoCertificate is what TLS says of a file that holds something else.
	ErrNoCertificate = constant("the file of the CA has no certificate")
)

// An Address is a URL taken apart.
type Address struct {
	Scheme         string
	Hosts          []string // host:port, as they stand there; nil = none
	User, Password string
	Path           string // with its slash; "" = none

	query string
}

// Parse reads SCHEME://USER:PASSWORD@HOST,HOST/PATH?PARAMETERS, of which all but the scheme may be left out.
func Parse(raw string, schemes ...string) (a Address, err error) {
	first, more := firstHost(raw)
	u, err := url.Parse(first)
	switch {
	case err != nil || u.Scheme == "":
		return a, errors.New("the URL cannot be parsed; it has a user once, before the first host, and an @ in a password is %40")
	case !slices.Contains(schemes, u.Scheme):
		return a, errors.New("the scheme is not " + strings.Join(schemes, " or "))
	case u.Fragment != "" || u.Opaque != "":
		return a, fmt.Errorf("a URL of %s has hosts and parameters, no fragment", u.Scheme)
	}
	a = Address{Scheme: u.Scheme, Path: u.Path, User: u.User.Username(), query: u.RawQuery}
	a.Password, _ = u.User.Password()
	if u.Host != "" {
		a.Hosts = append([]string{u.Host}, more...)
	}
	return a, nil
}

// firstHost takes all hosts but the first out of the URL, since url.Parse knows one.
func firstHost(raw string) (with1 string, more []string) {
	scheme, rest, ok := strings.Cut(raw, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndex(rest[:end], "@") + 1
	if strings.Count(rest[:end], "@") > 1 {
		return "", nil // of two users, or with an "@" in a password that is to be written %40
	}
	hosts := strings.Split(rest[at:end], ",")
	if !ok || len(hosts) < 2 {
		return raw, nil
	}
	return scheme + "://" + rest[:at] + hosts[0] + rest[end:], hosts[1:]
}

// Parameters hands each parameter to set. One that is there twice, or that set calls ErrNoParameter, is an error that names it.
func (a *Address) Parameters(set func(key, value string) error) error {
	query, err := url.ParseQuery(a.query)
	if err != nil {
		return errors.New("the parameters cannot be parsed")
	}
	for key, values := range query {
		if len(values) > 1 {
			return fmt.Errorf("parameter%s is there more than once", a.shown(key))
		}
		if err := set(key, values[0]); errors.Is(err, ErrNoParameter) {
			return fmt.Errorf("unknown parameter%s", a.shown(key))
		} else if err != nil {
			return err
		}
	}
	return nil
}

// shown is a parameter's name for an error, unless it may be of a password: a "?" in that makes parameters of what follows, up to the "@".
func (a *Address) shown(key string) string {
	if strings.Contains(a.query, "@") {
		return " (a ? in a password is %3F)"
	}
	return fmt.Sprintf(" %q", key)
}

// NoPath is an error where there is a path.
func (a *Address) NoPath() error {
	if a.Path != "" && a.Path != "/" {
		return fmt.Errorf("a URL of %s has hosts and parameters, no path", a.Scheme)
	}
	return nil
}

// CheckHosts is an error where a host of a configuration is none.
func CheckHosts(hosts []string) error {
	for _, h := range hosts {
		if strings.ContainsAny(h, "@/?# ") {
			return errors.New("a server is host:port, without a user")
		}
	}
	return nil
}

// Named finds the value of that name among those from first to last.
func Named[E interface {
	~uint8
	String() string
}](key, name string, first, last E) (E, error) {
	var names []string
	for e := first; e <= last; e++ {
		if e.String() == name {
			return e, nil
		}
		names = append(names, e.String())
	}
	return 0, fmt.Errorf("parameter %s is one of %s", key, strings.Join(names, ", "))
}

// Secret reads a file that holds one.
func Secret(path string) (string, error) {
	b, err := os.ReadFile(path)
	return Trim(b), err
}

// Trim is what a file of a secret holds without what editors write around it: a byte order mark, and the end of the line.
func Trim(file []byte) string {
	return strings.TrimRight(strings.TrimPrefix(string(file), "\ufeff"), "\r\n")
}

// TLS makes the configuration of a client from files: of the authority ("" = the system's), and of the certificate that it shows ("" = none).
func TLS(ca, cert, key, serverName string) (*tls.Config, error) {
	t := &tls.Config{ServerName: serverName, MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, ErrNoCertificate
		}
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, err
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// Untrusted says whether err is about a file of credentials, which may be there again soon, or about a certificate that is not trusted.
func Untrusted(err error) bool {
	_, noFile := errors.AsType[*fs.PathError](err)
	_, badCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	return noFile || badCertificate || unknown || errors.Is(err, ErrNoCertificate)
}
