package pubsubtest_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// A fakeT is a testing.TB that keeps what it is told, so that a test can see an expectation fail.
type fakeT struct {
	testing.TB

	mu       sync.Mutex
	text     strings.Builder
	cleanups []func()
}

func (f *fakeT) Helper() {}

func (f *fakeT) say(how, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintf(&f.text, "%s: %s\n", how, text)
}

func (f *fakeT) Error(args ...any)                 { f.say("error", fmt.Sprint(args...)) }
func (f *fakeT) Errorf(format string, args ...any) { f.say("error", fmt.Sprintf(format, args...)) }

func (f *fakeT) Fatalf(format string, args ...any) {
	f.say("fatal", fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func (f *fakeT) Cleanup(c func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cleanups = append(f.cleanups, c)
}

func (f *fakeT) end() {
	for _, c := range slices.Backward(f.cleanups) {
		c()
	}
}

// failure runs f as a test of its own and returns what that said; "" = it passed.
func failure(t *testing.T, f func(t *fakeT)) string {
	t.Helper()
	fake := &fakeT{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer fake.end()
		f(fake)
	}()
	<-done
	return fake.text.String()
}

// golden compares a text with testdata/name.txt.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// refuses fails the test unless f fails, as a test of its own, with all of these texts.
func refuses(t *testing.T, f func(t *fakeT), texts ...string) {
	t.Helper()
	got := failure(t, f)
	if got == "" {
		t.Error("the test passes; it is to fail")
	}
	for _, text := range texts {
		if !strings.Contains(got, text) {
			t.Errorf("the failure does not say %q:\n%s", text, got)
		}
	}
}
