package tinkkeys_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Where only what FIPS 140 allows may be used signing keys sign, as the package's documentation says.
func TestFIPS(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^TestSigningKeys")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if passed := strings.Count(string(out), "--- PASS: "); err != nil || passed < 3 {
		t.Errorf("with GODEBUG=fips140=only %d tests pass: %v\n%s", passed, err, out)
	}
}
