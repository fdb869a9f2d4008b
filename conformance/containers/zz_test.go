package containers_test

import (
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/conformance/containers"
)

func TestZZ(t *testing.T) {
	for _, v := range containers.Variants("kafka") {
		t.Run(v, func(t *testing.T) {
			begin := time.Now()
			b, err := containers.Start(t.Context(), "kafka", v)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s %s %s %v %v", v, b.URL(), b.Version(), b.Params.Mechanism, time.Since(begin))
			begin = time.Now()
			if err := b.Kill(t.Context()); err != nil {
				t.Error(err)
			}
			k := time.Since(begin)
			begin = time.Now()
			if err := b.Restart(t.Context()); err != nil {
				t.Error(err)
			}
			t.Logf("killed in %v, back in %v", k, time.Since(begin))
			if err := b.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
