package bench

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
)

// A corpus is the messages of a shape, made before any clock starts and the same for everyone. A payload of at least stampSize bytes
// begins with its message's number and ends with that number's lowest byte, so that whoever handles it can tell what it got.
type corpus struct {
	size, n  int
	payloads []byte
	ids      string
	keys     []string
	noise    *rand.ChaCha8
}

const (
	stampSize   = 16
	idSize      = 21 // as long as the ids that the engine makes
	contentType = "application/octet-stream"
)

// payloadBudget bounds what a corpus takes, and with it how many messages a repetition has; at small sizes maxMessages does.
const (
	payloadBudget = 96 << 20
	maxMessages   = 500_000
	manyMessages  = 100_000 // fewer flatter a client that fetches ahead
	manyBytes     = 32 << 20
)

// mostOf and leastOf bound how many messages of a size a repetition of consuming has.
func mostOf(size int) int  { return max(min(maxMessages, payloadBudget/max(size, 1)), 1) }
func leastOf(size int) int { return max(min(manyMessages, manyBytes/max(size, 1)), 1) }

func newCorpus(sh Shape) *corpus {
	c := &corpus{size: sh.Size, noise: rand.NewChaCha8([32]byte{})}
	for i := range sh.Keys {
		c.keys = append(c.keys, fmt.Sprintf("key-%05d", i))
	}
	return c
}

// extend makes the corpus at least n messages long. It is not called while a clock runs.
func (c *corpus) extend(n int) {
	if n <= c.n {
		return
	}
	from := c.n
	c.n = n
	c.payloads = slices.Grow(c.payloads, (n-from)*c.size)[:n*c.size]
	_, _ = c.noise.Read(c.payloads[from*c.size:]) // never fails
	ids := make([]byte, 0, n*idSize)
	ids = append(ids, c.ids...)
	for i := from; i < n; i++ {
		if p := c.payload(i); len(p) >= stampSize {
			binary.LittleEndian.PutUint64(p, uint64(i))
			p[len(p)-1] = byte(i)
		}
		ids = fmt.Appendf(ids, "%0*d", idSize, i)
	}
	c.ids = string(ids)
}

func (c *corpus) payload(i int) []byte { return c.payloads[i*c.size : (i+1)*c.size : (i+1)*c.size] }

func (c *corpus) message(i int) Message {
	m := Message{ID: c.ids[i*idSize : (i+1)*idSize], ContentType: contentType, Payload: c.payload(i)}
	if len(c.keys) > 0 {
		m.Key = c.keys[i%len(c.keys)]
	}
	return m
}
