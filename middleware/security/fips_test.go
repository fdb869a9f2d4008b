package security_test

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/omnibus-go/omnibus/middleware/security"
)

// Tests whose clock is virtual: the random numbers of FIPS 140 begin with the jitter of a real one.
const virtualClock = "^(TestTimes|TestRevokedBackdates|TestDataKeyRotates|TestKMSIsDown|TestUnwrappedKeysAreKept|TestReplayIsNotHandled)$"

// TestFIPS runs these tests again where only what FIPS 140 allows may be used.
func TestFIPS(t *testing.T) {
	if fips140.Enforced() {
		if _, err := security.GenerateKey(security.HPKEX25519, "k", "us"); err == nil {
			t.Error("a key of X25519 is made")
		}
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.skip="+virtualClock)
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if passed := strings.Count(string(out), "--- PASS: "); err != nil || passed < 20 {
		t.Errorf("with GODEBUG=fips140=only %d tests pass: %v\n%s", passed, err, out)
	}
}
