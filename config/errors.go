package config

import (
	"fmt"
	"strings"

	"github.com/omnibus-go/omnibus/pubsub"
)

// An Error is one thing that is wrong with a file. errors.Is finds [pubsub.ErrInvalid], or the code of the broker's own error. It never shows what came
// from the environment or a file, nor the broker's URL.
type Error struct {
	File    string // as it was named to Load
	Line    int    // 0 = of no line
	Path    string // of keys, as in subscriptions.billing; "" = the file as a whole
	Problem string // what is wrong, in words
	Remedy  string // what to do about it; "" = that is plain
	Err     error  // the broker's own, where that is what is wrong; else nil
}

// Error is file:line: path: problem; remedy.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Path != "" {
		b.WriteString(": " + e.Path)
	}
	b.WriteString(": " + e.Problem)
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// Unwrap is Err.
func (e *Error) Unwrap() error { return e.Err }

// Is lets errors.Is find pubsub.ErrInvalid, unless Err has a code of its own.
func (e *Error) Is(target error) bool {
	c, ok := target.(pubsub.Code)
	return ok && c == pubsub.ErrInvalid && e.Err == nil
}

// Errors is what is wrong with a file, in the order of its lines, see [Load].
type Errors []*Error

// Error has a line for each.
func (p Errors) Error() string {
	lines := make([]string, len(p))
	for i, e := range p {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As look into each.
func (p Errors) Unwrap() []error {
	all := make([]error, len(p))
	for i, e := range p {
		all[i] = e
	}
	return all
}
