package config

import (
	"strconv"
	"unicode/utf16"
)

// yamlOf writes a JSON text so that the YAML parser reads the same: without the two escapes that it does not know. Lines stay where they are.
func yamlOf(data []byte) []byte {
	out := make([]byte, 0, len(data))
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' || i+1 == len(data) {
			out = append(out, data[i])
			continue
		}
		if data[i+1] == '/' {
			continue // it stands for itself
		}
		if high, ok := unit(data[i:]); ok {
			if low, ok := unit(data[i+6:]); ok && utf16.IsSurrogate(high) {
				out = append(out, string(utf16.DecodeRune(high, low))...)
				i += 11
				continue
			}
		}
		out = append(out, data[i], data[i+1])
		i++
	}
	return out
}

// unit reads an escape such as \u00e4.
func unit(data []byte) (rune, bool) {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' {
		return 0, false
	}
	x, err := strconv.ParseUint(string(data[2:6]), 16, 16)
	return rune(x), err == nil
}
