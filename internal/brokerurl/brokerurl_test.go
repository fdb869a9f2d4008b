package brokerurl_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/internal/brokerurl"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]brokerurl.Address{
		"a://one,two:1,three:2/path?x=1": {Scheme: "a", Hosts: []string{"one", "two:1", "three:2"}, Path: "/path"},
		"b://u:p%40:%2Fss@one":           {Scheme: "b", Hosts: []string{"one"}, User: "u", Password: "p@:/ss"},
		"a://u@one:1,two":                {Scheme: "a", Hosts: []string{"one:1", "two"}, User: "u"},
		"a://":                           {Scheme: "a"},
		"a://h/%2F":                      {Scheme: "a", Hosts: []string{"h"}, Path: "//"},
	} {
		got, err := brokerurl.Parse(raw, "a", "b")
		if err != nil || got.Scheme != want.Scheme || !slices.Equal(got.Hosts, want.Hosts) || got.User != want.User || got.Password != want.Password || got.Path != want.Path {
			t.Errorf("%s: %+v, %v, want %+v", raw, got, err, want)
		}
	}
	for raw, says := range map[string]string{
		"c://u:secret@h":                "the scheme is not a or b",
		"a://u:secret@h:port":           "cannot be parsed",
		"a://u:secret@h,u:secret@i":     "a user once",
		"a:secret":                      "no fragment",
		"a://u:secret@h#f":              "no fragment",
		"secret":                        "cannot be parsed",
		"a://u:s@ecret@h":               "cannot be parsed",
		"a://u:sec#ret@h?surely=secret": "cannot be parsed",
	} {
		_, err := brokerurl.Parse(raw, "a", "b")
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", raw, err, says)
		}
	}
}

func TestParameters(t *testing.T) {
	t.Parallel()
	errBad := errors.New("no such value")
	set := func(key, value string) error {
		switch key {
		case "known":
			return nil
		case "bad":
			return errBad
		}
		return brokerurl.ErrNoParameter
	}
	for raw, says := range map[string]string{
		"a://h?known=1":             "",
		"a://h":                     "",
		"a://h?known=1&bad=2":       errBad.Error(),
		"a://h?other=secret":        `unknown parameter "other"`,
		"a://h?known=1&known=2":     `parameter "known" is there more than once`,
		"a://u:?secret=1@h":         "unknown parameter (a ? in a password is %3F)",
		"a://u:?a=1&a=secret@h":     "parameter (a ? in a password is %3F) is there more than once",
		"a://h?known=%zz&secret=1":  "cannot be parsed",
		"a://h?known=1;secret=what": "cannot be parsed",
	} {
		a, err := brokerurl.Parse(raw, "a")
		if err != nil {
			t.Fatal(err)
		}
		err = a.Parameters(set)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v, want %q", raw, err, says)
		}
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("\ufeff pass word \r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := brokerurl.Secret(path); s != " pass word " || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	if _, err := brokerurl.TLS(path, "", "", ""); !errors.Is(err, brokerurl.ErrNoCertificate) {
		t.Errorf("a file without a certificate: %v", err)
	}
	if _, err := brokerurl.TLS(path+"x", "", "", ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if c, err := brokerurl.TLS("", "", "", "name"); err != nil || c.ServerName != "name" || c.RootCAs != nil {
		t.Errorf("no files: %+v, %v", c, err)
	}
}
