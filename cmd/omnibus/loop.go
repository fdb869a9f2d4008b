package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"
)

// again calls look at once, and then every d, until ctx ends, which is no error, or look fails.
func again(ctx context.Context, d time.Duration, look func() error) error {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		err := look()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// feed hands over what next reads, until next says io.EOF, which may come with the last of it, or ctx ends. A read cannot be interrupted: then it is left behind.
func feed(ctx context.Context, next func() ([]byte, error), take func([]byte) error) error {
	type part struct {
		text []byte
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := make(chan part)
	go func() {
		for {
			text, err := next()
			select {
			case parts <- part{text, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case p := <-parts:
			end := errors.Is(p.err, io.EOF)
			if p.err != nil && !end {
				return p.err
			}
			if len(p.text) > 0 || !end {
				if err := take(p.text); err != nil {
					return err
				}
			}
			if end {
				return nil
			}
		}
	}
}

// wholeOf reads all of it at once.
func wholeOf(in io.Reader) func() ([]byte, error) {
	read := false
	return func() ([]byte, error) {
		if read {
			return nil, io.EOF
		}
		read = true
		return io.ReadAll(in)
	}
}

// linesOf reads one line after the other, without its end.
func linesOf(in io.Reader) func() ([]byte, error) {
	r := bufio.NewReader(in)
	return func() ([]byte, error) {
		line, err := r.ReadBytes('\n')
		if n := len(line); n > 0 && line[n-1] == '\n' {
			line = line[:n-1]
		}
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		return line, err
	}
}
