package conformance

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
)

// A T is what a property needs of a test. *testing.T is one; the suite brings its own for programs that link no package testing. Each method means
// what it means there.
type T interface {
	Helper()                           // marks the caller as a helper
	Name() string                      // as in TestConformance/Order/PerKey
	Context() context.Context          // ends just before the functions of Cleanup are called
	Cleanup(func())                    // is called when the property has ended, the last one first
	Logf(format string, args ...any)   // says something
	Errorf(format string, args ...any) // says what failed; the property goes on
	Fatalf(format string, args ...any) // the same, and ends the goroutine, which must be the property's own
	Failed() bool                      // whether Errorf or Fatalf was called
}

// A Runner is a T that has subtests of its own kind. *testing.T is one, and each method means what it means there. Run may be called by several goroutines
// at once.
type Runner[R any] interface {
	T
	Skipf(format string, args ...any) // ends the property, which was not asked, and says why
	Run(name string, f func(R)) bool  // runs f as a subtest, and says whether it passed
}

// A failure that begins so is not a property's verdict: the suite could not ask its question.
const (
	setupPrefix   = "setup: "
	panicPrefix   = "panic: "
	harnessPrefix = "harness: "
)

// isVerdict says whether a failure is the property's own assertion.
func isVerdict(failure string) bool {
	for _, p := range []string{setupPrefix, panicPrefix, harnessPrefix} {
		if strings.HasPrefix(failure, p) {
			return false
		}
	}
	return true
}

// A trial is the T of one property: it keeps what is said instead of printing it.
type trial struct {
	name string
	ctx  context.Context

	mu       sync.Mutex
	logs     []string
	failures []string
	cleanups []func()
}

var _ T = (*trial)(nil)

func (t *trial) Helper()                  {}
func (t *trial) Name() string             { return t.name }
func (t *trial) Context() context.Context { return t.ctx }

func (t *trial) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *trial) Logf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.logs = append(t.logs, fmt.Sprintf(format, args...))
}

func (t *trial) Errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures = append(t.failures, fmt.Sprintf(format, args...))
}

// Fatalf ends the goroutine that calls it, which must be the property's own.
func (t *trial) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

func (t *trial) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.failures) > 0
}

// run calls f in a goroutine that Fatalf may end, then the cleanups, the last one first.
func (t *trial) run(f func()) {
	t.guard(f)
	for {
		t.mu.Lock()
		n := len(t.cleanups)
		if n == 0 {
			t.mu.Unlock()
			return
		}
		last := t.cleanups[n-1]
		t.cleanups = t.cleanups[:n-1]
		t.mu.Unlock()
		t.guard(last)
	}
}

func (t *trial) guard(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				t.Errorf("%s%v\n%s", panicPrefix, r, debug.Stack())
			}
		}()
		f()
	}()
	<-done
}
