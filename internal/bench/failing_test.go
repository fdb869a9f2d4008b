package bench_test

import (
	"context"
	"encoding/binary"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/internal/bench"
)

// retrying is the sound plug, made to try again what has failed. miss says which payloads it loses.
func retrying(miss func(num uint64) bool) bench.Plug {
	return broken(func(c *bench.Client) {
		consume := c.Consume
		c.Retries = true
		c.Consume = func(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
			return consume(ctx, s, func(p []byte) {
				for attempt := 1; s.Fails != nil && s.Fails(p, attempt); attempt++ {
					if most, _, _ := s.Shape.RetryPolicy(); attempt == most {
						return
					}
				}
				if miss == nil || !miss(binary.LittleEndian.Uint64(p)) {
					handle(p)
				}
			})
		}
	})
}

func shrunk() (all []bench.Shape) {
	for _, sh := range bench.Failing() {
		sh.Size, sh.Keys = 64, min(sh.Keys, 50)
		all = append(all, sh)
	}
	return all
}

func TestFailingShapes(t *testing.T) {
	o := small("failing")
	r, err := bench.Run(t.Context(), o, []bench.Plug{retrying(nil), named(bench.Raw, bench.Ideal())}, shrunk())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != len(shrunk()) {
		t.Errorf("%d rows, want %d: those of the one that retries", len(r.Rows), len(shrunk()))
	}
	var out strings.Builder
	r.Table(&out)
	for _, want := range []string{"keys=50/strict ", "keys=50/loose ", "strict/poisoned=1in100", "loose/poisoned=1in100", "workers=1/failsonce",
		"raw, no retries that others do not wait for: 5 rows"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table does not say %q\n%s", want, &out)
		}
	}
}

// What has a key with a poisoned message may be lost, as far as the row says; of the others nothing.
func TestFailingShapesLoseNoOthers(t *testing.T) {
	const keys = 50
	poisoned := shrunk()[1]
	for name, c := range map[string]struct {
		miss func(num uint64, bad map[uint64]bool) bool
		want string
	}{
		"of the poisoned keys": {func(num uint64, bad map[uint64]bool) bool { return bad[num%keys] }, ""},
		"of another key":       {func(num uint64, bad map[uint64]bool) bool { return num > keys && !bad[num%keys] && num%7 == 0 }, "lost"},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			bad := map[uint64]bool{} // as the plug sees it
			p := retrying(func(num uint64) bool {
				mu.Lock()
				defer mu.Unlock()
				return c.miss(num, bad)
			})
			open := p.Open
			p.Open = func(ctx context.Context) (*bench.Client, error) {
				cl, err := open(ctx)
				inner := cl.Consume
				cl.Consume = func(ctx context.Context, s bench.Consume, handle func([]byte)) (func(context.Context) error, error) {
					mu.Lock()
					clear(bad)
					for num := range uint64(200) { // so many there are in 50 ms of Each
						p := make([]byte, 64)
						binary.LittleEndian.PutUint64(p, num)
						if s.Fails(p, 1) {
							bad[num%keys] = true
						}
					}
					mu.Unlock()
					return inner(ctx, s, handle)
				}
				return cl, err
			}
			o := bench.Options{Broker: "shelf", Variant: "x", Reps: 1, Each: 50 * time.Millisecond, Log: io.Discard, Patience: 5 * impatient}
			_, err := bench.Run(t.Context(), o, []bench.Plug{p}, []bench.Shape{poisoned})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
