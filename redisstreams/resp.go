package redisstreams

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/omnibus-go/omnibus/pubsub"
)

// A reply is an answer of the server as it came, from which the values are taken one after another. The client's own reader would make a map of an entry,
// and lose which fields came twice and in which order.
type reply struct {
	rest []byte
	err  error
}

// A serverError is what the server says instead of an answer. It implements redis.Error.
type serverError string

func (e serverError) Error() string { return string(e) }

// RedisError implements redis.Error.
func (e serverError) RedisError() {}

// errGarbled is an answer that is none.
var errGarbled = &brokerError{pubsub.ErrBroker, false, "an answer of the server cannot be read"}

// line takes the head of a value: its kind, and what follows that.
func (r *reply) line() (kind byte, text []byte) {
	end := bytes.Index(r.rest, []byte("\r\n"))
	if end < 1 || r.err != nil {
		r.fail(errGarbled)
		return 0, nil
	}
	kind, text, r.rest = r.rest[0], r.rest[1:end], r.rest[end+2:]
	if kind == '-' {
		r.fail(serverError(text))
	}
	return kind, text
}

func (r *reply) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.rest = nil
}

// list begins a list, and returns its length; -1 for none.
func (r *reply) list() int {
	kind, text := r.line()
	n, err := strconv.Atoi(string(text))
	if r.err == nil && (kind != '*' && (kind != '$' || n >= 0) || err != nil) {
		r.fail(errGarbled)
	}
	if r.err != nil {
		return -1
	}
	return n
}

// text takes a text, or a number as text; nil for none.
func (r *reply) text() []byte {
	kind, head := r.line()
	switch {
	case r.err != nil:
		return nil
	case kind == ':' || kind == '+':
		return head
	}
	n, err := strconv.Atoi(string(head))
	switch {
	case err == nil && n < 0 && (kind == '$' || kind == '*'):
		return nil
	case err != nil || kind != '$' || n > len(r.rest)-2:
		r.fail(errGarbled)
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n+2:]
	return b
}

func (r *reply) number() int64 {
	text := r.text()
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		r.fail(errGarbled)
	}
	return n
}

// each calls f for each value of a list.
func (r *reply) each(f func()) {
	for range r.list() {
		if r.err != nil {
			return
		}
		f()
	}
}

// entries takes a list of entries. f gets the id and the fields, name after value, which are the reply's memory; none where the entry was deleted.
func (r *reply) entries(fields [][]byte, f func(id entryID, fields [][]byte)) [][]byte {
	r.each(func() {
		if n := r.list(); n != 2 { // -1: XCLAIM of Redis 6 says so of what was deleted
			if n >= 0 {
				r.fail(errGarbled)
			}
			return
		}
		id, ok := parseID(r.text())
		if !ok {
			r.fail(errGarbled)
			return
		}
		fields = fields[:0]
		r.each(func() { fields = append(fields, r.text()) })
		if r.err == nil && len(fields)%2 == 0 {
			f(id, fields)
		}
	})
	return fields
}

// table takes a list of names and values.
func (r *reply) table() map[string]string {
	m := map[string]string{}
	for n := r.list(); n > 1; n -= 2 {
		name := string(r.text())
		if r.err != nil {
			break
		}
		if bytes.HasPrefix(r.rest, []byte("*")) { // a list in it, which nobody here asks for
			r.skip()
			continue
		}
		m[strings.ToLower(name)] = string(r.text())
	}
	return m
}

func (r *reply) skip() {
	if bytes.HasPrefix(r.rest, []byte("*")) {
		r.each(r.skip)
		return
	}
	r.text()
}
