package dlq

import (
	"bufio"
	"errors"
	"io"
)

// lines reads lines of any length up to a bound.
type lines struct {
	r *bufio.Reader
	n int // of the line that was read last
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, 64<<10)} }

var errLongLine = errors.New("it is longer than any dead letter that export writes: 100 MiB; is this its file, with a line for each?")

// next returns a line without its end, io.EOF behind the last one, and errLongLine for one that is passed over. It is valid until the next call.
func (l *lines) next() (line []byte, err error) {
	l.n++
	long := false
	for {
		part, err := l.r.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxLine; long {
			line = line[:0] // nobody needs it, and it may have no end
		}
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case long && (err == nil || errors.Is(err, io.EOF)):
			return nil, errLongLine
		case errors.Is(err, io.EOF) && len(line) > 0, err == nil:
			return line, nil
		default:
			return nil, err
		}
	}
}
