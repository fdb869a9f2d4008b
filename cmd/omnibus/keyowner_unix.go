//go:build unix

package main

import (
	"errors"
	"os"
	"syscall"
)

// keepOwner gives a file the owner of the one whose place it takes: the service that reads it may be another user than who runs this.
func keepOwner(f *os.File, before os.FileInfo) error {
	was, ok := before.Sys().(*syscall.Stat_t)
	if !ok || int(was.Uid) == os.Geteuid() && int(was.Gid) == os.Getegid() {
		return nil
	}
	return f.Chown(int(was.Uid), int(was.Gid))
}

// syncFolder sees to it that the names in a folder outlast a crash of the machine. Some file systems cannot be asked for that.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
