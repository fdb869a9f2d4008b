package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Each file of testdata/broken is refused: its golden file has the errors, each with a line of the file, where it is a key's its path, and a remedy.
func TestBrokenFiles(t *testing.T) {
	t.Chdir(filepath.Join("testdata", "broken"))
	files, err := filepath.Glob("*.*")
	if err != nil {
		t.Fatal(err)
	}
	broken := 0
	for _, file := range files {
		if filepath.Ext(file) == ".golden" {
			continue
		}
		broken++
		t.Run(file, func(t *testing.T) {
			c, err := config.Load(file, &config.Options{Env: env(map[string]string{"SECRET": "s3cr3t"})})
			problems, ok := errors.AsType[config.Errors](err)
			if c != nil || !ok || !errors.Is(err, pubsub.ErrInvalid) {
				t.Fatalf("%v, %v; want Errors that are ErrInvalid", c, err)
			}
			data, readErr := os.ReadFile(file)
			if readErr != nil {
				t.Fatal(readErr)
			}
			lines := strings.Count(string(data), "\n")
			for _, p := range problems {
				if p.Line < 1 || p.Line > lines+1 || p.Remedy == "" || !strings.HasPrefix(p.Error(), fmt.Sprintf("%s:%d: ", file, p.Line)) {
					t.Errorf("%v: line %d of %d, remedy %q", p, p.Line, lines, p.Remedy)
				}
			}
			if strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("it shows a secret: %v", err)
			}
			golden(t, file+".golden", []byte(err.Error()+"\n"))
		})
	}
	if broken < 60 {
		t.Errorf("%d files", broken)
	}
}

func env(of map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := of[name]; return v, ok }
}

// Whatever the bytes are, there is a Config or Errors, and what the environment holds is in no error.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	const secret = "qZ7.s3cr3t/Xw" // is no name, so that it would be refused where one is asked for
	reference := regexp.MustCompile(`(?i)qz7|xw`)
	f.Fuzz(func(t *testing.T, data []byte) {
		if reference.Match(data) {
			return // it has the secret's letters already
		}
		c, err := config.Parse("fuzz.yaml", data, &config.Options{Env: func(string) (string, bool) { return secret, true }})
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("it shows the secret: %v", err)
		}
		if c != nil {
			for _, s := range c.Explain() {
				if strings.Contains(s.Value, secret) {
					t.Errorf("%s shows the secret: %s", s.Path, s.Value)
				}
			}
		}
	})
}
