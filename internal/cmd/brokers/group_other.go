//go:build !unix

package main

import "os/exec"

// runAll runs the command. There is no signal here that asks it to end: it is killed, and what it has started goes on.
func runAll(cmd *exec.Cmd) error {
	cmd.WaitDelay = patience
	return cmd.Run()
}
