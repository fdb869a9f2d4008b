// Command omnibus is the operator's tool: it asks, feeds, reads and measures any broker that package brokers can open.
//
//	omnibus ping --url nats://127.0.0.1:4222
//	omnibus pub orders '{"n":1}' --key a
//	omnibus sub orders --from earliest
//
// docs/cli.md has all commands, the exit codes, and an example of each.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signal.Ignore(syscall.SIGPIPE) // a reader that is gone is an error of Write: what is held goes back to the broker before the end
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first asks to drain; the second ends the process as it does any other
	os.Exit(newApp(os.Stdin, os.Stdout, os.Stderr, os.Getenv).run(ctx, os.Args[1:]))
}
