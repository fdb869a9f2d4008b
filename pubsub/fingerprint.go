package pubsub

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
)

// maxChain bounds the errors that a fingerprint goes by.
const maxChain = 32

// Fingerprint is the same for failures of the same kind: it goes by the category of err, see CategoryOf, by the types of err and of all that it
// wraps, and by the function that panicked or called WithStack. It never goes by texts, which hold ids and times. It is short, begins with its
// version, and is "" for nil.
func Fingerprint(err error) string {
	if err == nil {
		return ""
	}
	h := sha256.New()
	if category := CategoryOf(err); category != "" {
		fmt.Fprintf(h, "category %q\n", category)
	}
	for _, t := range errorTypes(nil, err) {
		fmt.Fprintln(h, t)
	}
	if p, ok := errors.AsType[*panicError](err); ok {
		fmt.Fprintln(h, panicked(string(p.stack)))
	} else if s, ok := errors.AsType[*stackError](err); ok {
		fmt.Fprintln(h, s.place())
	}
	return fmt.Sprintf("v1-%x", h.Sum(nil)[:8])
}

// errorTypes lists the types of err and of what it wraps, depth first, without what this package puts around an error.
func errorTypes(list []string, err error) []string {
	if err == nil || len(list) >= maxChain {
		return list
	}
	switch err.(type) { //nolint:errorlint // this one alone: the walk comes to the others
	case *outcome, *stackError:
	default:
		list = append(list, fmt.Sprintf("%T", err))
	}
	switch u := err.(type) { //nolint:errorlint // the same
	case interface{ Unwrap() error }:
		return errorTypes(list, u.Unwrap())
	case interface{ Unwrap() []error }:
		for _, e := range u.Unwrap() {
			list = errorTypes(list, e)
		}
	}
	return list
}

// panicked is the function that called panic, out of a stack as debug.Stack writes it: lines of functions, each followed by a line of where.
func panicked(stack string) string {
	lines := strings.Split(stack, "\n")
	found := ""
	for i := 1; i < len(lines); i += 2 { // the first names the goroutine
		if !strings.HasPrefix(lines[i], "panic(") {
			continue
		}
		for j := i + 2; j < len(lines); j += 2 { // a later one is deeper: the first panic, where a deferred call has panicked again
			if name := lines[j]; !strings.HasPrefix(name, "runtime.") {
				if at := strings.LastIndexByte(name, '('); at > 0 {
					name = name[:at]
				}
				found = name
				break
			}
		}
	}
	return found
}
