//go:build unix

package main

import (
	"errors"
	"os/exec"
	"syscall"
	"time"
)

// runAll runs the command and returns when all that it has started has ended, too: a signal to `go run` alone would leave the program that
// it runs. They are a process group of their own, which is why they cannot read a terminal. What has not ended within patience of a signal,
// or of the command's own end, is killed.
func runAll(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = patience
	err := cmd.Run()
	if cmd.Process == nil {
		return err
	}
	for deadline := time.Now().Add(patience); syscall.Kill(-cmd.Process.Pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.Join(err, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
		}
	}
	return err
}
