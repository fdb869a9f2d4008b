package security_test

import (
	"encoding/json"
	"testing"

	"github.com/omnibus-go/omnibus/middleware/security"
)

func encodeKeys(t testing.TB, keys ...security.Key) []byte {
	t.Helper()
	b, err := security.EncodeKeys(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encodeJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decodeJSON(t testing.TB, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}
