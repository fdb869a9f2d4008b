// Package child runs a test program once more, as a process that does something else: what a process loses with its life only its death shows.
package child

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
)

const prefix = "OMNIBUS_CHILD_" // of the variables that hold what such processes are to do

// Main is for the beginning of TestMain. In a process that Start has started by that name it calls live with what it is to do, and does not return; in all
// others it does nothing. ctx ends when the test says so, or is there no more. What live returns, or prints on the standard error, is the test's to see.
func Main[Task any](name string, live func(ctx context.Context, task Task) error) {
	text := os.Getenv(prefix + name)
	if text == "" {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	var task Task
	err := json.Unmarshal([]byte(text), &task)
	if err == nil {
		err = live(ctx, task)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A Process is one as its test sees it. It is killed when the test ends, if it lives then.
type Process struct {
	Lines <-chan string // what it prints; closed when it prints no more. Somebody has to read them, or the process stands still

	cmd  *exec.Cmd
	in   io.Closer
	wait func() error
}

// Start starts program, "" = this one, whose TestMain calls Main with that name. task is to be given to it as JSON.
func Start(tb testing.TB, program, name string, task any) *Process {
	tb.Helper()
	text, err := json.Marshal(task)
	if err != nil {
		tb.Fatal(err)
	}
	if program == "" {
		if program, err = os.Executable(); err != nil {
			tb.Fatal(err)
		}
	}
	cmd := exec.CommandContext(tb.Context(), program, "-test.run=^$") // where TestMain forgets Main nothing runs
	cmd.Env, cmd.Stderr = append(os.Environ(), prefix+name+"="+string(text)), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	p := &Process{Lines: lines, cmd: cmd, in: in, wait: sync.OnceValue(cmd.Wait)}
	tb.Cleanup(func() {
		p.Kill()
		for range lines { // which nobody has read
		}
		_ = p.wait()
	})
	return p
}

// Quit tells the process to end. It may be called again.
func (p *Process) Quit() { _ = p.in.Close() }

// Kill ends the process with SIGKILL, if it lives.
func (p *Process) Kill() { _ = p.cmd.Process.Kill() }

// Wait returns when the process has ended, for which Lines has to be closed: whether it died of SIGKILL, or else why it failed.
func (p *Process) Wait() (killed bool, err error) {
	err = p.wait()
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGKILL {
		return true, nil
	}
	return false, err
}
