package middleware_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/omnibus-go/omnibus/memory"
	"github.com/omnibus-go/omnibus/middleware"
	"github.com/omnibus-go/omnibus/pubsub"
	"github.com/omnibus-go/omnibus/pubsubtest"
)

// Large payloads are small on the wire; handlers see nothing of it.
func ExampleCompress() {
	ctx := context.Background()
	b := memory.New(&pubsub.Options{Use: []pubsub.Middleware{middleware.Compress(1 << 10)}})
	defer b.Close()
	done := make(chan struct{})
	_, err := b.Subscribe(ctx, pubsub.Subscription{Topic: "reports", Group: "g"}, func(_ context.Context, d *pubsub.Delivery) error {
		fmt.Println(len(d.Payload), "bytes, on the wire fewer than 200:", len(d.Raw().Payload) < 200)
		close(done)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	if err := b.Publish(ctx, "reports", pubsub.Message{Payload: bytes.Repeat([]byte("all quiet\n"), 1000)}); err != nil {
		fmt.Println(err)
	}
	<-done
	// Output: 10000 bytes, on the wire fewer than 200: true
}

func gzipped(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// What goes in comes out, byte for byte, and the application's headers with it.
func TestCompressRoundTrip(t *testing.T) {
	random := make([]byte, 5000)
	rand.Read(random)
	text := []byte(strings.Repeat("0123456789", 500))
	for name, tt := range map[string]struct {
		m          pubsub.Message
		compressed bool
	}{
		"large":            {pubsub.Message{Payload: text}, true},
		"with headers":     {pubsub.Message{Payload: text, Headers: pubsub.Headers{{Name: "a", Value: "b"}, {Name: "a", Value: "c"}}}, true},
		"at the threshold": {pubsub.Message{Payload: text[:1000]}, true},
		"below it":         {pubsub.Message{Payload: text[:999]}, false},
		"not compressible": {pubsub.Message{Payload: random}, false},
		"nil":              {pubsub.Message{}, false},
		"empty":            {pubsub.Message{Payload: []byte{}}, false},
		"another encoding": {pubsub.Message{Payload: text, Headers: pubsub.Headers{{Name: "content-encoding", Value: "br"}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := pubsubtest.Open(t, opts(middleware.Compress(1000)))
				tt.m.ID = "1"
				b.Deliver(pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, d *pubsub.Delivery) error {
					if !bytes.Equal(d.Payload, tt.m.Payload) || (d.Payload == nil) != (tt.m.Payload == nil) {
						t.Errorf("the payload is not what was published")
					}
					if fmt.Sprint(d.Headers) != fmt.Sprint(tt.m.Headers) {
						t.Errorf("headers %v", d.Headers)
					}
					if raw := d.Raw(); (raw.Headers.Get("content-encoding") == "gzip") != tt.compressed || (len(raw.Payload) < len(tt.m.Payload)) != tt.compressed {
						t.Errorf("on the wire: %d bytes, %v", len(raw.Payload), raw.Headers)
					}
					return nil
				}, tt.m)[0].Want(t, pubsubtest.Fate{Acked: true, Attempts: 1})
			})
		})
	}
}

// The largest bound is none.
func TestCompressWithoutBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pubsubtest.Open(t, opts(middleware.CompressWith(middleware.CompressOptions{Max: math.MaxInt})))
		sent := pubsub.Message{ID: "1", Payload: bytes.Repeat([]byte("all quiet\n"), 10_000)}
		b.Deliver(pubsub.Subscription{Topic: "t", Group: "g"}, func(_ context.Context, d *pubsub.Delivery) error {
			if !bytes.Equal(d.Payload, sent.Payload) || len(d.Raw().Payload) >= len(sent.Payload) {
				t.Errorf("%d bytes came of %d, %d on the wire", len(d.Payload), len(sent.Payload), len(d.Raw().Payload))
			}
			return nil
		}, sent)[0].Want(t, pubsubtest.Fate{Acked: true, Attempts: 1})
	})
}

// What is not what it says it is, or too large, is given up as it came. The handler never sees it.
func TestCompressUndecodable(t *testing.T) {
	text := bytes.Repeat([]byte("x"), 20_000)
	whole := gzipped(t, text)
	broken := bytes.Clone(whole)
	broken[len(broken)-6] ^= 1 // the checksum
	for name, tt := range map[string]struct {
		payload []byte
		ok      bool
	}{
		"ours":                {gzipped(t, text[:10_000]), true},
		"of two members":      {append(gzipped(t, text[:5000]), gzipped(t, text[:5000])...), true},
		"one byte too large":  {gzipped(t, text[:10_001]), false},
		"much too large":      {whole, false},
		"not gzip":            {text, false},
		"empty":               {nil, false},
		"cut":                 {gzipped(t, text[:9000])[:25], false},
		"checksum":            {broken, false},
		"something behind it": {append(gzipped(t, text[:9000]), "tail"...), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sub := pubsub.Subscription{Topic: "t", Group: "g", Use: layers(middleware.CompressWith(middleware.CompressOptions{Max: 10_000}))}
				m := pubsub.Message{ID: "1", Payload: tt.payload, Headers: pubsub.Headers{{Name: "content-encoding", Value: "GZIP"}}}
				called := false
				fate := pubsubtest.Deliver(t, sub, func(context.Context, *pubsub.Delivery) error { called = true; return nil }, m)
				if tt.ok {
					fate.Want(t, pubsubtest.Fate{Acked: true})
				} else {
					fate.Want(t, pubsubtest.Fate{Reason: "undecodable"})
					if !bytes.Equal(fate.DeadLetter.Payload, tt.payload) || fate.DeadLetter.Headers.Get("content-encoding") != "GZIP" {
						t.Error("the dead letter is not as it came")
					}
				}
				if called != tt.ok {
					t.Errorf("called is %v", called)
				}
			})
		})
	}
}

// A bomb takes no more memory than the limit allows, whatever it says about its size.
func TestCompressBomb(t *testing.T) {
	bomb := gzipped(t, make([]byte, 2<<20))
	h := wrap(func(context.Context, *pubsub.Delivery) error { t.Error("called"); return nil }, middleware.CompressWith(middleware.CompressOptions{Max: 1 << 16}))
	for _, size := range [][]byte{{10, 0, 0, 0}, {255, 255, 255, 127}} {
		copy(bomb[len(bomb)-4:], size)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := h(t.Context(), &pubsub.Delivery{Message: pubsub.Message{Payload: bomb, Headers: pubsub.Headers{{Name: "content-encoding", Value: "gzip"}}}})
		runtime.ReadMemStats(&after)
		if o, _ := pubsub.OutcomeOf(err); o != pubsub.OutcomePermanent {
			t.Errorf("got %v", err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("%d bytes were allocated for a limit of 64 KiB", used)
		}
	}
}

// Nobody can publish what nobody could read.
func TestCompressTooLargeToPublish(t *testing.T) {
	b := memory.New(opts(middleware.CompressWith(middleware.CompressOptions{Max: 2000})))
	defer b.Close()
	if err := b.Publish(t.Context(), "t", pubsub.Message{Payload: make([]byte, 2001)}); !errors.Is(err, pubsub.ErrRefused) {
		t.Errorf("got %v", err)
	}
}

// Writers and readers are used again, by many at once.
func TestCompressConcurrently(t *testing.T) {
	layer := middleware.Compress(0)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 20 {
				want := strings.Repeat(fmt.Sprint(i, j), 1000+j)
				m := pubsub.Message{Payload: []byte(want)}
				if err := layer.Outgoing(context.Background(), "t", &m); err != nil {
					t.Error(err)
				}
				h := wrap(func(_ context.Context, d *pubsub.Delivery) error {
					if string(d.Payload) != want {
						t.Error("not what was published")
					}
					return nil
				}, layer)
				if err := h(context.Background(), &pubsub.Delivery{Message: m}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// Whatever comes: no panic, and either what was packed or an error.
func FuzzDecompress(f *testing.F) {
	f.Add(gzipped(f, []byte("hello")))
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Add([]byte{})
	layer := middleware.CompressWith(middleware.CompressOptions{Max: 1 << 16})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var got []byte
		h := wrap(func(_ context.Context, d *pubsub.Delivery) error { got = d.Payload; return nil }, layer)
		err := h(t.Context(), &pubsub.Delivery{Message: pubsub.Message{Payload: payload, Headers: pubsub.Headers{{Name: "content-encoding", Value: "gzip"}}}})
		if o, _ := pubsub.OutcomeOf(err); err != nil && o != pubsub.OutcomePermanent {
			t.Errorf("outcome %v", o)
		}
		if err == nil && len(got) > 1<<16 {
			t.Errorf("%d bytes", len(got))
		}
	})
}
