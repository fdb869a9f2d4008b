package dlq

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// lines reads lines of any length up to a bound.
type lines struct {
	r *bufio.Reader
	n int // of the line that was read last
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, 64<<10)} }

// next returns a line without its end, io.EOF behind the last one. It is valid until the next call.
func (l *lines) next() (line []byte, err error) {
	l.n++
	for {
		part, err := l.r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > maxLine:
			return nil, fmt.Errorf("line %d has more than %d bytes", l.n, maxLine)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0, err == nil:
			return line, nil
		default:
			return nil, err
		}
	}
}
