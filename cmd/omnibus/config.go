package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/pubsub"
)

const configName = "omnibus.yaml" // that is read without being named, where it exists

// configPath is the file of --config, else of OMNIBUS_CONFIG, else omnibus.yaml; "" = there is none.
func (a *app) configPath() string {
	if path := cmp.Or(a.config, a.getenv("OMNIBUS_CONFIG")); path != "" {
		return path
	}
	if _, err := os.Stat(configName); err == nil {
		return configName
	}
	return ""
}

// load reads a configuration. What only the service's own program has, such as layers of its own, is believed to be there.
func (a *app) load(path string) (*config.Config, error) {
	c, err := config.Load(path, &config.Options{Unbound: true, Env: func(name string) (string, bool) {
		v := a.getenv(name)
		return v, v != ""
	}})
	if err != nil {
		return nil, err
	}
	a.conceal(c.File().Broker)
	return c, nil
}

// topologyOfConfig is what the configuration says has to exist; nothing where there is none.
func (a *app) topologyOfConfig() (pubsub.Topology, error) {
	path := a.configPath()
	if path == "" {
		return pubsub.Topology{}, nil
	}
	c, err := a.load(path)
	if err != nil {
		return pubsub.Topology{}, err
	}
	return c.Topology(), nil
}

// needConfig is what is wrong where neither the command line nor a configuration says what is meant.
func needConfig(c *cobra.Command, what string) error {
	return usage(errors.New(what), "name it, see "+c.CommandPath()+" --help; or give a --config that has it")
}

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check and explain the configuration file of a service",
		Args:  a.noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(completingFiles(a.configCheckCommand()), a.configSchemaCommand(), completingFiles(a.configExplainCommand()))
	return c
}

// configFile is the file of a config command: its argument, or the one that all commands read.
func (a *app) configFile(c *cobra.Command, args []string) (string, error) {
	path := a.configPath()
	if len(args) == 1 {
		path = args[0]
	}
	if path == "" {
		return "", usageOf(c, errors.New("no file is named, and there is no "+configName))
	}
	return path, nil
}

// A checked is what config check says.
type checked struct {
	File          string    `json:"file"`
	OK            bool      `json:"ok"`
	Topics        int       `json:"topics"`
	Subscriptions int       `json:"subscriptions"`
	Problems      []problem `json:"problems"`
}

type problem struct {
	Line    int    `json:"line,omitempty"`
	Path    string `json:"path,omitempty"`
	Problem string `json:"problem"`
	Remedy  string `json:"remedy,omitempty"`
}

func (a *app) configCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Tell all that is wrong with a configuration",
		Long: `check reads the file and says what is wrong with it, each with its line and a remedy, and exits with 2 if anything is: all that is wrong with single
keys and values, and once these are right all that does not fit together. Variables and files that it refers to must be there. Nothing is connected to: whether the broker has what the file needs is asked by ensure --verify. What only
the service's own program has (layers, failures and stores of its own) is believed to be there, and so are its keyrings, which nobody else may read.`,
		Example: "  omnibus config check\n  omnibus config check omnibus.yaml --json",
		Args:    args(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := a.configFile(c, args)
			if err != nil {
				return err
			}
			said := checked{File: path, Problems: []problem{}}
			conf, err := a.load(path)
			if err == nil {
				t := conf.Topology()
				said.Topics, said.Subscriptions = len(t.Topics), len(conf.Subscriptions())
				err = conf.Check(a.mux)
			}
			said.OK = err == nil
			if err == nil {
				if a.out.json {
					return a.out.value(said)
				}
				return a.out.printf("%s %s, with %s and %s\n", printable(path, false), a.out.paint(green, "is right"),
					counted(said.Topics, "topic"), counted(said.Subscriptions, "subscription"))
			}
			if !a.out.json {
				return err
			}
			for _, e := range problemsOf(err) {
				one := problem{e.Line, e.Path, a.clean(e.Problem), e.Remedy}
				if own, ok := errors.AsType[*pubsub.Error](e.Err); ok {
					one.Problem, one.Remedy = a.clean(bare(own)), a.clean(own.Hint)
				}
				said.Problems = append(said.Problems, one)
			}
			return errors.Join(a.out.value(said), usage(errToldAlready, ""))
		},
	}
}

// problemsOf are the single ones in what package config says.
func problemsOf(err error) []*config.Error {
	if all, ok := errors.AsType[config.Errors](err); ok {
		return all
	}
	if one, ok := errors.AsType[*config.Error](err); ok {
		return []*config.Error{one}
	}
	return []*config.Error{{Problem: err.Error()}}
}

func (a *app) configSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of configuration files, for editors",
		Long: `schema prints the JSON Schema (draft 2020-12) of configuration files. Most editors find it by a first line of the YAML file:
# yaml-language-server: $schema=omnibus.schema.json`,
		Example: "  omnibus config schema > omnibus.schema.json",
		Args:    a.noArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.out.write(strings.TrimSuffix(string(config.Schema()), "\n") + "\n")
		},
	}
}

// A setting is a line of config explain.
type setting struct {
	Path    string `json:"path"`
	Value   string `json:"value"`
	Default bool   `json:"default"`
	Line    int    `json:"line,omitempty"`
	Source  string `json:"source,omitempty"`
}

func (a *app) configExplainCommand() *cobra.Command {
	var changed bool
	c := &cobra.Command{
		Use:   "explain [FILE]",
		Short: "Show the configuration in effect, and where each value comes from",
		Long: `explain shows each key that is in effect, defaults included, and where its value comes from: the line of the file, and the variable or file that this
refers to. It shows no secrets.`,
		Example: "  omnibus config explain\n  omnibus config explain --changed --json",
		Args:    args(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := a.configFile(c, args)
			if err != nil {
				return err
			}
			conf, err := a.load(path)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, s := range conf.Explain() {
				if changed && s.Default {
					continue
				}
				if a.out.json {
					if err := a.out.value(setting{s.Path, s.Value, s.Default, s.Origin.Line, s.Origin.Source}); err != nil {
						return err
					}
					continue
				}
				from := "default"
				if !s.Default {
					from = fmt.Sprintf("line %d", s.Origin.Line)
				}
				if s.Origin.Source != "" {
					from += ", " + s.Origin.Source
				}
				rows = append(rows, []string{printable(s.Path, false), printable(s.Value, false), printable(from, false)})
			}
			if a.out.json {
				return nil
			}
			return a.out.table([]string{"key", "value", "from"}, rows)
		},
	}
	c.Flags().BoolVar(&changed, "changed", false, "leave out defaults")
	return c
}
