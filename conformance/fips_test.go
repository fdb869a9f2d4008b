package conformance_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/conformance"
)

// Every attack is refused as well where only what FIPS 140 allows may be used. The clock is a real one: from its jitter come the random numbers there.
func TestAttacksInFIPSMode(t *testing.T) {
	t.Parallel()
	if fips140.Enforced() {
		h := onMemory()
		h.Wrap = nil
		conformance.Run(t, h)
		return
	}
	attacks := 0
	for _, p := range conformance.Properties() {
		if p.Group() == "Security" {
			attacks++
		}
	}
	const notRun = 5 // memory has no network
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^TestAttacksInFIPSMode$/^Security$")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if passed := strings.Count(string(out), "--- PASS: TestAttacksInFIPSMode/Security/"); err != nil || passed != attacks-notRun {
		t.Errorf("with GODEBUG=fips140=only %d of %d properties hold: %v\n%s", passed, attacks-notRun, err, out)
	}
}
