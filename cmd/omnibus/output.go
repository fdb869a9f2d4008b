package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// An output is all that the command writes: results to w, progress and errors to errW. Safe for concurrent use.
type output struct {
	w, errW        io.Writer
	json           bool
	colour         bool // of w
	live           bool // w is a terminal, on which text can be written again
	progressing    bool // errW is a terminal
	errColour      bool
	mu             sync.Mutex
	progress       string // that stands in the last line of the terminal
	failed         error  // the first error of writing to w
	lastProgressAt time.Time
}

func newOutput(w, errW io.Writer, getenv func(string) string) *output {
	colourful := getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
	return &output{w: w, errW: errW, colour: colourful && isTerminal(w), live: isTerminal(w),
		progressing: isTerminal(errW), errColour: colourful && isTerminal(errW)}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || f.Name() == os.DevNull {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

type style string

const (
	bold   style = "1"
	dim    style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
)

// paint puts a text that has no control characters into a style.
func (o *output) paint(s style, text string) string { return paint(o.colour, s, text) }

func paint(colour bool, s style, text string) string {
	if !colour || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// write writes at once, so that nothing is acked that is not out yet. The first error stays, and becomes that of the run; the caller looks at it
// only where it goes on otherwise.
func (o *output) write(text string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wipe()
	_, err := io.WriteString(o.w, text)
	if err != nil && o.failed == nil {
		o.failed = err
	}
	return err
}

func (o *output) printf(format string, args ...any) error {
	return o.write(fmt.Sprintf(format, args...))
}

// sayf is printf for what is followed by nothing else: an error is the run's anyway.
func (o *output) sayf(format string, args ...any) { _ = o.printf(format, args...) }

// value writes v as one line of JSON.
func (o *output) value(v any) error {
	text, err := marshal(v)
	if err != nil {
		return err
	}
	return o.write(string(text) + "\n")
}

// marshal is json.Marshal for readers that are no web pages but may be terminals: <, > and & stay.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return harmless(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), err
}

// harmless is the same JSON with what a terminal obeys written as escapes: package json leaves control characters from U+007F on as they are, and those that
// turn the direction of a text. JSON has them in its strings only.
func harmless(text []byte) []byte {
	obeyed := func(r rune) bool { return r >= 0x7f && unicode.In(r, unicode.Cc, unicode.Cf) }
	if !bytes.ContainsFunc(text, obeyed) {
		return text
	}
	var out []byte
	for _, r := range string(text) {
		if !obeyed(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return out
}

// table writes rows below a head in columns. Cells may be painted, all of a column or none.
func (o *output) table(head []string, rows [][]string) error { return o.write(o.tableText(head, rows)) }

func (o *output) tableText(head []string, rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
	lines := strings.Split(b.String(), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	lines[0] = o.paint(bold, lines[0])
	return strings.Join(lines, "\n")
}

// notef tells people something that is no result.
func (o *output) notef(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wipe()
	fmt.Fprintf(o.errW, format+"\n", args...)
}

// warn tells of what may be a mistake and is no error.
func (o *output) warn(text string) {
	if o.json {
		if line, err := marshal(map[string]string{"warning": text}); err == nil {
			o.notef("%s", line)
			return
		}
	}
	o.notef("%s %s", paint(o.errColour, yellow, "warning:"), printable(text, false))
}

// complain tells of an error.
func (o *output) complain(c complaint) {
	if o.json {
		text, err := marshal(map[string]complaint{"error": c})
		if err == nil {
			o.notef("%s", text)
			return
		}
	}
	hint := ""
	if c.Hint != "" {
		hint = "\n  " + printable(c.Hint, false)
	}
	o.notef("%s %s%s", paint(o.errColour, red, "omnibus:"), printable(c.Message, true), paint(o.errColour, dim, hint))
}

// setProgress shows how far something is, on a terminal only, and there at most ten times a second unless it must.
func (o *output) setProgress(must bool, text func() string) {
	if !o.progressing || o.json {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	const often = 100 * time.Millisecond
	now := time.Now()
	if !must && now.Sub(o.lastProgressAt) < often {
		return
	}
	o.wipe()
	o.lastProgressAt, o.progress = now, text()
	fmt.Fprint(o.errW, o.progress)
}

// newline says that the terminal has gone to the next line, and the progress is not to be removed.
func (o *output) newline() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.progress = ""
}

func (o *output) endProgress() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wipe()
}

// wipe removes the progress; what is written next begins in an empty line. mu is held.
func (o *output) wipe() {
	if o.progress != "" {
		fmt.Fprint(o.errW, "\r\x1b[K")
		o.progress = ""
	}
}

// bar draws how much of something is done, with the time that the rest takes at the same pace: not of the first moment, which says nothing of it.
func bar(done, total int, since time.Duration) string {
	const width, moment = 30, 50 * time.Millisecond
	part := 1.0
	if total > 0 {
		part = float64(done) / float64(total)
	}
	full := int(part * width)
	eta := ""
	if done > 0 && done < total && since >= moment {
		eta = ", " + time.Duration(float64(since)/float64(done)*float64(total-done)).Round(100*time.Millisecond).String() + " left"
	}
	return fmt.Sprintf("[%s%s] %3.0f %%  %d of %d%s", strings.Repeat("=", full), strings.Repeat(" ", width-full), 100*part, done, total, eta)
}

// round keeps what matters of a duration.
func round(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Minute, time.Second, time.Millisecond} {
		if d >= 10*unit {
			return d.Round(unit / 10)
		}
	}
	return d.Round(10 * time.Microsecond)
}

// printable is text that cannot move the cursor or change what a terminal shows: control characters and bytes that are no UTF-8 are
// written as escapes.
func printable(s string, lines bool) string {
	clean := func(r rune) bool {
		return r != utf8.RuneError && (unicode.IsPrint(r) || lines && (r == '\n' || r == '\t'))
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !clean(r) }) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case clean(r) || r == utf8.RuneError:
			b.WriteString(s[:n])
		case r == '\n':
			b.WriteString(`\n`)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[n:]
	}
	return b.String()
}

// commandLine joins words so that a shell takes them apart again.
func commandLine(words ...string) string {
	plain := regexp.MustCompile(`^[A-Za-z0-9_.,:/@%+=-]+$`)
	quoted := make([]string, len(words))
	for i, w := range words {
		if quoted[i] = w; !plain.MatchString(w) {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// broken says that w takes no more.
func (o *output) broken() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed != nil
}

// counted is a number of things that are called what.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
