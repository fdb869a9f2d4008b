package middleware

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"

	"github.com/omnibus-go/omnibus/pubsub"
)

const (
	headerEncoding = "content-encoding" // as HTTP has it: a client without this library knows what it is
	encodingGzip   = "gzip"

	defaultCompressFrom = 1 << 10
	defaultCompressMax  = 64 << 20
	firstGuess          = 1 << 20 // of memory for what a message says is its size
)

// CompressOptions tunes CompressWith. The zero value is safe.
type CompressOptions struct {
	From int // payloads of at least so many bytes are compressed; 0 = 1 KiB
	Max  int // bytes of a payload, decompressed: a larger one is refused when published, and given up when received; 0 = 64 MiB
}

// Compress compresses payloads of at least from bytes (0 = 1 KiB) with gzip, where that makes them smaller, and decompresses what it receives. The
// header content-encoding says so on the wire; handlers do not see it. Publishers and consumers both need the layer; what was not compressed passes. A
// payload that is no gzip though it says so, or is larger than 64 MiB (see CompressWith), is undecodable and given up, as it came: a small message cannot
// fill the memory. A message that the application has given a content-encoding is sent as it is; if that is gzip, the layer
// decompresses it at the other end all the same.
//
// Do not use it where the broker compresses whole batches (Kafka), which is cheaper and smaller, for payloads that are compressed already, or where
// messages hold secrets beside text that a stranger can choose: their length then tells of the secret, also when they are encrypted.
//
// 4 KiB of repetitive JSON cost about 13 µs to compress and 10 µs to decompress, with two to four allocations; a payload below the threshold costs nothing.
func Compress(from int) pubsub.Middleware { return CompressWith(CompressOptions{From: from}) }

// CompressWith is Compress with options.
func CompressWith(opts CompressOptions) pubsub.Middleware {
	m := pubsub.Middleware{
		Name: "compress", After: []string{"sign", "encrypt"},
		Why: "what is encrypted cannot be compressed, and a signature is made over what is on the wire",
	}
	switch {
	case opts.From < 0:
		m.Err = fmt.Errorf("From is %d; it cannot be negative", opts.From)
	case opts.Max < 0:
		m.Err = fmt.Errorf("Max is %d; it cannot be negative", opts.Max)
	}
	if opts.From == 0 {
		opts.From = defaultCompressFrom
	}
	if opts.Max == 0 {
		opts.Max = defaultCompressMax
	}
	opts.Max = min(opts.Max, math.MaxInt-1) // one more is read, to see the end
	g := &gzipper{opts: opts}
	m.Outgoing = g.outgoing
	m.Incoming = func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, d *pubsub.Delivery) error {
			if len(d.Headers) > 0 && strings.EqualFold(d.Headers.Get(headerEncoding), encodingGzip) {
				if err := g.incoming(&d.Message); err != nil {
					return pubsub.GiveUp(pubsub.ReasonUndecodable, fmt.Errorf("cannot be decompressed: %w", err))
				}
			}
			return next(ctx, d)
		}
	}
	return m
}

// A gzipper keeps writers and readers, which are some 800 KB and 40 KB, to be used again.
type gzipper struct {
	opts    CompressOptions
	writers sync.Pool // of *packer
	readers sync.Pool // of *unpacker
}

type packer struct {
	out bytes.Buffer
	w   *gzip.Writer
}

type unpacker struct {
	in bytes.Reader
	r  gzip.Reader
}

func (g *gzipper) outgoing(_ context.Context, _ string, m *pubsub.Message) error {
	if len(m.Payload) < g.opts.From {
		return nil
	}
	if len(m.Payload) > g.opts.Max {
		return fmt.Errorf("the payload has %d bytes, at most %d can be decompressed", len(m.Payload), g.opts.Max)
	}
	if _, encoded := m.Headers.Lookup(headerEncoding); encoded {
		return nil
	}
	p, ok := g.writers.Get().(*packer)
	if !ok {
		w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
		if err != nil {
			return err
		}
		p = &packer{w: w}
	}
	defer g.writers.Put(p)
	p.out.Reset()
	p.w.Reset(&p.out)
	if _, err := p.w.Write(m.Payload); err != nil {
		return err
	}
	if err := p.w.Close(); err != nil {
		return err
	}
	if p.out.Len() >= len(m.Payload) {
		return nil
	}
	m.Payload = bytes.Clone(p.out.Bytes())
	m.Headers.Add(headerEncoding, encodingGzip)
	return nil
}

func (g *gzipper) incoming(m *pubsub.Message) error {
	u, ok := g.readers.Get().(*unpacker)
	if !ok {
		u = new(unpacker)
	}
	defer func() {
		u.in.Reset(nil) // the payload is not ours to keep
		g.readers.Put(u)
	}()
	u.in.Reset(m.Payload)
	if err := u.r.Reset(&u.in); err != nil {
		return err
	}
	out := make([]byte, 0, g.guess(m.Payload))
	for {
		if len(out) == cap(out) {
			out = append(out, 0)[:len(out)]
		}
		n, err := u.r.Read(out[len(out):min(cap(out), g.opts.Max+1)])
		out = out[:len(out)+n]
		if len(out) > g.opts.Max {
			return fmt.Errorf("it has more than %d bytes", g.opts.Max)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	m.Payload = out
	m.Headers.Del(headerEncoding)
	if len(m.Headers) == 0 {
		m.Headers = nil
	}
	return nil
}

// guess is how much memory to begin with. The last bytes tell the size, and may lie.
func (g *gzipper) guess(packed []byte) int {
	if len(packed) < 4 {
		return 0
	}
	size := binary.LittleEndian.Uint32(packed[len(packed)-4:])
	return min(int(min(size, firstGuess)), g.opts.Max) + 1 // one more, to see its end
}
