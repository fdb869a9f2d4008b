package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A decoder fills a File from nodes of YAML, which keep their lines, and notes all that is wrong. The library only parses: what a key may be and what its
// value, the struct says.
type decoder struct {
	name     string
	opts     *Options
	problems Errors
	origins  map[string]Origin
}

func newDecoder(name string, opts *Options) *decoder {
	return &decoder{name: name, opts: opts, origins: map[string]Origin{}}
}

func (d *decoder) problemf(line int, path, remedy, format string, args ...any) {
	d.problems = append(d.problems, &Error{File: d.name, Line: line, Path: path, Problem: fmt.Sprintf(format, args...), Remedy: remedy})
}

// wrongf is a problem with the value of a key.
func (d *decoder) wrongf(path, remedy, format string, args ...any) {
	d.problemf(d.origins[path].Line, path, remedy, format, args...)
}

func (d *decoder) sorted() Errors {
	slices.SortStableFunc(d.problems, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
	return d.problems
}

func (d *decoder) document(data []byte, f *File) {
	in := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	switch err := in.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.problemf(1, "", "it has at least the key broker", "the file is empty")
		return
	case err != nil:
		d.syntax(err)
		return
	}
	if err := in.Decode(&more); err == nil {
		d.problemf(more.Line, "", "one file has one configuration: remove the line --- and what follows", "there is a second document")
		return
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
		return
	}
	if d.plain(doc.Content[0]); len(d.problems) > 0 {
		return
	}
	d.origins[""] = Origin{Line: 1}
	d.object(doc.Content[0], "", reflect.ValueOf(f).Elem())
}

// syntax is what the parser says, without what it repeats of the file.
func (d *decoder) syntax(err error) {
	line, text := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = strings.TrimPrefix(text, m[0])
	}
	if strings.Contains(text, "anchor") || strings.Contains(text, "alias") {
		d.problemf(line, "", anchorRemedy, "anchors and aliases are not supported")
		return
	}
	if strings.Contains(text, "tag") {
		d.problemf(line, "", tagRemedy, "tags are not supported")
		return
	}
	d.problemf(line, "", "mend the YAML in this line or the one above: indentation, a colon, a quote", "it is no YAML: %s", text)
}

const (
	anchorRemedy = "write the value out, or give a policy a name and use that"
	tagRemedy    = "remove it, and put a text that looks like something else in quotes"
)

// plain refuses what would let a small file become a large one, or a value something else than it looks like.
func (d *decoder) plain(n *yaml.Node) {
	switch {
	case len(d.problems) > 0: // one is enough: there may be thousands
		return
	case n.Anchor != "" || n.Kind == yaml.AliasNode:
		d.problemf(n.Line, "", anchorRemedy, "anchors and aliases are not supported")
	case n.Style&yaml.TaggedStyle != 0:
		d.problemf(n.Line, "", tagRemedy, "tags are not supported")
	}
	for _, c := range n.Content {
		d.plain(c)
	}
}

// A field is a key that an object may have.
type field struct {
	name, def, also string
	oneof           []string
	min, max        string
	required        bool
	index           int
}

func fieldsOf(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		if name := tag.Get("yaml"); name != "" && name != "-" {
			all = append(all, field{
				name: name, def: tag.Get("default"), also: tag.Get("also"), oneof: strings.Fields(tag.Get("oneof")),
				min: tag.Get("min"), max: tag.Get("max"), required: tag.Get("required") == "true", index: i,
			})
		}
	}
	return all
}

func keysOf(fields []field) []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return names
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// entries hands each key of a mapping on once, with its path noted.
func (d *decoder) entries(n *yaml.Node, path string, each func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.problemf(max(n.Line, 1), path, "write keys below it, each with its value", "it is to have keys")
		return
	}
	first := map[string]int{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || !isName(key.Value) {
			d.problemf(key.Line, path, "a key is letters, digits and _ - . * >", "a key is no name")
			continue
		}
		if line, twice := first[key.Value]; twice {
			d.problemf(key.Line, path, "remove one of them", "the key %q is there twice, first in line %d", key.Value, line)
			continue
		}
		first[key.Value] = key.Line
		each(key, n.Content[i+1])
	}
}

// isName says whether a text can be a key, and be shown: a URL with a password that has become a key by mistake is not.
func isName(s string) bool { return regexp.MustCompile(`^[A-Za-z0-9_.*><-]{1,200}$`).MatchString(s) }

func (d *decoder) object(n *yaml.Node, path string, v reflect.Value) {
	fields := fieldsOf(v.Type())
	there := map[string]bool{}
	d.entries(n, path, func(key, value *yaml.Node) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == key.Value })
		if i < 0 {
			d.unknownKey(key, path, fields)
			return
		}
		there[key.Value] = true
		child := join(path, key.Value)
		d.origins[child] = Origin{Line: key.Line}
		d.value(value, child, v.Field(fields[i].index), &fields[i])
	})
	for _, f := range fields {
		if f.required && !there[f.name] && n.Kind == yaml.MappingNode {
			d.wrongf(path, fmt.Sprintf("add it: %s: ...", f.name), "the key %q is missing", f.name)
		}
	}
}

func (d *decoder) unknownKey(key *yaml.Node, path string, fields []field) {
	if key.Value == "<<" {
		d.problemf(key.Line, path, anchorRemedy, "merge keys are not supported")
		return
	}
	d.problemf(key.Line, path, remedy(key.Value, keysOf(fields)), "unknown key %q", key.Value)
}

// value decodes one value. What it is is noted in origins under path.
func (d *decoder) value(n *yaml.Node, path string, v reflect.Value, f *field) {
	if isNull(n) {
		d.wrongf(path, "give it one, or remove the key", "it has no value")
		return
	}
	switch to := v.Addr().Interface().(type) {
	case *PolicyRef:
		d.policyRef(n, path, to)
		return
	case *Layer:
		d.layer(n, path, to)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.object(n, path, v.Elem())
	case reflect.Struct:
		d.object(n, path, v)
	case reflect.Map:
		d.names(n, path, v, f)
	case reflect.Slice:
		d.list(n, path, v, f)
	default:
		d.scalar(n, path, v, f)
	}
}

// names decodes a mapping whose keys are the user's.
func (d *decoder) names(n *yaml.Node, path string, v reflect.Value, f *field) {
	v.Set(reflect.MakeMap(v.Type()))
	d.entries(n, path, func(key, value *yaml.Node) {
		if strings.ContainsAny(key.Value, "*><") {
			d.problemf(key.Line, path, "a name is letters, digits and _ - .", "the name %q is a pattern", key.Value)
			return
		}
		child := join(path, key.Value)
		d.origins[child] = Origin{Line: key.Line}
		one := reflect.New(v.Type().Elem()).Elem()
		if _, topic := reflect.TypeAssert[Topic](one); !topic || !isNull(value) { // a topic may be nothing but its name
			d.value(value, child, one, f)
		}
		v.SetMapIndex(reflect.ValueOf(key.Value), one)
	})
}

func (d *decoder) list(n *yaml.Node, path string, v reflect.Value, f *field) {
	if n.Kind != yaml.SequenceNode {
		d.wrongf(path, "write each on a line of its own that begins with a dash, or all in [ ]", "it is to be a list")
		return
	}
	if len(n.Content) == 0 {
		d.wrongf(path, "give it one, or remove the key", "it is an empty list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, c := range n.Content {
		child := fmt.Sprintf("%s[%d]", path, i)
		d.origins[child] = Origin{Line: c.Line}
		d.value(c, child, v.Index(i), f)
	}
}

func (d *decoder) policyRef(n *yaml.Node, path string, to *PolicyRef) {
	if n.Kind == yaml.MappingNode {
		to.Inline = &Policy{}
		d.object(n, path, reflect.ValueOf(to.Inline).Elem())
		return
	}
	d.scalar(n, path, reflect.ValueOf(&to.Name).Elem(), &field{})
}

// layer decodes one layer: its name, or one key with its settings.
func (d *decoder) layer(n *yaml.Node, path string, to *Layer) {
	fields := fieldsOf(reflect.TypeFor[Layer]())
	v := reflect.ValueOf(to).Elem()
	find := func(name string, line int) *field {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		if i >= 0 {
			to.Name = name
			return &fields[i]
		}
		help := remedy(name, keysOf(fields))
		if !strings.HasPrefix(help, "did you mean") {
			help = "a layer of the program's own is written own: NAME; " + help
		}
		d.problemf(line, path, help, "unknown layer %s", shown(name))
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		f := find(n.Value, n.Line)
		if f == nil {
			return
		}
		if needs := needsSettings(v.Field(f.index).Type(), f); needs {
			d.wrongf(path, fmt.Sprintf("write %s: and what it is to be", f.name), "the layer %q needs settings", f.name)
		}
		d.origins[join(path, f.name)] = Origin{Line: n.Line}
		return
	}
	if n.Kind == yaml.MappingNode && len(n.Content) != 2 {
		d.wrongf(path, "begin each layer with a dash of its own, and put its settings into { } or further to the right", "a layer is one key, and here are %d", len(n.Content)/2)
		return
	}
	d.entries(n, path, func(key, value *yaml.Node) {
		f := find(key.Value, key.Line)
		if f == nil {
			return
		}
		child := join(path, f.name)
		d.origins[child] = Origin{Line: key.Line}
		if isNull(value) && !needsSettings(v.Field(f.index).Type(), f) {
			return
		}
		d.value(value, child, v.Field(f.index), f)
	})
}

func needsSettings(t reflect.Type, f *field) bool {
	return f.required || t.Kind() == reflect.Struct && slices.ContainsFunc(fieldsOf(t), func(f field) bool { return f.required })
}
