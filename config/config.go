package config

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
)

// Options are what only a program can give. A nil *Options is the zero value. The maps are read, never changed.
type Options struct {
	Logger      *slog.Logger                     // nil = as the file's log says, which is on the standard error; without it silent
	Layers      map[string]pubsub.Middleware     // the program's own, for own in a chain
	Failures    map[string]func(error) bool      // kinds of failure, for when in a rule, beside timeout and network; called by many goroutines
	DedupStores map[string]middleware.DedupStore // for store in a dedup or a replay layer

	// Adjust edits a subscription before it is used, with what a file cannot say, such as DeadLetter.OnDeadLetter or Redact; nil = none is.
	// It is called once for each in Load and again in a Reload that changes nothing; it must not block.
	Adjust func(name string, s *pubsub.Subscription)

	Env func(name string) (value string, ok bool) // nil = os.LookupEnv

	// Unbound is for tools that have the file but not the program: own layers, failures and stores that are not in the maps are believed to be there, and
	// so are keyrings, which only the service may read. What is loaded so can be explained and checked; Open refuses it.
	Unbound bool
}

func (o *Options) env(name string) (string, bool) {
	if o.Env != nil {
		return o.Env(name)
	}
	return os.LookupEnv(name)
}

// A Config is a file that was read and found to be right. It does not change.
type Config struct {
	file    File
	name    string
	opts    Options
	origins map[string]Origin
	plan    plan
}

const maxFile = 1 << 20 // bytes; a file of this kind has a few thousand

// Load reads a file without connecting to anything. The error is a [Errors]: all that is wrong with single keys and values, or else
// all that does not fit together.
func Load(path string, opts *Options) (*Config, error) {
	data, err := readAll(path)
	if err != nil {
		return nil, Errors{{File: path, Problem: "it cannot be read: " + reason(err), Remedy: "name the configuration file"}}
	}
	return Parse(path, data, opts)
}

// Parse is Load of data that were read already. path is what errors call the file, and whose folder ${file:} paths are relative to. It is JSON where it
// ends in .json, else YAML, which JSON is too but for the escape \/ and surrogates.
func Parse(path string, data []byte, opts *Options) (*Config, error) {
	c := &Config{name: path}
	if opts != nil {
		c.opts = *opts
	}
	if filepath.Ext(path) == ".json" {
		data = yamlOf(data)
	}
	d := newDecoder(path, &c.opts)
	d.document(data, &c.file)
	c.origins = d.origins
	if len(d.problems) == 0 {
		c.plan = d.build(&c.file)
	}
	if len(d.problems) > 0 {
		return nil, d.sorted()
	}
	return c, nil
}

// Check looks at the broker's URL with the adapter that it is for, which Load does not know. Nothing is connected to.
func (c *Config) Check(mux pubsub.Mux) error {
	if err := mux.Check(c.file.Broker); err != nil {
		return c.at("broker", err)
	}
	return nil
}

// String is the file's path: what is in it may be secret.
func (c *Config) String() string { return c.name }

// File is what was read, with references put in and without defaults: it has secrets.
func (c *Config) File() File { return c.file }

// at puts what a broker says where the file asked for it.
func (c *Config) at(path string, err error) error {
	return &Error{File: c.name, Line: c.origins[path].Line, Path: path, Problem: err.Error(), Err: err}
}

func readAll(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("it has more than %d bytes", maxFile)
	}
	return data, err
}

// reason is an error of the file system without the path, which the message has.
func reason(err error) string {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}

//go:embed schema.json
var schema string

// Schema is the JSON Schema (draft 2020-12) of a File, for editors and for checks without this package. In YAML files most editors find it by a first
// line "# yaml-language-server: $schema=omnibus.schema.json". References (${env:NAME}) are allowed in every value.
func Schema() []byte { return []byte(schema) }

func inFolder(file, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// Subscriptions are the names of those that the file has, sorted.
func (c *Config) Subscriptions() []string {
	return slices.Sorted(maps.Keys(c.file.Subscriptions))
}
