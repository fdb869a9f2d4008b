package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/internal/pty"
)

// terminal opens a pseudo-terminal: what is written to tty comes out of master.
func terminal(t *testing.T) (master, tty *os.File) {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	return master, tty
}

// On a terminal there is colour, unless NO_COLOR is set; elsewhere there is none.
func TestColourIsForTerminals(t *testing.T) {
	for _, c := range []struct {
		tty    bool
		env    map[string]string
		colour bool
	}{
		{false, nil, false}, {true, nil, true}, {true, map[string]string{"NO_COLOR": "1"}, false}, {true, map[string]string{"TERM": "dumb"}, false},
	} {
		w := newWorld(t)
		var read func() string
		var out *os.File
		if c.tty {
			master, tty := terminal(t)
			out = tty
			read = func() string {
				all, _ := io.ReadAll(master) // ends with EIO when nobody has the terminal open
				return string(all)
			}
		} else {
			r, p, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			out = p
			read = func() string { all, _ := io.ReadAll(r); return string(all) }
		}
		got := make(chan string)
		go func() { got <- read() }()
		a := newApp(strings.NewReader(""), out, out, func(name string) string {
			if name == "OMNIBUS_URL" {
				return "mem://test"
			}
			return c.env[name]
		})
		a.mux = w.app.mux
		for _, args := range [][]string{{"ensure", "orders"}, {"pub", "orders", "x"}, {"sub", "orders", "--from", "earliest"}} {
			if code := a.run(t.Context(), args); code != 0 {
				t.Fatal(args, code)
			}
		}
		a.run(t.Context(), []string{"pub", "nowhere", "x"})
		out.Close()
		text := <-got
		if !strings.Contains(text, "orders") || strings.Contains(text, "\x1b[3") != c.colour {
			t.Errorf("terminal %v, %v: %q, want colour: %v", c.tty, c.env, text, c.colour)
		}
	}
}
