package dlq

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/omnibus-go/omnibus/pubsub"
)

// An Imported says what became of the lines of an export.
type Imported struct {
	Stored  int           // dead letters that were added
	There   int           // were there already
	Invalid []InvalidLine // cannot be read, or not be stored
}

// An InvalidLine is a line that was passed over.
type InvalidLine struct {
	Line int   // the first is 1
	Err  error // why
}

// maxLine bounds a line: a message of 64 MiB, in base64. A longer one is passed over.
const maxLine = 100 << 20

// Import adds what Export has written to these dead letters, of the same or of another broker, and returns once the broker has confirmed all of it. What is
// there already is passed over: by its ID, or where it has none of its own by what is in it, as often as it is there. So it can be called again after an
// error, and then nothing is there twice, unless two imports run at once. A line that is no dead letter, or cannot be stored, does not stop the rest.
func (q *Queue) Import(ctx context.Context, r io.Reader, n Note) (Imported, error) {
	im := importer{q: q, note: n, call: rand.Text()}
	if err := im.look(ctx); err != nil {
		return im.done, err
	}
	lines := newLines(r)
	var failure error
	for failure == nil {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, errLongLine) {
			im.invalid(lines.n, err)
			continue
		}
		if err != nil {
			failure = q.fail("import", pubsub.ErrInvalid, err, "")
			break
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		im.take(ctx, line, lines.n)
		if len(im.flying) == window || im.bytes >= pageBytes {
			failure = im.flush(ctx)
		}
	}
	return im.done, errors.Join(failure, im.flush(ctx))
}

// An importer is one call of Import.
type importer struct {
	q      *Queue
	note   Note
	call   string // tells its tokens from those of another import: what was removed meanwhile is no duplicate
	done   Imported
	there  map[string]*holding
	flying []importing
	bytes  int // of their lines
}

// A holding is how often something lies there already, and how often it was met in the import.
type holding struct{ there, met int }

// importing is a dead letter on its way.
type importing struct {
	id     string
	line   int
	answer chan error
}

// look takes stock of what lies there.
func (im *importer) look(ctx context.Context) error {
	im.there = map[string]*holding{}
	for r, err := range im.q.browse(ctx, pubsub.Position{}) {
		if err != nil {
			return err
		}
		k, _ := identity(&r)
		im.holding(k).there++
	}
	return nil
}

func (im *importer) holding(k string) *holding {
	h := im.there[k]
	if h == nil {
		h = &holding{}
		im.there[k] = h
	}
	return h
}

// identity tells dead letters apart wherever they lie; own says that it is an ID which its writer gave it.
func identity(r *Record) (k string, own bool) {
	m := &r.Stored
	if id := m.Headers.Get(headerDead + "id"); id != "" {
		return "id " + id, true
	}
	parts := append(contents(m), strconv.FormatBool(m.Payload == nil))
	for _, h := range m.Headers {
		parts = append(parts, strconv.Itoa(int(h.Kind)))
	}
	sum := hash(parts...)
	return "of " + string(sum[:]), false
}

// invalid passes a line over.
func (im *importer) invalid(line int, err error) {
	im.done.Invalid = append(im.done.Invalid, InvalidLine{line, im.q.fail("import", pubsub.ErrInvalid, err, "")})
}

// take hands over what a line has, if it is not there yet.
func (im *importer) take(ctx context.Context, line []byte, number int) {
	q := im.q
	invalid := func(err error) { im.invalid(number, err) }
	var x exported
	if err := json.Unmarshal(line, &x); err != nil || x.Schema != exportSchema {
		invalid(errors.Join(errors.New("this is no dead letter"), err))
		return
	}
	if x.Undecodable != "" {
		invalid(fmt.Errorf("dead letter %q could not be decoded where it lay: %s", x.ID, x.Undecodable))
		return
	}
	m := x.Message.message()
	rec := read(pubsub.Record{Msg: &m})
	k, own := identity(&rec)
	h := im.holding(k)
	if h.met++; h.met <= h.there || own && h.met > 1 {
		im.done.There++
		return
	}
	var token pubsub.Dedup
	sum := hash("import", im.call, k, strconv.Itoa(h.met))
	copy(token[:], sum[:])
	answer := make(chan error, 1)
	im.flying = append(im.flying, importing{rec.ID, number, answer})
	im.bytes += len(line)
	q.b.Resend(ctx, q.place, m, token, func(_ pubsub.Receipt, err error) { answer <- err })
}

// flush waits for what is on its way, and writes the audit record of it.
func (im *importer) flush(ctx context.Context) error {
	var ids []string
	var failure error
	for _, x := range im.flying {
		var err error
		select {
		case err = <-x.answer:
		case <-ctx.Done():
			err = im.q.fail("import", pubsub.ErrCanceled, context.Cause(ctx), "nothing is lost: import it again")
		}
		switch {
		case err == nil:
			im.done.Stored++
			ids = append(ids, x.id)
		case ofMessage(err):
			im.done.Invalid = append(im.done.Invalid, InvalidLine{x.line, err})
		case failure == nil:
			failure = err
		}
	}
	im.flying, im.bytes = im.flying[:0], 0
	if len(ids) > 0 && im.q.place.Kind == pubsub.PlaceDead {
		_, err := im.q.tellOf(ctx, Entry{Operation: OpImport}, ids, im.note)
		failure = errors.Join(failure, err)
	}
	return failure
}
