//go:build unix

package main

import (
	"os"
	"syscall"
	"testing"
)

// Whoever changes a keyring, the service that has it can read it.
func TestKeyringKeepsItsOwner(t *testing.T) {
	w := newWorld(t)
	t.Chdir(t.TempDir())
	keyrings(t)
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 { // nobody else can give files away
		uid, gid = 12345, 12346
	}
	if err := os.Chown("orders.keys", uid, gid); err != nil {
		t.Fatal(err)
	}
	w.must("keys", "retire", "orders.keys", "orders-2025")
	info, err := os.Stat("orders.keys")
	if err != nil {
		t.Fatal(err)
	}
	if is := info.Sys().(*syscall.Stat_t); int(is.Uid) != uid || int(is.Gid) != gid || info.Mode().Perm() != 0o600 {
		t.Errorf("it belongs to %d and %d, %v; want %d and %d", is.Uid, is.Gid, info.Mode(), uid, gid)
	}
}
