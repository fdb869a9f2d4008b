package brokertest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// A screen is what a terminal shows of what is written to it, as far as the command writes: lines, colours, a last line that is written again.
type screen struct {
	lines  []string // that are finished
	line   []rune
	at     int // where the next character goes
	rest   []byte
	begun  time.Time
	frames []frame
}

// A frame is the bar of a progress as it stood at a moment: nothing is left of it in the end.
type frame struct {
	below int // so many lines
	since time.Duration
	text  string
}

func newScreen() *screen { return &screen{begun: time.Now()} }

func (s *screen) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	for len(s.rest) > 0 {
		n, err := s.take()
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break // the rest of it is still to come
		}
		s.rest = s.rest[n:]
	}
	if text := string(s.line); strings.HasPrefix(text, "[") && strings.Contains(text, " %  ") {
		if i := len(s.frames) - 1; i < 0 || s.frames[i].text != text {
			s.frames = append(s.frames, frame{len(s.lines), time.Since(s.begun), text})
		}
	}
	return len(p), nil
}

// take shows the next character, and returns how many bytes it has.
func (s *screen) take() (int, error) {
	switch c := s.rest[0]; {
	case c == '\r':
		s.at = 0
	case c == '\n':
		s.lines, s.line, s.at = append(s.lines, strings.TrimRight(string(s.line), " ")), nil, 0
	case c == '\x1b':
		end := slices.IndexFunc(s.rest, func(c byte) bool { return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' })
		switch {
		case end < 0:
			return 0, nil
		case s.rest[end] == 'K':
			s.line = s.line[:min(s.at, len(s.line))]
		case s.rest[end] != 'm': // a colour
			return 0, fmt.Errorf("this is no escape that the command writes: %q", s.rest[:end+1])
		}
		return end + 1, nil
	case !utf8.FullRune(s.rest):
		return 0, nil
	default:
		r, n := utf8.DecodeRune(s.rest)
		if s.at < len(s.line) {
			s.line[s.at] = r
		} else {
			s.line = append(s.line, r)
		}
		s.at++
		return n, nil
	}
	return 1, nil
}

// text is what stands there, with the bar as it stood every so often.
func (s *screen) text(every time.Duration) string {
	var b strings.Builder
	frames, next := s.frames, time.Duration(0)
	draw := func(below int) {
		for len(frames) > 0 && frames[0].below <= below {
			if f := frames[0]; f.since >= next || len(frames) == 1 {
				b.WriteString(f.text + "\n")
				next = f.since + every
			}
			frames = frames[1:]
		}
	}
	for i, l := range s.lines {
		draw(i)
		b.WriteString(l + "\n")
	}
	draw(len(s.lines))
	if text := string(s.line); text != "" && (len(s.frames) == 0 || s.frames[len(s.frames)-1].text != text) {
		b.WriteString(text + "\n")
	}
	return b.String()
}

func TestScreen(t *testing.T) {
	s := newScreen()
	for _, p := range []string{
		"\x1b[1mid  state\x1b[0m  \r\nx\xe2\x80", "\x93y\r\nsend? [y/N] ", "y\r\n", // a character and an escape that come in two pieces
		"[=   ]  25 %  1 of 4, 3s left", "\r\x1b[", "K[==  ]  50 %  2 of 4, 2s left", "\r\x1b[K4 of 4 replayed\r\n", "again\rA",
	} {
		if _, err := s.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	const want = "id  state\nx–y\nsend? [y/N] y\n[=   ]  25 %  1 of 4, 3s left\n[==  ]  50 %  2 of 4, 2s left\n4 of 4 replayed\nAgain\n"
	if got := s.text(0); got != want {
		t.Errorf("%q\nwant %q", got, want)
	}
	if got, want := s.text(time.Hour), strings.Replace(want, "[==  ]", "[==  ]", 1); got != want {
		t.Errorf("the first and the last are shown: %q", got)
	}
	if _, err := s.Write([]byte("\x1b[2J")); err == nil {
		t.Error("an escape that the command does not write is taken")
	}
}
