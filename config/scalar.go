package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/omnibus-go/omnibus/pubsub"
)

// scalar decodes a single value. Where it has references its text counts, else also what YAML takes it for: "16" in quotes is no number.
func (d *decoder) scalar(n *yaml.Node, path string, v reflect.Value, f *field) {
	is, example := describe(v.Type())
	if n.Kind != yaml.ScalarNode {
		d.wrongf(path, "write "+example, "it is to be %s", is)
		return
	}
	text, refs, ok := d.resolve(n.Value, path)
	if !ok {
		return
	}
	if !refs && !slices.Contains(tagsOf(v.Type()), n.Tag) {
		help := "write " + example
		switch {
		case v.Kind() == reflect.String:
			help = "put it in quotes"
		case n.Tag == "!!str" && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 && parse(reflect.New(v.Type()).Elem(), f, text) == nil:
			help = "write it without quotes"
		case v.Type() == reflect.TypeFor[time.Duration]() && n.Tag != "!!bool":
			help = fmt.Sprintf("give it a unit, as in %ss", n.Value)
		}
		if f.also == "" || text != f.also {
			d.wrongf(path, help, "it is to be %s", is)
			return
		}
	}
	if err := parse(v, f, text); err != nil {
		what := shown(text)
		if refs || f.name == "broker" {
			what = "what it refers to"
		}
		help := "write " + example
		if r, is := errors.AsType[*rangeError](err); is {
			help = r.remedy
		}
		d.wrongf(path, help, "%s %s", what, err)
	}
}

// describe says what a type is in words, with an example.
func describe(t reflect.Type) (is, example string) {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "a duration", "one such as 500ms, 30s or 24h"
	case reflect.TypeFor[Bytes]():
		return "a size", "one such as 4096, 64KiB or 1MiB"
	}
	switch t.Kind() {
	case reflect.Int:
		return "a whole number", "one such as 16"
	case reflect.Float64:
		return "a number", "one such as 0.5"
	case reflect.Bool:
		return "true or false", "true or false"
	}
	return "a text", "one text"
}

// tagsOf is what YAML may take a value of the type for.
func tagsOf(t reflect.Type) []string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return []string{"!!str"}
	case reflect.TypeFor[Bytes]():
		return []string{"!!int", "!!str"}
	}
	switch t.Kind() {
	case reflect.Int:
		return []string{"!!int"}
	case reflect.Float64:
		return []string{"!!int", "!!float"}
	case reflect.Bool:
		return []string{"!!bool"}
	}
	return []string{"!!str", "!!timestamp"}
}

// A rangeError is a value of the right type that is out of its bounds.
type rangeError struct{ problem, remedy string }

func (e *rangeError) Error() string { return e.problem }

// parse sets v to what text says. Errors continue a sentence that begins with the value.
func parse(v reflect.Value, f *field, text string) error {
	if f.also != "" && text == f.also {
		if f.also == "forever" {
			v.SetInt(int64(pubsub.Forever))
		} else {
			v.SetInt(pubsub.Unlimited)
		}
		return nil
	}
	is, _ := describe(v.Type())
	bad := fmt.Errorf("is not %s", is)
	switch v.Kind() {
	case reflect.String:
		if text == "" {
			return &rangeError{"is empty", "give it a value, or remove the key"}
		}
		if len(f.oneof) > 0 && !slices.Contains(f.oneof, text) {
			return &rangeError{"is none of its values", remedy(text, f.oneof)}
		}
		v.SetString(text)
		return nil
	case reflect.Bool:
		b, ok := map[string]bool{"true": true, "false": false}[text]
		if !ok {
			return bad
		}
		v.SetBool(b)
		return nil
	case reflect.Float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return bad
		}
		v.SetFloat(x)
		least, most := limit(f.min, -math.MaxFloat64), limit(f.max, math.MaxFloat64)
		return outside(f, x < least, x > most)
	}
	x, err := integer(v.Type(), text)
	if err != nil {
		return bad
	}
	v.SetInt(x)
	least, most := int64(math.MinInt64), int64(math.MaxInt64)
	if f.min != "" {
		least, _ = integer(v.Type(), f.min)
	}
	if f.max != "" {
		most, _ = integer(v.Type(), f.max)
	}
	return outside(f, x < least, x > most)
}

func limit(text string, none float64) float64 {
	if x, err := strconv.ParseFloat(text, 64); err == nil {
		return x
	}
	return none
}

func outside(f *field, below, above bool) error {
	def := strings.TrimPrefix(f.def, "=")
	help := "leave it out for the default, " + def
	if def == "" {
		help = "give it one in these bounds"
	}
	switch {
	case below:
		return &rangeError{"is too small: it is at least " + f.min, help}
	case above:
		return &rangeError{"is too large: it is at most " + f.max, help}
	}
	return nil
}

func integer(t reflect.Type, text string) (int64, error) {
	switch t {
	case reflect.TypeFor[time.Duration]():
		x, err := time.ParseDuration(text)
		return int64(x), err
	case reflect.TypeFor[Bytes]():
		return size(text)
	}
	return strconv.ParseInt(text, 10, strconv.IntSize)
}

func size(text string) (int64, error) {
	unit := int64(1)
	for suffix, u := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if cut, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = cut, u
		}
	}
	x, err := strconv.ParseInt(text, 10, 64)
	if err == nil && (x > math.MaxInt64/unit || x < math.MinInt64/unit) {
		err = strconv.ErrRange
	}
	return x * unit, err
}

// String is the size in the largest unit that it is a whole number of, as in "64MiB".
func (b Bytes) String() string {
	for _, u := range []struct {
		size Bytes
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if b >= u.size && b%u.size == 0 {
			return fmt.Sprintf("%d%s", b/u.size, u.name)
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
