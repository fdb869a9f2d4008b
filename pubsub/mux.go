package pubsub

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// An Opener opens URLs of certain schemes. Every adapter has one.
type Opener struct {
	Schemes []string // in lower case, without "://"

	// Open connects, as Mux.Open says.
	Open func(ctx context.Context, url string, opts *Options) (*Broker, error)

	Check func(url string) error // what Open would say of the URL itself, without connecting; nil = nothing
}

// A Mux chooses the opener by the URL's scheme. There is no global one.
type Mux []Opener

// Open opens rawURL. ctx bounds the opening only; 10 s where it has no deadline. A URL that cannot be read, or whose scheme
// no opener has, is an ErrInvalid. Errors never show the URL's user, password or parameters.
func (m Mux) Open(ctx context.Context, rawURL string, opts *Options) (*Broker, error) {
	o, err := m.opener(rawURL)
	if err != nil {
		return nil, err
	}
	return o.Open(ctx, rawURL, opts)
}

// Check says what Open would say of rawURL itself, without connecting: nil, or an ErrInvalid.
func (m Mux) Check(rawURL string) error {
	o, err := m.opener(rawURL)
	if err != nil || o.Check == nil {
		return err
	}
	return o.Check(rawURL)
}

func (m Mux) opener(rawURL string) (*Opener, error) {
	bad := func(format string, args ...any) error {
		return &Error{Op: "open", Code: ErrInvalid, Err: fmt.Errorf(format, args...), Hint: "known schemes: " + strings.Join(m.schemes(), ", ")}
	}
	scheme, _, ok := strings.Cut(rawURL, "://")
	if !ok {
		return nil, bad("the broker URL has no scheme") // the URL may be a password put into the wrong variable
	}
	if _, err := url.Parse(firstHost(rawURL)); err != nil {
		return nil, bad("the %s URL cannot be parsed", printable(scheme)) // its error repeats the URL
	}
	for i := range m {
		if slices.Contains(m[i].Schemes, strings.ToLower(scheme)) {
			return &m[i], nil
		}
	}
	return nil, bad("unknown scheme %q", printable(scheme))
}

// firstHost leaves one of several hosts, since package url reads no more. Some versions of it take the colon of a second port, or of an IPv6 address, for a mistake.
func firstHost(rawURL string) string {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	hosts := strings.LastIndex(rest[:end], "@") + 1
	first, _, _ := strings.Cut(rest[hosts:end], ",")
	return scheme + "://" + rest[:hosts] + first + rest[end:]
}

func (m Mux) schemes() []string {
	var all []string
	for _, o := range m {
		for _, s := range o.Schemes {
			all = append(all, s+"://")
		}
	}
	return all
}

// printable keeps what precedes "://" out of an error when it cannot be a scheme: it may be a secret.
func printable(scheme string) string {
	for _, c := range scheme {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '-' || c == '.') {
			return "…"
		}
	}
	return scheme
}
