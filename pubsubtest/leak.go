package pubsubtest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/pubsub"
)

// A guard knows goroutines by a pprof label, which whoever starts a goroutine hands down to it. So it works in a bubble and outside of
// one, and never takes the goroutine of another test for one of this.
type guard struct {
	label string
	on    context.Context //nolint:containedctx // holds the label: that is how package pprof passes labels
	off   context.Context //nolint:containedctx // the same, without it
}

const labelName = "pubsubtest"

// watchGoroutines labels the calling goroutine.
func watchGoroutines(tb testing.TB) *guard {
	tb.Helper()
	g := &guard{label: tb.Name() + " " + strconv.FormatUint(rand.Uint64(), 16), off: tb.Context()}
	g.on = pprof.WithLabels(g.off, pprof.Labels(labelName, g.label))
	g.enter()
	return g
}

// enter labels the calling goroutine.
func (g *guard) enter() { pprof.SetGoroutineLabels(g.on) }

// check fails the test if a goroutine with the label is left soon.
func (g *guard) check(tb testing.TB) {
	tb.Helper()
	pprof.SetGoroutineLabels(g.off)
	left := g.left()
	for wait := time.Millisecond; len(left) > 0 && wait < time.Second; wait *= 2 {
		<-time.After(wait)
		left = g.left()
	}
	if len(left) > 0 {
		tb.Errorf("goroutines outlive the test's broker:\n%s", strings.Join(left, "\n"))
	}
}

// left returns the stacks of the goroutines with the label, the innermost call first.
func (g *guard) left() (stacks []string) {
	var all bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
		return []string{err.Error()}
	}
	want := fmt.Sprintf("%q:%q", labelName, g.label)
	for block := range strings.SplitSeq(all.String(), "\n\n") {
		count, rest, _ := strings.Cut(block, " @ ")
		_, rest, _ = strings.Cut(rest, "\n")
		if labels, _, _ := strings.Cut(rest, "\n"); !strings.HasPrefix(labels, "# labels: ") || !strings.Contains(labels, want) {
			continue
		}
		if calls := calls(rest); !exempt(calls) {
			stacks = append(stacks, fmt.Sprintf("  %s of:\n    %s", strings.TrimSpace(count), strings.Join(calls, "\n    ")))
		}
	}
	return stacks
}

// calls returns the calls of a stack in the text of the goroutine profile, without those of the runtime. A line of it has an
// address, the function with an offset, and the place.
func calls(text string) (calls []string) {
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.Fields(line)
		if len(f) < 4 || f[0] != "#" || !strings.HasPrefix(f[1], "0x") {
			continue
		}
		function := f[2]
		if i := strings.LastIndex(function, "+0x"); i >= 0 {
			function = function[:i]
		}
		place := strings.Join(f[3:], " ")
		calls = append(calls, function+" at "+filepath.Base(filepath.Dir(place))+"/"+filepath.Base(place))
	}
	return calls
}

// exempt says whether a goroutine is no leak of this test: it belongs to a connection that the standard library keeps for later, or to the
// engine of a Broker. This Broker's have ended when Close returns without an error, and another one is not over yet.
func exempt(calls []string) bool {
	if len(calls) == 0 {
		return false
	}
	first := calls[len(calls)-1]
	return slices.ContainsFunc([]string{
		reflect.TypeFor[pubsub.Broker]().PkgPath() + ".", reflect.TypeFor[memory.Server]().PkgPath() + ".",
		"net/http.(*persistConn).", "net/http.(*http2ClientConn).", "net/http.(*http2clientConnReadLoop).", "database/sql.(*DB).",
	}, func(owner string) bool { return strings.HasPrefix(first, owner) })
}
