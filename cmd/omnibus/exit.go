package main

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/pubsub"
)

// What the command exits with. docs/cli.md has them from exits.
const (
	exitOK = iota
	exitFailed
	exitUsage
	exitFound
	exitUnavailable
	exitDenied
	exitNotFound
	exitConflict
	exitUnsupported
	exitNotStored
	exitUnconfirmed
	exitInterrupted = 130
)

// exits say what each code means.
func exits() []exit {
	return []exit{
		{exitOK, "done", nil},
		{exitFailed, "the broker, or this machine, says something that fits nothing below", nil},
		{exitUsage, "the command line or the configuration is wrong", []pubsub.Code{pubsub.ErrInvalid}},
		{exitFound, "what was asked for was found to be bad: a property fails, a lag is above its bound, a message could not be sent again", nil},
		{exitUnavailable, "the broker cannot be reached, or does not answer in time", []pubsub.Code{pubsub.ErrUnavailable, pubsub.ErrTimeout}},
		{exitDenied, "the broker turns us away", []pubsub.Code{pubsub.ErrUnauthenticated, pubsub.ErrDenied}},
		{exitNotFound, "the topic, group or message does not exist", []pubsub.Code{pubsub.ErrNotFound}},
		{exitConflict, "it exists with other settings, or is in use", []pubsub.Code{pubsub.ErrConflict}},
		{exitUnsupported, "this broker cannot do it", []pubsub.Code{pubsub.ErrUnsupported}},
		{exitNotStored, "a message was certainly not stored",
			[]pubsub.Code{pubsub.ErrUnroutable, pubsub.ErrTooLarge, pubsub.ErrExhausted, pubsub.ErrRefused}},
		{exitUnconfirmed, "a message was sent, and nobody knows whether it was stored", []pubsub.Code{pubsub.ErrUnconfirmed}},
		{exitInterrupted, "interrupted", []pubsub.Code{pubsub.ErrCanceled}},
	}
}

type exit struct {
	Code  int
	Means string
	of    []pubsub.Code
}

// errToldAlready is an error that the reader knows: what was found stands in the output.
var errToldAlready = errors.New("told already")

// errTimeout is why a context ended that --timeout bounds.
var errTimeout = errors.New("no answer within --timeout")

// A usageError is a command line that cannot be run.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(err error, hint string) error { return &usageError{err, hint} }

func usageOf(c *cobra.Command, err error) error {
	return usage(err, c.CommandPath()+" --help tells what there is")
}

// A foundError says that the answer is a bad one. Its text is empty where the output has told it.
type foundError struct{ text string }

func (e *foundError) Error() string { return e.text }
func (e *foundError) Is(target error) bool {
	return target == errToldAlready && e.text == ""
}

func exitCode(err error) int {
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*foundError](err); ok {
		return exitFound
	}
	code := pubsub.CodeOf(err)
	switch {
	case timedOut(err):
		return exitUnavailable
	case code == pubsub.ErrBroker && errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	for _, x := range exits() {
		if slices.Contains(x.of, code) {
			return x.Code
		}
	}
	return exitFailed
}

func timedOut(err error) bool {
	return errors.Is(err, errTimeout) || errors.Is(err, context.DeadlineExceeded)
}

// A complaint is an error for the reader.
type complaint struct {
	Code    string `json:"code"` // of pubsub, or "usage", "found", "failed"
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Exit    int    `json:"exit"`
}

// describe says what happened, and what to do about it.
func describe(err error) complaint {
	if p, ok := errors.AsType[config.Errors](err); ok {
		return complaint{Code: "usage", Message: p.Error(), Exit: exitUsage}
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return describeAll(j.Unwrap(), err)
	}
	c := complaint{Code: "failed", Message: err.Error(), Exit: exitCode(err)}
	switch c.Exit {
	case exitUsage:
		c.Code = "usage"
	case exitFound:
		c.Code = "found"
	}
	if u, ok := errors.AsType[*usageError](err); ok {
		c.Hint = u.hint
		return c
	}
	e, ok := errors.AsType[*pubsub.Error](err)
	if !ok {
		if c.Exit == exitInterrupted {
			c.Code, c.Message = pubsub.ErrCanceled.Error(), "interrupted"
		}
		return c
	}
	c.Code, c.Hint = e.Code.Error(), e.Hint
	if err == error(e) { //nolint:errorlint // whether it is that one itself
		c.Message = bare(e)
	} else if in, ok := errors.AsType[*config.Error](err); ok {
		at := *in
		at.Problem = bare(e)
		c.Message = at.Error()
	}
	if timedOut(err) {
		c.Code = pubsub.ErrUnavailable.Error()
	}
	if own := advice(e); c.Hint == "" || own != "" && e.Code == pubsub.ErrNotFound { // which for a program names an option of Open
		c.Hint = own
	}
	return c
}

// bare is what an error says without what to do about it.
func bare(e *pubsub.Error) string {
	without := *e
	without.Hint = ""
	return strings.TrimPrefix(without.Error(), "pubsub: ")
}

// describeAll says each of several, and what to do about the first.
func describeAll(errs []error, joined error) complaint {
	if len(errs) == 0 {
		return complaint{Code: "failed", Message: joined.Error(), Exit: exitCode(joined)}
	}
	c := describe(errs[0])
	for _, err := range errs[1:] {
		next := describe(err)
		c.Message += "\n" + next.Message
		if c.Hint == "" {
			c.Hint = next.Hint
		}
	}
	c.Exit = exitCode(joined)
	return c
}

// advice is what an operator does about an error that says no more.
func advice(e *pubsub.Error) string {
	switch e.Code {
	case pubsub.ErrUnavailable, pubsub.ErrTimeout:
		return "is the broker running, and is the URL right? `omnibus ping` asks it; --timeout says how long to wait"
	case pubsub.ErrUnauthenticated:
		return "check the user and the password, or the file of credentials, that the URL names"
	case pubsub.ErrDenied:
		return "the user of the URL may not do this: give it the right at the broker"
	case pubsub.ErrUnroutable, pubsub.ErrNotFound:
		switch e.Op {
		case "publish", "subscribe", "ensure", "lag", "browse":
			topic := e.Topic
			if topic == "" {
				topic = "TOPIC"
			}
			return "`omnibus ensure " + topic + "` makes a topic, with --group also a group"
		}
	case pubsub.ErrConflict:
		return "it is in use, or its settings are others than the ones asked for; omnibus changes no existing topic"
	}
	return ""
}

// conceal remembers what of a URL must not be shown.
func (a *app) conceal(rawURL string) { a.secrets = append(a.secrets, secretsOf(rawURL)...) }

// secretsOf are the passwords and tokens of a URL, as they are and as they are written. The hosts may be several, which package url does not read.
func secretsOf(rawURL string) (secrets []string) {
	_, rest, _ := strings.Cut(rawURL, "://")
	rest, query, _ := strings.Cut(rest, "?")
	authority, _, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		if _, pw, ok := strings.Cut(authority[:at], ":"); ok {
			secrets = append(secrets, pw)
			if plain, err := url.PathUnescape(pw); err == nil {
				secrets = append(secrets, plain)
			}
		}
	}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if name != "token" && !strings.HasSuffix(name, "password") && !strings.HasSuffix(name, "secret") {
			continue
		}
		secrets = append(secrets, value)
		if plain, err := url.QueryUnescape(value); err == nil {
			secrets = append(secrets, plain)
		}
	}
	slices.Sort(secrets)
	return slices.DeleteFunc(slices.Compact(secrets), func(s string) bool { return s == "" })
}

// userinfo is what may be a user with a password, which may have any character that it should not have: up to the last @ before a blank.
var userinfo = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s]*@`)

// clean takes credentials out of what is to be shown. Errors of the module have none; a command line may.
func (a *app) clean(s string) string {
	for _, secret := range a.secrets {
		if len(secret) > 2 {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return userinfo.ReplaceAllString(s, "${1}***@")
}
