// Package setup_test tests what setup.sh makes of its variables. What it installs, CI tests.
package setup_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A name in OMNIBUS_BROKERS that nothing has would leave every broker out, and the run green.
func TestBrokersAreKnown(t *testing.T) {
	for _, c := range []struct {
		brokers, state string
		refused        string
	}{
		{"", "container", ""},
		{"memory", "left-out", ""},
		{"nats", "container", ""},
		{"memory,kafka,rabbitmq,redis,python", "left-out", ""},
		{"memory,nats", "container", ""},
		{"memroy", "", `"memroy"`},
		{"nats,natts", "", `"natts"`},
		{"nats kafka", "", `"nats kafka"`},
		{"nats,,kafka", "", `""`},
		{"clients", "", `"clients"`},
		{"nats/tls", "", `"nats/tls"`},
		{"nats,../setup/kafka", "", `"../setup/kafka"`},
		{"*", "", `"*"`},
	} {
		for _, command := range []string{"state", "ready", "clients"} {
			if c.refused == "" && command != "state" {
				continue // they look for more than the names
			}
			out, errs, code := run(t, c.brokers, command, "nats")
			if c.refused == "" {
				if code != 0 || out != c.state+"\n" || errs != "" {
					t.Errorf("%q: exit %d, %q, %q; want %s", c.brokers, code, out, errs, c.state)
				}
				continue
			}
			for _, want := range []string{"OMNIBUS_BROKERS", c.refused, "memory python kafka nats rabbitmq redis"} {
				if code != 2 || out != "" || !strings.Contains(errs, want) {
					t.Errorf("%s with %q: exit %d, %q, %q; want exit 2 and %s", command, c.brokers, code, out, errs, want)
				}
			}
		}
	}
}

func run(t *testing.T, brokers string, args ...string) (out, errs string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{"setup.sh"}, args...)...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "OMNIBUS_") && !strings.HasPrefix(v, "CI=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "OMNIBUS_BROKERS="+brokers)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if _, exited := errors.AsType[*exec.ExitError](cmd.Run()); !exited && cmd.ProcessState == nil {
		t.Fatal("bash does not run")
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}
