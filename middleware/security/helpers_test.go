package security_test

import (
	"encoding/json"
	"testing"

	"github.com/omnibus-go/omnibus/middleware/security"
)

func encodeKeys(tb testing.TB, keys ...security.Key) []byte {
	tb.Helper()
	b, err := security.EncodeKeys(keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func encodeJSON(tb testing.TB, v any) []byte {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func decodeJSON(tb testing.TB, b []byte, v any) {
	tb.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		tb.Fatal(err)
	}
}
