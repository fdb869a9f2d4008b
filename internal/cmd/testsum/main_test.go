package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	for _, c := range []struct {
		file                    string
		passed, failed, skipped int
		shows                   []string
	}{
		{"ok.json", 2, 0, 0, []string{"ok   example.com/fx/a"}},
		{"failures.json", 3, 2, 1, []string{"--- FAIL example.com/fx/a TestSub/three/deep", "broken", "after its subtests", "no broker"}},
		{"build.json", 0, 1, 0, []string{"undefined: undefined"}},
		{"timeout.json", 1, 1, 0, []string{"test timed out after 2s", "goroutine ", "c.TestHang"}},
		{"main.json", 1, 1, 0, []string{"example.com/fx/e"}},
		{"notests.json", 0, 0, 0, nil},
		{"slashes.json", 2, 1, 0, []string{"--- FAIL example.com/fx/f TestSuite/Order/Strict", "broken"}}, // subtests with a slash in their own names, side by side
	} {
		t.Run(c.file, func(t *testing.T) {
			f, err := os.Open(filepath.Join("testdata", c.file))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var s step
			var out bytes.Buffer
			if err := count(f, &s, "TestFine", &out); err != nil {
				t.Fatal(err)
			}
			if s.Passed != c.passed || s.Failed != c.failed || s.Skipped != c.skipped {
				t.Errorf("%s, want %d, %d, %d", s.line(), c.passed, c.failed, c.skipped)
			}
			for _, want := range c.shows {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q", want)
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		code int
		last string
	}{
		{"tests pass", []string{"--", "cat", "testdata/ok.json"}, 0, "2 passed, 0 failed, 0 skipped"},
		{"a test fails, the command does not", []string{"--", "cat", "testdata/failures.json"}, 1, "3 passed, 2 failed, 1 skipped"},
		{"the command fails, no test does", []string{"--", "sh", "-c", "cat testdata/ok.json; exit 3"}, 1, "2 passed, 1 failed, 0 skipped"},
		{"left out", []string{"-not-run", "no broker"}, 0, "tests not run: no broker"},
		{"nothing ran", []string{"--", "cat", "testdata/notests.json"}, 1, "0 passed, 0 failed, 0 skipped"},
		{"no such command", []string{"--", "no-such-command-of-ours"}, 1, "0 passed, 1 failed, 0 skipped"},
		{"plain", []string{"-plain", "--", "true"}, 0, "1 passed, 0 failed, 0 skipped"},
		{"plain fails", []string{"-plain", "--", "false"}, 1, "0 passed, 1 failed, 0 skipped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			code := run(t.Context(), c.args, &out, &errOut)
			if got := lastLine(out.String()); code != c.code || got != c.last {
				t.Errorf("exit %d, last line %q; want %d, %q\n%s%s", code, got, c.code, c.last, &out, &errOut)
			}
		})
	}
}

func TestTotal(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"-name", "unit", "-against", "memory", "-record", dir, "--", "cat", "testdata/failures.json"},
		{"-plain", "-name", "quickstart", "-record", dir, "--", "true"},
		{"-not-run", "no broker", "-name", "nats", "-record", dir},
	} {
		var out, errOut bytes.Buffer
		run(t.Context(), args, &out, &errOut)
	}
	var out, errOut bytes.Buffer
	// unit is not counted twice; lint has no record of its own
	if code := run(t.Context(), []string{"-total", dir, "unit", "lint"}, &out, &errOut); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
	if got, want := lastLine(out.String()), "4 passed, 3 failed, 2 skipped"; got != want {
		t.Errorf("last line %q, want %q", got, want)
	}
	if !strings.Contains(out.String(), "against memory") || !strings.Contains(out.String(), "not run: no broker") {
		t.Errorf("it does not say what ran against what:\n%s", &out)
	}
	_, failures, _ := strings.Cut(out.String(), "what failed\n")
	for _, want := range []string{"--- FAIL example.com/fx/a TestSub/three/deep", "broken"} {
		if !strings.Contains(failures, want) {
			t.Errorf("it does not say what failed, %q:\n%s", want, &out)
		}
	}
}

func TestTotalOfNothing(t *testing.T) {
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"-total", t.TempDir()}, &out, &errOut); code != 1 {
		t.Errorf("exit %d, want 1", code)
	}
}

func TestReports(t *testing.T) {
	const sound = `{"schema": "omnibus.conformance/1", "broker": "kafka", "variant": "tls", "properties": [{"name": "Time/Delay", "status": "fail", "lost": 2}]}`
	for _, c := range []struct {
		name  string
		files map[string]string
		code  int
		shows []string
		page  bool
	}{
		{"none", nil, 0, []string{"no reports yet"}, false},
		{"one that failed", map[string]string{"conformance-kafka-tls.json": sound}, 0, []string{"kafka tls", "1 fail", "2 lost", "index.html"}, true},
		{"one that is torn", map[string]string{"conformance-kafka-tls.json": sound, "torn.json": "{"}, 1, []string{"kafka tls", "torn", "index.html"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out, errOut bytes.Buffer
			if code := run(t.Context(), []string{"-reports", dir}, &out, &errOut); code != c.code {
				t.Errorf("exit %d, want %d: %s", code, c.code, &errOut)
			}
			for _, want := range c.shows {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not print %q:\n%s", want, &out)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "index.html")); (err == nil) != c.page {
				t.Errorf("the page: %v", err)
			}
		})
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
