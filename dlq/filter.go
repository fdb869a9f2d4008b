package dlq

import (
	"slices"
	"strings"
	"time"
)

// A Filter selects dead letters: those for which all that is set holds. The zero value selects every one, also what cannot be read.
type Filter struct {
	IDs         []string           // Record.ID is one of them; nil = any
	Topic       string             // Record.Topic
	Group       string             // Record.Group
	Reason      string             // Record.Reason
	Category    string             // Record.Category
	ErrorType   string             // Record.ErrorType
	Fingerprint string             // Record.Fingerprint
	Type        string             // Message.Type
	Key         string             // Message.Key
	Error       string             // is part of Record.Error
	Header      map[string]string  // each is a header of Message, with that value
	Since       time.Time          // not before this; the time is LastFailed, else FirstFailed, else when the message was published
	Before      time.Time          // before this
	States      []State            // Record.State is one of them; nil = any, but see Queue.Plan, Discard and Restore
	Where       func(*Record) bool // what only code can say, asked last; nil = any
}

func (f *Filter) match(r *Record) bool {
	for _, x := range [...][2]string{
		{f.Topic, r.Topic}, {f.Group, r.Group}, {f.Reason, r.Reason}, {f.Category, r.Category}, {f.ErrorType, r.ErrorType},
		{f.Fingerprint, r.Fingerprint}, {f.Type, r.Message.Type}, {f.Key, r.Message.Key},
	} {
		if x[0] != "" && x[0] != x[1] {
			return false
		}
	}
	if f.States != nil && !slices.Contains(f.States, r.State) {
		return false
	}
	if f.IDs != nil && !slices.Contains(f.IDs, r.ID) || !strings.Contains(r.Error, f.Error) {
		return false
	}
	for name, want := range f.Header {
		if !slices.Contains(slices.Collect(r.Message.Headers.Values(name)), want) {
			return false
		}
	}
	at := r.when()
	if !f.Since.IsZero() && at.Before(f.Since) || !f.Before.IsZero() && !at.Before(f.Before) {
		return false
	}
	return f.Where == nil || f.Where(r)
}
