package config_test

import (
	"encoding/json"
	"testing"

	"go.yaml.in/yaml/v3"
)

// unmarshal gives what a validator of JSON sees of a YAML file.
func unmarshal(t *testing.T, data []byte) any {
	t.Helper()
	var x any
	if err := yaml.Unmarshal(data, &x); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
