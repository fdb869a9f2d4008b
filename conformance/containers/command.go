package containers

import (
	"bytes"
	"context"
	"strings"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// Do runs a command in the node's container, as an operator would there, and returns once it has ended. It fails if the command does, with what that said.
func (n *Node) Do(ctx context.Context, command ...string) error {
	n.mu.Lock()
	id := n.id
	n.mu.Unlock()
	docker := n.engine.docker
	made, err := docker.ExecCreate(ctx, id, client.ExecCreateOptions{Cmd: command, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return n.errorf("%s: %w", command[0], err)
	}
	run, err := docker.ExecAttach(ctx, made.ID, client.ExecAttachOptions{})
	if err != nil {
		return n.errorf("%s: %w", command[0], err)
	}
	defer run.Close()
	defer context.AfterFunc(ctx, run.Close)()
	var said bytes.Buffer
	if _, err := stdcopy.StdCopy(&said, &said, run.Reader); err != nil {
		return n.errorf("%s: %w", command[0], err)
	}
	end, err := docker.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	if err != nil {
		return n.errorf("%s: %w", command[0], err)
	}
	if end.ExitCode != 0 {
		return n.errorf("%s: exit code %d: %s", command[0], end.ExitCode, strings.TrimSpace(said.String()))
	}
	return nil
}
