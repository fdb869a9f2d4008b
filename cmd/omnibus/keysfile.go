package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/omnibus-go/omnibus/middleware/security"
)

// A keyFile is a keyring file that is being changed. What takes its place is written beside it, under a name that keeps others from changing it meanwhile.
type keyFile struct {
	path string // behind symbolic links: these stay
	said string // as the command line has it
	next *os.File
	info os.FileInfo // nil = there was none
	keys []security.Key
}

// readKeys reads a keyring file.
func readKeys(path string) ([]security.Key, error) {
	ring, err := security.OpenKeyring(path, security.KeyringOptions{})
	if err != nil {
		return nil, keyringError(err)
	}
	return ring.Keys(), nil
}

func keyringError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return usage(err, "`omnibus keys new` makes a keyring")
	}
	return usage(err, "")
}

// placeOf is where a keyring lies, behind symbolic links; or will, if it may be a new one.
func placeOf(said string, create bool) (string, error) {
	path, err := filepath.EvalSymlinks(said)
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		path = said
	case err != nil:
		return "", keyringError(fmt.Errorf("keyring: %w", err))
	}
	return filepath.Abs(path)
}

// lockKeys reads a keyring file that is to be changed, which may be a new one.
func lockKeys(said, path string, create bool) (*keyFile, error) {
	f := &keyFile{path: path, said: said}
	var err error
	f.next, err = os.OpenFile(path+".lock", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, usage(fmt.Errorf("%s is there: the keyring is being changed", said+".lock"), "wait for it; or remove that file, if whoever made it was killed")
	}
	if err != nil {
		return nil, err
	}
	if f.info, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) && create {
		return f, nil
	}
	if err == nil {
		f.keys, err = readKeys(path)
	}
	if err != nil {
		f.abandon()
		return nil, err
	}
	return f, nil
}

// stage writes the keys, and finds out whether services could use them. The keyring stays as it is.
func (f *keyFile) stage() error {
	if _, err := security.NewKeyring(f.keys...); err != nil {
		return usage(fmt.Errorf("%s: %w", f.said, err), "nothing was changed")
	}
	text, err := security.EncodeKeys(f.keys...)
	if err != nil {
		return err
	}
	if f.info != nil {
		if err := keepOwner(f.next, f.info); err != nil {
			return err
		}
		if secret := slices.ContainsFunc(f.keys, security.Key.HasPrivate); !secret { // others may read it as before
			if err := f.next.Chmod(f.info.Mode().Perm()); err != nil {
				return err
			}
		}
	}
	if _, err := f.next.Write(text); err != nil {
		return err
	}
	return f.next.Sync()
}

// commit puts what was staged into the keyring's place, in one step, and sees to it that it is there after a crash of the machine, too: services may use a new
// key from now on, which they must find again.
func (f *keyFile) commit() error {
	if err := f.next.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.next.Name(), f.path); err != nil {
		return err
	}
	f.next = nil
	return syncFolder(filepath.Dir(f.path))
}

// abandon lets others change the keyring. What was committed stays.
func (f *keyFile) abandon() {
	if f.next != nil {
		_ = f.next.Close() // it is removed
		_ = os.Remove(f.next.Name())
	}
}

// changeKeys changes keyrings: where change refuses one, none is changed. The first comes last, so that those who verify have a key before anybody signs with it.
func changeKeys(paths []string, create bool, change func(f *keyFile, first bool) error) error {
	var files []*keyFile
	defer func() {
		for _, f := range files {
			f.abandon()
		}
	}()
	for i, said := range paths {
		path, err := placeOf(said, create)
		if err != nil {
			return err
		}
		if at := slices.IndexFunc(files, func(f *keyFile) bool { return f.path == path }); at >= 0 {
			return usage(fmt.Errorf("%s and %s are one keyring", files[at].said, said), "name each once")
		}
		f, err := lockKeys(said, path, create)
		if err != nil {
			return err
		}
		files = append(files, f)
		if err := change(f, i == 0); err != nil {
			return err
		}
		if err := f.stage(); err != nil {
			return err
		}
	}
	for i, f := range slices.Backward(files) {
		if err := f.commit(); err != nil {
			return halfDone(err, f, files[i+1:])
		}
	}
	return nil
}

// halfDone says which keyrings were changed before one could not be.
func halfDone(err error, at *keyFile, done []*keyFile) error {
	if len(done) == 0 {
		return fmt.Errorf("%s: %w", at.said, err)
	}
	var names []string
	for _, f := range done {
		names = append(names, f.said)
	}
	return fmt.Errorf("%s: %w; changed were: %s", at.said, err, strings.Join(names, ", "))
}

// find is where a key is.
func (f *keyFile) find(id string) (*security.Key, error) {
	at := slices.IndexFunc(f.keys, func(k security.Key) bool { return k.ID == id })
	if at < 0 {
		return nil, usage(fmt.Errorf("%s has no key %q", f.said, id), "`omnibus keys list` shows those that it has")
	}
	return &f.keys[at], nil
}

// add adds a key; to a keyring that is not its owner's what others need of it.
func (f *keyFile) add(k security.Key, own bool) error {
	if !own && !symmetric(k.Suite) {
		var err error
		if k, err = k.Public(); err != nil {
			return err
		}
	}
	f.keys = append(f.keys, k)
	return nil
}

func symmetric(s security.Suite) bool { return s == security.HMACSHA256 || s == security.AES256GCM }

func signs(s security.Suite) bool {
	return s == security.Ed25519 || s == security.P256 || s == security.HMACSHA256
}
