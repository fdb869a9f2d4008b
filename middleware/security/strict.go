package security

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// decodeStrict reads one value of JSON, which says each thing once: a field that is not known or is there twice, and anything behind the value, is refused. Of two
// fields of a name package json takes the last, so that a key which one line revokes would be active by another.
func decodeStrict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return withoutValue(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its JSON")
	}
	return unique(json.NewDecoder(bytes.NewReader(b)))
}

// unique reads a value, and says which field of it is there twice.
func unique(dec *json.Decoder) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	begin, composite := t.(json.Delim)
	if !composite {
		return nil
	}
	there := map[json.Token]bool{}
	for dec.More() {
		if begin == '{' {
			name, err := dec.Token()
			if err != nil {
				return err
			}
			if there[name] {
				return fmt.Errorf("the field %q is there twice", name)
			}
			there[name] = true
		}
		if err := unique(dec); err != nil {
			return err
		}
	}
	_, err = dec.Token() // its end
	return err
}

// withoutValue takes off what package json quotes of what it could not read.
func withoutValue(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s is no %v", e.Field, e.Type)
	}
	return err
}
