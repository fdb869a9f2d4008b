package rabbitmq

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A header of the kind pubsub.HeaderNative is a value that no other broker has: a table, an array, bytes, a decimal. Its text is JSON: an object with one
// member, whose name is AMQP's letter of the type, and whose value is a text, for arrays ("A") a list of such objects, and for tables ("F") an object of them:
//
//	{"F":{"count":{"l":"3"},"queue":{"S":"orders"},"routing-keys":{"A":[{"S":"a"}]}}}
//
// "x" (bytes) is base64, as is "s64", which is a text ("S") that is no UTF-8; "D" (a decimal) is its scale and its value.

// formatNative writes a value of a table, which may be of any type.
func formatNative(v any) string {
	b, err := json.Marshal(nativeOf(v))
	if err != nil { // there is nothing in it that has no JSON
		return ""
	}
	return string(b)
}

func nativeOf(v any) map[string]any {
	one := func(letter, text string) map[string]any { return map[string]any{letter: text} }
	switch v := v.(type) {
	case amqp.Table:
		fields := make(map[string]any, len(v))
		for name, field := range v {
			fields[name] = nativeOf(field)
		}
		return map[string]any{"F": fields}
	case []any:
		items := make([]any, len(v))
		for i, item := range v {
			items[i] = nativeOf(item)
		}
		return map[string]any{"A": items}
	case []byte:
		return one("x", base64.StdEncoding.EncodeToString(v))
	case amqp.Decimal:
		return one("D", strconv.Itoa(int(v.Scale))+" "+strconv.Itoa(int(v.Value)))
	case string:
		if !utf8.ValidString(v) {
			return one("s64", base64.StdEncoding.EncodeToString([]byte(v)))
		}
	}
	_, text := describe(v)
	return one(letterOf(v), text)
}

// letterOf is AMQP's letter of a type that has one value.
func letterOf(v any) string {
	switch v.(type) {
	case bool:
		return "t"
	case int8:
		return "b"
	case uint8:
		return "B"
	case int16:
		return "s"
	case uint16:
		return "u"
	case int32, int:
		return "I"
	case uint32:
		return "i"
	case int64:
		return "l"
	case float32:
		return "f"
	case float64:
		return "d"
	case time.Time:
		return "T"
	case nil:
		return "V"
	}
	return "S"
}

// parseNative reads what formatNative wrote.
func parseNative(s string) (v any, ok bool) {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(s), &object) != nil || len(object) != 1 {
		return nil, false
	}
	for letter, raw := range object {
		v, ok = parseField(letter, raw)
	}
	return v, ok
}

func parseField(letter string, raw json.RawMessage) (any, bool) {
	switch letter {
	case "F":
		var fields map[string]json.RawMessage
		if json.Unmarshal(raw, &fields) != nil || fields == nil {
			return nil, false
		}
		t := make(amqp.Table, len(fields))
		for name, field := range fields {
			v, ok := parseNative(string(field))
			if !ok || len(name) > shortText {
				return nil, false
			}
			t[name] = v
		}
		return t, true
	case "A":
		var items []json.RawMessage
		if json.Unmarshal(raw, &items) != nil || items == nil {
			return nil, false
		}
		list := make([]any, len(items))
		for i, item := range items {
			v, ok := parseNative(string(item))
			if !ok {
				return nil, false
			}
			list[i] = v
		}
		return list, true
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return nil, false
	}
	switch letter {
	case "S":
		return text, true
	case "x", "s64":
		b, err := base64.StdEncoding.DecodeString(text)
		if letter == "x" {
			return b, err == nil
		}
		return string(b), err == nil
	case "D":
		scale, value, _ := strings.Cut(text, " ")
		a, err := strconv.ParseUint(scale, 10, 8)
		b, err2 := strconv.ParseInt(value, 10, 32)
		return amqp.Decimal{Scale: uint8(a), Value: int32(b)}, err == nil && err2 == nil
	case "V":
		return nil, text == ""
	case "t":
		return text == "true", text == "true" || text == "false"
	case "T":
		at, err := time.Parse(time.RFC3339, text)
		return at, err == nil
	case "f":
		f, err := strconv.ParseFloat(text, 32)
		return float32(f), err == nil
	case "d":
		f, err := strconv.ParseFloat(text, 64)
		return f, err == nil
	}
	return parseInteger(letter, text)
}

func parseInteger(letter, text string) (any, bool) {
	switch letter {
	case "B", "u", "i":
		n, err := strconv.ParseUint(text, 10, map[string]int{"B": 8, "u": 16, "i": 32}[letter])
		return map[string]any{"B": uint8(n), "u": uint16(n), "i": uint32(n)}[letter], err == nil
	case "b", "s", "I", "l":
		n, err := strconv.ParseInt(text, 10, map[string]int{"b": 8, "s": 16, "I": 32, "l": 64}[letter])
		return map[string]any{"b": int8(n), "s": int16(n), "I": int32(n), "l": n}[letter], err == nil
	}
	return nil, false
}
