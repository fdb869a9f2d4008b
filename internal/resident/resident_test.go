package resident_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/omnibus-go/omnibus/internal/resident"
)

// What is used shows, by whichever way it is weighed.
func TestWhatIsUsedShows(t *testing.T) {
	const more, slack = 64 << 20, 8 << 20
	weigh := func() (all []int64) {
		return []int64{resident.Bytes(), resident.BytesBy("/there/is/no/such/file")}
	}
	runtime.GC() // what others have left is not used again
	before := weigh()
	used := make([]byte, more)
	for i := 0; i < more; i += os.Getpagesize() {
		used[i] = 1 // else it is no memory yet
	}
	for i, n := range weigh() {
		if n-before[i] < more-slack {
			t.Errorf("way %d: %d MiB more are used, and it says %d MiB, before %d MiB", i, more>>20, n>>20, before[i]>>20)
		}
	}
	runtime.KeepAlive(used)
}

func TestStatm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "statm")
	for text, pages := range map[string]int{"100 7 3 1 0 2 0\n": 7, "100": 0, "a b c": 0} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n := resident.BytesBy(path); pages > 0 && n != int64(pages*os.Getpagesize()) || n <= 0 {
			t.Errorf("%q: %d bytes", text, n)
		}
	}
}
