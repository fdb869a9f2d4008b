// Package watched reads files with keys, tells whether one has changed, and says who may read and change it.
package watched

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	// DefaultPoll is how often a file is looked at where nobody says.
	DefaultPoll = time.Second

	maxFile = 1 << 20
)

// A Stamp tells one content of a file from another.
type Stamp struct {
	info os.FileInfo // also for its rights, for which a file may be refused, and for os.SameFile: a file that was renamed into its place; nil = there is err
	err  string      // why it could not be looked at
}

// StampOf is the stamp that a file has now.
func StampOf(path string) Stamp { return stampOf(os.Stat(path)) }

func stampOf(info os.FileInfo, err error) Stamp {
	if err != nil {
		return Stamp{err: err.Error()}
	}
	return Stamp{info: info}
}

// Same says whether nothing has changed between two stamps.
func (s Stamp) Same(o Stamp) bool {
	a, b := s.info, o.info
	if a == nil || b == nil {
		return a == nil && b == nil && s.err == o.err
	}
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && a.Mode() == b.Mode() && os.SameFile(a, b)
}

// Read returns the content of a file, and the stamp that it had before: what is written meanwhile is seen at the next look. Rights and content are those of one
// file, also where another takes its place meanwhile.
func Read(path string) ([]byte, Stamp, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, StampOf(path), err // as the next look will have it, which does not open the file
	}
	defer file.Close()
	info, err := file.Stat()
	before := stampOf(info, err)
	if err != nil {
		return nil, before, err
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, before, err
	}
	if len(b) > maxFile {
		return nil, before, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return b, before, nil
}

// CheckRights refuses a file, which was read with this stamp, that others can change, and one that is secret and that others can read. what names its secrets.
func (s Stamp) CheckRights(path, what string, secret bool) error {
	rights := s.info.Mode().Perm()
	switch {
	case runtime.GOOS == "windows": // its rights are elsewhere
	case secret && rights&0o077 != 0:
		return fmt.Errorf("%s has %s and the rights %v: others can read or change it; make them 0600", path, what, rights)
	case rights&0o022 != 0:
		return fmt.Errorf("%s has the rights %v: others can change whom this service believes; make them 0644, or 0600", path, rights)
	}
	return nil
}

// A Timer says when a file is to be looked at. Its zero value has no Poll, which it needs.
type Timer struct {
	Poll time.Duration
	next atomic.Int64 // in Unix nanoseconds
}

// Looked says that the file is looked at now.
func (t *Timer) Looked(now time.Time) { t.next.Store(now.Add(t.Poll).UnixNano()) }

// Due says whether the file is to be looked at. It is also where the clock was set back: by it the next look may be a year away, and a key be revoked until then.
func (t *Timer) Due(now time.Time) bool {
	left := t.next.Load() - now.UnixNano()
	return left <= 0 || left-t.Poll.Nanoseconds() > t.Poll.Nanoseconds()
}

// Overdue says that nobody has looked for so long that a key could be in use which was added since.
func (t *Timer) Overdue(now time.Time) bool {
	return now.UnixNano()-t.next.Load() >= t.Poll.Nanoseconds()
}
