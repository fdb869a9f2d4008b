package deadevent

import (
	"encoding/json"
	"unicode/utf8"
)

// A Text is a string of any bytes, as IDs and keys of messages may be: a JSON string where it is UTF-8, {"base64": "..."} where it is not.
type Text string

type binary struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON implements json.Marshaler.
func (t Text) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(t)) {
		return json.Marshal(string(t))
	}
	return json.Marshal(binary{[]byte(t)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Text) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var x binary
		err := json.Unmarshal(b, &x)
		*t = Text(x.Base64)
		return err
	}
	var s string
	err := json.Unmarshal(b, &s)
	*t = Text(s)
	return err
}

// Texts are strings of any bytes.
type Texts []string

// MarshalJSON implements json.Marshaler.
func (ts Texts) MarshalJSON() ([]byte, error) {
	all := make([]Text, len(ts))
	for i, s := range ts {
		all[i] = Text(s)
	}
	return json.Marshal(all)
}

// UnmarshalJSON implements json.Unmarshaler.
func (ts *Texts) UnmarshalJSON(b []byte) error {
	var all []Text
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	*ts = make(Texts, len(all))
	for i, t := range all {
		(*ts)[i] = string(t)
	}
	return nil
}
