package bench_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/bench"
)

// impatient is for runs that wait for what never comes; on a busy machine it may give up on what would have come.
const impatient = 50 * time.Millisecond

func small(variant string) bench.Options {
	return bench.Options{Broker: "shelf", Server: "1.2", Variant: variant, Reps: 3, Each: 2 * time.Millisecond, Log: io.Discard}
}

// broken is the sound plug with a fault.
func broken(fault func(*bench.Client)) bench.Plug {
	p := bench.Ideal()
	open := p.Open
	p.Impl = "broken"
	p.Open = func(ctx context.Context) (*bench.Client, error) {
		c, err := open(ctx)
		if err == nil && fault != nil {
			fault(c)
		}
		return c, err
	}
	return p
}

func named(impl string, p bench.Plug) bench.Plug {
	p.Impl = impl
	return p
}

var (
	publish   = bench.Shape{Op: bench.Publish, Form: bench.Async, Callers: 1, Size: 64}
	batches   = bench.Shape{Op: bench.Publish, Form: bench.Batched, Callers: 1, Size: 64}
	blocking  = bench.Shape{Op: bench.Publish, Form: bench.Blocking, Callers: 4, Size: 64}
	consume   = bench.Shape{Op: bench.Consumed, Workers: 1, Size: 64}
	keyed     = bench.Shape{Op: bench.Consumed, Workers: 4, Keys: 10, Size: 64}
	latency   = bench.Shape{Op: bench.Latency, Callers: 2, Workers: 1, Rate: 1000, Size: 64}
	roundTrip = bench.Shape{Op: bench.RoundTrip, Form: bench.Async, Workers: 1, Groups: 3, Size: 64}
	tiny      = bench.Shape{Op: bench.RoundTrip, Form: bench.Blocking, Workers: 1, Size: 1}
)

func TestSoundPlugPassesEveryShape(t *testing.T) {
	shapes := []bench.Shape{publish, batches, blocking, consume, keyed, latency, roundTrip, tiny,
		{Op: bench.Consumed, Workers: 4, Work: time.Millisecond, Size: 64}}
	r, err := bench.Run(t.Context(), small("sound"), []bench.Plug{named(bench.Raw, bench.Ideal()), named("other", bench.Ideal())}, shapes)
	if err != nil {
		t.Fatal(err)
	}
	if want := 2*len(shapes) + 1; len(r.Rows) != want { // the last has a row for what handlers could do at best
		t.Fatalf("%d rows, want %d", len(r.Rows), want)
	}
	for _, row := range r.Rows {
		if row.Reps != 3 || row.MsgsPerS <= 0 || row.RatioToRaw == nil {
			t.Errorf("%+v", row)
		}
		if lat := row.Op == string(bench.Latency); lat != (row.P50 != nil) || lat != (row.P99 != nil) {
			t.Errorf("%s: p50 %v, p99 %v", row.Op, row.P50, row.P99)
		}
		if row.Wire != nil {
			t.Errorf("%s: bytes on a wire that does not exist", row.Op)
		}
	}
	if !r.Partial() {
		t.Error("3 repetitions are enough for a report")
	}
}

// A topic is filled in the form that the client asks for, and the messages of a key in their order.
func TestFill(t *testing.T) {
	var batches, alone atomic.Int64
	p := broken(func(c *bench.Client) {
		batch, one := c.PublishBatch, c.Publish
		c.Fill = bench.Blocking
		c.PublishBatch = func(ctx context.Context, topic string, ms []bench.Message) (int, error) {
			batches.Add(1)
			return batch(ctx, topic, ms)
		}
		c.Publish = func(ctx context.Context, topic string, m bench.Message) error {
			if alone.Add(1)%10 == 0 {
				runtime.Gosched() // so that another caller goes first
			}
			return one(ctx, topic, m)
		}
	})
	if _, err := bench.Run(t.Context(), small("fill"), []bench.Plug{p}, []bench.Shape{keyed, consume}); err != nil {
		t.Fatal(err)
	}
	if batches.Load() > 0 || alone.Load() == 0 {
		t.Errorf("%d batches and %d messages were published", batches.Load(), alone.Load())
	}
}

// Whatever makes a figure wrong must fail the run.
func TestRunFails(t *testing.T) {
	isEvery := func(n int64) func() bool {
		var at atomic.Int64
		return func() bool { return at.Add(1)%n == 0 }
	}
	for name, c := range map[string]struct {
		shape bench.Shape
		fault func(*bench.Client)
		want  string
	}{
		"confirms what it does not store": {blocking, func(c *bench.Client) {
			store, drop := c.Publish, isEvery(100)
			c.Publish = func(ctx context.Context, topic string, m bench.Message) error {
				if drop() {
					return nil
				}
				return store(ctx, topic, m)
			}
		}, "lost: the broker holds"},
		"confirms what it does not store, and the broker does not say": {blocking, func(c *bench.Client) {
			store, drop := c.Publish, isEvery(100)
			c.Pending = nil
			c.Publish = func(ctx context.Context, topic string, m bench.Message) error {
				if drop() {
					return nil
				}
				return store(ctx, topic, m)
			}
		}, "lost: "},
		"confirms before it is stored": {publish, func(c *bench.Client) {
			stream := c.Stream
			c.Stream = func(ctx context.Context, topic string, confirmed func(int, error)) (bench.Stream, error) {
				st, err := stream(ctx, topic, func(int, error) {})
				send := st.Send
				var kept []bench.Message
				st.Send = func(m bench.Message) error {
					kept = append(kept, m)
					confirmed(1, nil)
					return nil
				}
				st.Flush = func(context.Context) error {
					time.AfterFunc(time.Millisecond, func() {
						for _, m := range kept {
							_ = send(m)
						}
					})
					return nil
				}
				return st, err
			}
		}, "lost: the broker holds 0 of"},
		"answers fewer than it took": {publish, func(c *bench.Client) {
			stream, drop := c.Stream, isEvery(100)
			c.Stream = func(ctx context.Context, topic string, confirmed func(int, error)) (bench.Stream, error) {
				return stream(ctx, topic, func(n int, err error) {
					if !drop() {
						confirmed(n, err)
					}
				})
			}
		}, "messages were confirmed"},
		"an answer is an error": {publish, func(c *bench.Client) {
			stream, drop := c.Stream, isEvery(100)
			c.Stream = func(ctx context.Context, topic string, confirmed func(int, error)) (bench.Stream, error) {
				return stream(ctx, topic, func(n int, err error) {
					if drop() {
						err = errors.New("refused")
					}
					confirmed(n, err)
				})
			}
		}, "refused"},
		"a batch is confirmed in part": {batches, func(c *bench.Client) {
			store := c.PublishBatch
			c.PublishBatch = func(ctx context.Context, topic string, ms []bench.Message) (int, error) {
				n, err := store(ctx, topic, ms)
				return n - 1, err
			}
		}, "messages were confirmed"},
		"does not deliver everything": {consume, func(c *bench.Client) {
			drop := isEvery(150)
			deliver(c, func(_ bench.Consume, handle func([]byte)) func([]byte) {
				return func(p []byte) {
					if !drop() {
						handle(p)
					}
				}
			})
		}, "lost: "},
		"says that nothing is pending from the start": {consume, func(c *bench.Client) {
			drop := isEvery(150)
			c.Pending = func(context.Context, string, string) (int64, error) { return 0, nil }
			deliver(c, func(_ bench.Consume, handle func([]byte)) func([]byte) {
				return func(p []byte) {
					if !drop() {
						handle(p)
					}
				}
			})
		}, "lost: "},
		"never settles": {consume, func(c *bench.Client) {
			c.Pending = func(context.Context, string, string) (int64, error) { return 7, nil }
		}, "still not settled"},
		"delivers one message instead of another": {consume, func(c *bench.Client) {
			deliver(c, func(_ bench.Consume, handle func([]byte)) func([]byte) {
				var first []byte
				var at int
				return func(p []byte) {
					if at++; at == 1 {
						first = p
					} else if at == 100 {
						p = first
					}
					handle(p)
				}
			})
		}, "lost: "},
		"changes a payload": {consume, func(c *bench.Client) {
			twist := isEvery(100)
			deliver(c, func(_ bench.Consume, handle func([]byte)) func([]byte) {
				return func(p []byte) {
					if twist() {
						p = slices.Clone(p)
						p[len(p)-1]++
					}
					handle(p)
				}
			})
		}, "not what was sent"},
		"turns two messages of a key round": {keyed, func(c *bench.Client) {
			swap := isEvery(70) // not at the very end, where nothing of the key follows
			deliver(c, func(_ bench.Consume, handle func([]byte)) func([]byte) {
				var mu sync.Mutex
				var kept []byte
				return func(p []byte) {
					mu.Lock()
					defer mu.Unlock()
					switch {
					case kept != nil && (p[0]-kept[0])%10 == 0:
						handle(p)
						handle(kept)
						kept = nil
					case kept == nil && swap():
						kept = p
					default:
						handle(p)
					}
				}
			})
		}, "after a later one of their key"},
		"loses one at 1000 a second": {latency, func(c *bench.Client) {
			deliver(c, func(_ bench.Consume, handle func([]byte)) func([]byte) {
				var at int
				return func(p []byte) {
					if at++; at != 7 {
						handle(p)
					}
				}
			})
		}, "lost: "},
		"one group of three gets less": {roundTrip, func(c *bench.Client) {
			drop := isEvery(10)
			deliver(c, func(s bench.Consume, handle func([]byte)) func([]byte) {
				if s.Group != "g2" {
					return handle
				}
				return func(p []byte) {
					if !drop() {
						handle(p)
					}
				}
			})
		}, "lost: "},
		"cannot close": {consume, func(c *bench.Client) {
			c.Close = func(context.Context) error { return errors.New("stuck") }
		}, "stuck"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			o := small("broken")
			if strings.HasPrefix(c.want, "lost: ") || c.want == "still not settled" {
				o.Patience = impatient
			}
			r, err := bench.Run(t.Context(), o, []bench.Plug{broken(c.fault)}, []bench.Shape{c.shape})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if !strings.Contains(err.Error(), "broken: ") || len(r.Rows) > 0 {
				t.Errorf("error %v, rows %+v: the plug is to be named, and to have no row", err, r.Rows)
			}
		})
	}
}

// deliver puts what wrap makes between a client and the handlers.
func deliver(c *bench.Client, wrap func(s bench.Consume, handle func([]byte)) func([]byte)) {
	consume := c.Consume
	c.Consume = func(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
		return consume(ctx, s, wrap(s, handle))
	}
}

// A message that comes twice counts once, and cannot stand for one that was lost.
func TestDuplicatesCountOnce(t *testing.T) {
	for _, lost := range []bool{false, true} {
		p := broken(func(c *bench.Client) {
			deliver(c, func(_ bench.Consume, handle func([]byte)) func([]byte) {
				var at int
				return func(p []byte) {
					if at++; at == 100 && lost {
						return
					}
					handle(p)
					handle(p)
				}
			})
		})
		o := small("twice")
		if lost {
			o.Patience = impatient
		}
		r, err := bench.Run(t.Context(), o, []bench.Plug{p}, []bench.Shape{consume})
		if lost != (err != nil) || lost != (len(r.Rows) == 0) {
			t.Errorf("lost=%v: error %v, %d rows", lost, err, len(r.Rows))
		}
	}
}

func TestWireBytesAreThoseOfTheRepetition(t *testing.T) {
	var bytes atomic.Int64
	p := broken(func(c *bench.Client) {
		store := c.PublishBatch
		c.Wire = bytes.Load
		c.PublishBatch = func(ctx context.Context, topic string, ms []bench.Message) (int, error) {
			bytes.Add(int64(100 * len(ms)))
			return store(ctx, topic, ms)
		}
	})
	r, err := bench.Run(t.Context(), small("wire"), []bench.Plug{p}, []bench.Shape{batches})
	if err != nil {
		t.Fatal(err)
	}
	if w := r.Rows[0].Wire; w == nil || *w != 100 {
		t.Errorf("%v bytes a message, want 100", w)
	}
}

// What the frame itself allocates would stand in every row as the client's.
func TestFrameAllocatesNothingPerMessage(t *testing.T) {
	o := small("lean")
	o.Each = 20 * time.Millisecond
	r, err := bench.Run(t.Context(), o, []bench.Plug{bench.Ideal()}, []bench.Shape{publish, batches, blocking, consume, keyed, roundTrip})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range r.Rows {
		if row.Allocs > 0.5 {
			t.Errorf("%s %s: %v allocations a message", row.Op, row.Shape, row.Allocs)
		}
	}
}

// What an implementation does not offer is left out and named; it is no failure, and leaves the report whole.
func TestNotOffered(t *testing.T) {
	p := broken(func(c *bench.Client) {
		c.Stream = nil
		consume := c.Consume
		c.Consume = func(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
			if s.Keyed {
				return nil, bench.NotOffered("it knows no keys")
			}
			return consume(ctx, s, handle)
		}
	})
	o := small("part")
	o.Reps = bench.FewReps
	r, err := bench.Run(t.Context(), o, []bench.Plug{named(bench.Raw, bench.Ideal()), p}, []bench.Shape{publish, keyed, consume})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 4 || r.Partial() {
		t.Errorf("%d rows, partial %v", len(r.Rows), r.Partial())
	}
	var table strings.Builder
	r.Table(&table)
	for _, want := range []string{"broken, no asynchronous publish: 1 rows", "broken, it knows no keys: 1 rows", "raw: no broker: workers take messages from a slice"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table does not say %q:\n%s", want, &table)
		}
	}
}

func TestOnlySomeRowsIsAPartOfARun(t *testing.T) {
	o := small("some")
	o.Reps, o.Only = bench.FewReps, regexp.MustCompile("Consume")
	r, err := bench.Run(t.Context(), o, []bench.Plug{bench.Ideal()}, []bench.Shape{publish, consume})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 1 || r.Rows[0].Op != "consume" || !r.Partial() {
		t.Errorf("rows %+v, partial %v", r.Rows, r.Partial())
	}
}

func TestInterruptedRunIsVoid(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	o, stopped := small("some"), errors.New("somebody pressed Ctrl-C")
	p := broken(func(c *bench.Client) {
		c.Close = func(context.Context) error { cancel(stopped); return nil }
	})
	if _, err := bench.Run(ctx, o, []bench.Plug{p}, []bench.Shape{publish, consume}); !errors.Is(err, stopped) {
		t.Errorf("error %v", err)
	}
}

// The shapes that every broker gets have names of their own: a row is found by its name.
func TestShapeNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range slices.Concat(bench.Shapes(), bench.Scaling(), bench.InProcess()) {
		if name := s.Name(); seen[name] || strings.ContainsAny(name, " \t") {
			t.Errorf("name %q", name)
		}
		seen[s.Name()] = true
	}
}

// The report has the fields of omnibus.bench/1, all of them and no others.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	r, err := bench.Run(t.Context(), small("v1"), []bench.Plug{named(bench.Raw, bench.Ideal()), named("other", bench.Ideal())}, []bench.Shape{consume, latency})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "bench-shelf-v1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	fields(t, got, "broker", "rows", "schema", "server_version")
	if got["schema"] != "omnibus.bench/1" || got["broker"] != "shelf" || got["server_version"] != "1.2" {
		t.Errorf("%v, %v, %v", got["schema"], got["broker"], got["server_version"])
	}
	rows := got["rows"].([]any)
	if len(rows) != 4 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, r := range rows {
		row := r.(map[string]any)
		fields(t, row, "allocs_per_msg", "callers", "cpu_ns_per_msg", "impl", "msgs_per_s", "op", "p50_us", "p99_us", "ratio_to_raw", "reps", "shape", "size", "wire_bytes_per_msg")
		ratio := row["ratio_to_raw"].(map[string]any)
		fields(t, ratio, "max", "median", "min")
		if lo, mid, hi := ratio["min"].(float64), ratio["median"].(float64), ratio["max"].(float64); lo > mid || mid > hi || lo <= 0 {
			t.Errorf("ratio %v", ratio)
		}
		if row["impl"] == "raw" && ratio["median"] != 1.0 {
			t.Errorf("raw's median repetition is %v of its median", ratio["median"])
		}
	}

	text, err := os.ReadFile(filepath.Join(dir, "bench-shelf-v1.txt"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^Benchmark\S+/impl=(raw|other)-\d+\t\d+\t[\d.]+ ns/op\t.*[\d.]+ allocs/op$`)
	if n := len(line.FindAll(text, -1)); n != 4*3 {
		t.Errorf("%d benchmark lines, want one for each of 3 repetitions of 4 rows:\n%s", n, text)
	}
}

func fields(t *testing.T, m map[string]any, want ...string) {
	t.Helper()
	var got []string
	for k := range m {
		got = append(got, k)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("fields %q, want %q", got, want)
	}
}
