package config_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/config"
)

// comments are those of the fields of a package's structs, by Type.Field: the one above it, or else the one behind it.
func comments(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(dir, err)
	}
	all := map[string]string{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			s, ok := spec.Type.(*ast.StructType)
			if !ok {
				return false
			}
			for _, field := range s.Fields.List {
				text := field.Doc.Text()
				if text == "" {
					text = field.Comment.Text()
				}
				for _, name := range field.Names {
					all[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(text), " ")
				}
			}
			return false
		})
	}
	return all
}

// A schema is one of JSON Schema, with the keywords that are used here, in the order of the fields.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Ref         string             `json:"$ref,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        any                `json:"type,omitempty"`
	Default     any                `json:"default,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Pattern     string             `json:"pattern,omitempty"`
	Minimum     *float64           `json:"minimum,omitempty"`
	Maximum     *float64           `json:"maximum,omitempty"`
	MinLength   int                `json:"minLength,omitempty"`
	MinItems    int                `json:"minItems,omitempty"`
	MinProps    int                `json:"minProperties,omitempty"`
	MaxProps    int                `json:"maxProperties,omitempty"`
	AnyOf       []*schema          `json:"anyOf,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Additional  any                `json:"additionalProperties,omitempty"`
	Defs        map[string]*schema `json:"$defs,omitempty"`
}

type generator struct {
	comments map[string]string
	defs     map[string]*schema
}

func (g *generator) ref(t reflect.Type) *schema {
	if g.defs[t.Name()] == nil {
		g.defs[t.Name()] = &schema{} // it may have itself
		g.defs[t.Name()] = g.object(t)
	}
	return &schema{Ref: "#/$defs/" + t.Name()}
}

func (g *generator) object(t reflect.Type) *schema {
	s := &schema{Type: "object", Properties: map[string]*schema{}, Additional: false}
	for f := range t.Fields() {
		name := f.Tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		s.Properties[name] = g.field(t, f)
		if f.Tag.Get("required") == "true" && t.Name() != "Layer" {
			s.Required = append(s.Required, name)
		}
	}
	return s
}

func (g *generator) field(in reflect.Type, f reflect.StructField) *schema {
	s := g.value(f.Type, f.Tag)
	s.Description = g.comments[in.Name()+"."+f.Name]
	def := f.Tag.Get("default")
	if text, worked := strings.CutPrefix(def, "="); worked {
		s.Description += " Default: " + text + "."
	} else if def != "" {
		s.Default = literal(f.Type, def)
	}
	return s
}

func literal(t reflect.Type, text string) any {
	switch t.Kind() {
	case reflect.Bool:
		return text == "true"
	case reflect.Int:
		n, _ := strconv.Atoi(text)
		return n
	case reflect.Float64:
		x, _ := strconv.ParseFloat(text, 64)
		return x
	}
	return text
}

func number(text string) *float64 {
	if x, err := strconv.ParseFloat(text, 64); err == nil {
		return &x
	}
	return nil
}

func (g *generator) value(t reflect.Type, tag reflect.StructTag) *schema {
	reference := &schema{Ref: "#/$defs/reference"}
	some := func(s ...*schema) *schema {
		if also := tag.Get("also"); also != "" {
			s = append(s, &schema{Enum: []string{also}})
		}
		return &schema{AnyOf: append(s, reference)}
	}
	switch t {
	case reflect.TypeFor[time.Duration]():
		return some(&schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`})
	case reflect.TypeFor[config.Bytes]():
		return some(&schema{Type: "integer", Minimum: number(tag.Get("min"))}, &schema{Type: "string", Pattern: `^[0-9]+(KiB|MiB|GiB)?$`})
	case reflect.TypeFor[config.PolicyRef]():
		return &schema{AnyOf: []*schema{{Type: "string", MinLength: 1}, g.ref(reflect.TypeFor[config.Policy]())}}
	case reflect.TypeFor[config.Layer]():
		return g.layer(t)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.ref(t.Elem())
	case reflect.Struct:
		if t.Name() == "" {
			return &schema{Type: []string{"object", "null"}, Additional: false}
		}
		return g.ref(t)
	case reflect.Map:
		one := g.value(t.Elem(), "")
		if t.Elem() == reflect.TypeFor[config.Topic]() {
			one = &schema{AnyOf: []*schema{one, {Type: "null"}}}
		}
		return &schema{Type: "object", Additional: one}
	case reflect.Slice:
		return &schema{Type: "array", MinItems: 1, Items: g.value(t.Elem(), tag)}
	case reflect.Int:
		return some(&schema{Type: "integer", Minimum: number(tag.Get("min")), Maximum: number(tag.Get("max"))})
	case reflect.Float64:
		return some(&schema{Type: "number", Minimum: number(tag.Get("min")), Maximum: number(tag.Get("max"))})
	case reflect.Bool:
		return some(&schema{Type: "boolean"})
	}
	if oneof := tag.Get("oneof"); oneof != "" {
		return some(&schema{Enum: strings.Fields(oneof)})
	}
	return &schema{Type: "string", MinLength: 1}
}

// layer is a name, or one key with its settings.
func (g *generator) layer(t reflect.Type) *schema {
	if g.defs[t.Name()] == nil {
		object := g.object(t)
		object.MinProps, object.MaxProps = 1, 1
		var names []string
		for f := range t.Fields() {
			if f.Tag.Get("required") != "true" && !needs(f.Type) && f.Tag.Get("yaml") != "-" {
				names = append(names, f.Tag.Get("yaml"))
				if object.Properties[f.Tag.Get("yaml")].Ref != "" {
					one := object.Properties[f.Tag.Get("yaml")]
					object.Properties[f.Tag.Get("yaml")] = &schema{Description: one.Description, AnyOf: []*schema{{Ref: one.Ref}, {Type: "null"}}}
				}
			}
		}
		g.defs[t.Name()] = &schema{AnyOf: []*schema{{Enum: names}, object}}
	}
	return &schema{Ref: "#/$defs/" + t.Name()}
}

// needs says whether the settings of a layer have a key that must be there.
func needs(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && slices.ContainsFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Tag.Get("required") == "true" })
}

func generate(t *testing.T) []byte {
	t.Helper()
	g := &generator{comments: comments(t, "."), defs: map[string]*schema{
		"reference": {Description: "What the environment or a file has.", Type: "string", Pattern: `\$\{(env|file):[^}]+\}`},
	}}
	s := g.object(reflect.TypeFor[config.File]())
	s.Schema, s.Title, s.Defs = "https://json-schema.org/draft/2020-12/schema", "omnibus", g.defs
	s.Description = "A service's messaging: github.com/omnibus-go/omnibus/config."
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSchemaIsCurrent(t *testing.T) {
	golden(t, "schema.json", generate(t))
	if !*update && !bytes.Equal(config.Schema(), generate(t)) {
		t.Error("Schema is another one")
	}
}

// Every key has a description, and, unless it is required, a default or keys of its own.
func TestEveryKeyIsDescribed(t *testing.T) {
	of := comments(t, ".")
	seen := map[reflect.Type]bool{}
	var visit func(reflect.Type)
	visit = func(s reflect.Type) {
		for s.Kind() == reflect.Pointer || s.Kind() == reflect.Map || s.Kind() == reflect.Slice {
			s = s.Elem()
		}
		if s.Kind() != reflect.Struct || seen[s] {
			return
		}
		seen[s] = true
		for f := range s.Fields() {
			switch tag := f.Tag; {
			case tag.Get("yaml") == "-" || s == reflect.TypeFor[config.PolicyRef]():
			case of[s.Name()+"."+f.Name] == "":
				t.Errorf("%v.%s has no description", s, f.Name)
			case s != reflect.TypeFor[config.Layer]() && (tag.Get("required") == "true") == (tag.Get("default") != "") && scalar(f.Type):
				t.Errorf("%v.%s: it is required, or has a default", s, f.Name)
			}
			visit(f.Type)
		}
	}
	visit(reflect.TypeFor[config.File]())
	if len(seen) < 15 {
		t.Errorf("%d structs", len(seen))
	}
}

func scalar(t reflect.Type) bool {
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Pointer && t.Kind() != reflect.Map && t.Kind() != reflect.Slice
}

// The defaults are those of the packages that have them: their own comments say "0 = VALUE".
func TestDefaultsAreThose(t *testing.T) {
	of := map[string]map[string]string{"pubsub": comments(t, "../pubsub"), "middleware": comments(t, "../middleware"), "security": comments(t, "../middleware/security")}
	checked := 0
	for _, pair := range []struct {
		ours          reflect.Type
		folder, their string
	}{
		{reflect.TypeFor[config.File](), "pubsub", "Options"},
		{reflect.TypeFor[config.Publisher](), "pubsub", "PublisherOptions"},
		{reflect.TypeFor[config.Policy](), "pubsub", "Policy"},
		{reflect.TypeFor[config.Subscription](), "pubsub", "Subscription"},
		{reflect.TypeFor[config.Breaker](), "middleware", "BreakerOptions"},
		{reflect.TypeFor[config.Compress](), "middleware", "CompressOptions"},
		{reflect.TypeFor[config.Dedup](), "middleware", "DedupOptions"},
		{reflect.TypeFor[config.Poison](), "middleware", "PoisonOptions"},
		{reflect.TypeFor[config.Encrypt](), "security", "EncryptOptions"},
		{reflect.TypeFor[config.Replay](), "security", "ReplayOptions"},
		{reflect.TypeFor[config.Sign](), "security", "SignOptions"},
	} {
		for f := range pair.ours.Fields() {
			m := regexp.MustCompile(`\b(?:0|zero) = (\d[\d,]*\d\b|[\w.]+\w|\w+)(?: (KiB|MiB))?`).FindStringSubmatch(of[pair.folder][pair.their+"."+f.Name])
			def := f.Tag.Get("default")
			if m == nil || strings.HasPrefix(def, "=") || def == "" {
				continue
			}
			want := strings.ReplaceAll(m[1], ",", "") + m[2]
			ours, theirs := def, want
			if f.Type == reflect.TypeFor[time.Duration]() {
				a, errA := time.ParseDuration(def)
				b, errB := time.ParseDuration(strings.Replace(want, "min", "m", 1))
				if errA != nil || errB != nil {
					t.Errorf("%v.%s: %v, %v", pair.ours, f.Name, errA, errB)
				}
				ours, theirs = a.String(), b.String()
			}
			if oneof := strings.Fields(f.Tag.Get("oneof")); len(oneof) > 0 {
				theirs = oneof[0] // a constant's name; the first is the zero value
			}
			switch theirs {
			case "none":
				theirs = "0"
			case "FromNow":
				theirs = "now"
			}
			if checked++; ours != theirs {
				t.Errorf("%v.%s: default %s, theirs is %s", pair.ours, f.Name, ours, theirs)
			}
		}
	}
	if checked < 27 {
		t.Errorf("%d defaults compared", checked)
	}
}

// The schema accepts what Load accepts, and refuses what it can see of what Load refuses.
func TestSchemaAgreesWithLoad(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(config.Schema(), &root); err != nil {
		t.Fatal(err)
	}
	v := validator{t: t, defs: root["$defs"].(map[string]any)}
	v.isSchema(root)
	for _, file := range []string{"testdata/shop.yaml", "testdata/whole.yaml"} {
		if why := v.check(root, parseYAML(t, file)); why != "" {
			t.Errorf("%s: %s", file, why)
		}
	}
	// what is no matter of shape: names, sums, the environment, and what YAML itself refuses or a validator does not see any more
	beyond := regexp.MustCompile(`^(ack_wait_too_short|alias_bomb|bad_|delays_|drop_|duplicate_|block_key_|empty\.|external_|in_flight_|initial_|json_unclosed|layers_|log_to|merge_key|missing_(file|var)|` +
		`own_layer_missing|parked_|pattern_as|reference_as|same_group|security_|start_|tab|tag|two_documents|unclosed_|uncovered|unknown_(category|failure|policy|reference|store)|unlisted|variable_)`)
	files, err := filepath.Glob("testdata/broken/*")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, file := range files {
		if strings.HasSuffix(file, ".golden") || beyond.MatchString(filepath.Base(file)) {
			continue
		}
		if why := v.check(root, parseYAML(t, file)); why == "" {
			t.Errorf("the schema accepts %s", file)
		}
		refused++
	}
	if refused < 25 {
		t.Errorf("%d files", refused)
	}
}

func parseYAML(t *testing.T, file string) any {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return unmarshal(t, data)
}

// A validator knows the keywords that are used, and no others.
type validator struct {
	t    *testing.T
	defs map[string]any
}

// isSchema fails for a keyword that the validator does not know, a reference to nothing, and a pattern that is none.
func (v validator) isSchema(s map[string]any) {
	known := []string{
		"$schema", "title", "$ref", "description", "type", "default", "enum", "pattern", "minimum", "maximum", "minLength", "minItems", "minProperties",
		"maxProperties", "anyOf", "items", "required", "properties", "additionalProperties", "$defs",
	}
	each := func(x any) {
		if m, ok := x.(map[string]any); ok {
			v.isSchema(m)
		}
	}
	for k, x := range s {
		if !slices.Contains(known, k) {
			v.t.Errorf("the keyword %q", k)
		}
		switch k {
		case "$ref":
			if v.defs[strings.TrimPrefix(x.(string), "#/$defs/")] == nil {
				v.t.Errorf("%v is not there", x)
			}
		case "pattern":
			if _, err := regexp.Compile(x.(string)); err != nil {
				v.t.Error(err)
			}
		case "properties", "$defs":
			for _, one := range x.(map[string]any) {
				each(one)
			}
		case "anyOf":
			for _, one := range x.([]any) {
				each(one)
			}
		case "items", "additionalProperties":
			each(x)
		}
	}
	if def, ok := s["default"]; ok {
		if why := v.check(s, def); why != "" {
			v.t.Errorf("the default %v: %s", def, why)
		}
	}
}

// check says why x does not fit, "" if it does.
func (v validator) check(s map[string]any, x any) string {
	if ref, ok := s["$ref"].(string); ok {
		return v.check(v.defs[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any), x)
	}
	if some, ok := s["anyOf"].([]any); ok {
		var whys []string
		for _, one := range some {
			why := v.check(one.(map[string]any), x)
			if why == "" {
				return ""
			}
			whys = append(whys, why)
		}
		return strings.Join(whys, ", or ")
	}
	if enum, ok := s["enum"].([]any); ok {
		if slices.Contains(enum, x) {
			return ""
		}
		return "it is none of the values"
	}
	if types := s["type"]; types != nil {
		list, many := types.([]any)
		if !many {
			list = []any{types}
		}
		if !slices.ContainsFunc(list, func(name any) bool { return isA(name.(string), x) }) {
			return "it is no " + list[0].(string)
		}
	}
	switch x := x.(type) {
	case float64:
		if least, ok := s["minimum"].(float64); ok && x < least {
			return "it is too small"
		}
		if most, ok := s["maximum"].(float64); ok && x > most {
			return "it is too large"
		}
	case string:
		if p, ok := s["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(x) {
			return "it does not match"
		}
		if _, ok := s["minLength"]; ok && x == "" {
			return "it is empty"
		}
	case []any:
		if len(x) == 0 && s["minItems"] != nil {
			return "it is empty"
		}
		for _, one := range x {
			if why := v.check(s["items"].(map[string]any), one); why != "" {
				return why
			}
		}
	case map[string]any:
		return v.object(s, x)
	}
	return ""
}

func (v validator) object(s, x map[string]any) string {
	if most, ok := s["maxProperties"].(float64); ok && float64(len(x)) > most {
		return "it has too many keys"
	}
	if least, ok := s["minProperties"].(float64); ok && float64(len(x)) < least {
		return "it has too few keys"
	}
	required, _ := s["required"].([]any)
	for _, name := range required {
		if _, ok := x[name.(string)]; !ok {
			return name.(string) + " is missing"
		}
	}
	properties, _ := s["properties"].(map[string]any)
	for name, one := range x {
		to, ok := properties[name].(map[string]any)
		if !ok {
			if to, ok = s["additionalProperties"].(map[string]any); !ok {
				return name + " is unknown"
			}
		}
		if why := v.check(to, one); why != "" {
			return name + ": " + why
		}
	}
	return ""
}

func isA(name string, x any) bool {
	switch x := x.(type) {
	case nil:
		return name == "null"
	case bool:
		return name == "boolean"
	case string:
		return name == "string"
	case float64:
		return name == "number" || name == "integer" && x == float64(int64(x))
	case []any:
		return name == "array"
	}
	return name == "object"
}
