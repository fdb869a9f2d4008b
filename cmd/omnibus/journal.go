package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A journal is the file of one replay, which nobody else writes to meanwhile. It is made when something is written to it.
type journal struct {
	path    string
	own     bool // its name is not the user's
	file    *os.File
	written bool
}

// newJournal is for a replay that begins; "" = the journal gets a name by the time.
func newJournal(path string, now time.Time) (*journal, error) {
	if path == "" {
		return &journal{path: "omnibus-replay-" + now.UTC().Format("20060102T150405.000Z") + ".journal", own: true}, nil
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, journalIsThere(path)
	}
	return &journal{path: path}, nil
}

func journalIsThere(path string) error {
	return usage(fmt.Errorf("the journal %s is there already", path), "dlq resume goes on with it; another file begins anew")
}

// openJournal is for a replay that goes on.
func openJournal(path string) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, usage(err, "a replay that is interrupted says where its journal is")
	}
	if err := claim(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &journal{path: path, file: file}, nil
}

// claim keeps others from a journal as long as this process has it open: two that go on with it would both send what is left.
func claim(file *os.File) error {
	err := lock(file)
	if errors.Is(err, errLocked) {
		return &pubsub.Error{Op: "replay", Code: pubsub.ErrConflict, Err: fmt.Errorf("another process writes to the journal %s", file.Name()),
			Hint: "wait until it has ended; dlq cancel asks it to"}
	}
	return err
}

var errLocked = errors.New("it is locked")

func (j *journal) Write(p []byte) (int, error) {
	if j.file == nil {
		file, err := os.OpenFile(j.path, os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o600)
		if errors.Is(err, fs.ErrExist) { // made since newJournal has looked
			return 0, journalIsThere(j.path)
		}
		if err != nil {
			return 0, err
		}
		if err := claim(file); err != nil {
			return 0, errors.Join(err, file.Close())
		}
		j.file = file
	}
	n, err := j.file.Write(p)
	if err == nil && !j.written { // the plan, without which what follows says nothing
		err = j.file.Sync()
	}
	j.written = true
	return n, err
}

// close ends the journal, and removes it if nobody needs it.
func (j *journal) close(remove bool) error {
	if j.file == nil {
		return nil
	}
	var err error
	if remove { // while it is ours
		err = os.Remove(j.path)
	}
	return errors.Join(err, j.file.Close())
}
