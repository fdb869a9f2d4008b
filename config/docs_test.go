package config_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/omnibus-go/omnibus/brokers"
	"github.com/omnibus-go/omnibus/config"
	"github.com/omnibus-go/omnibus/kafka"
	"github.com/omnibus-go/omnibus/nats"
	"github.com/omnibus-go/omnibus/rabbitmq"
	"github.com/omnibus-go/omnibus/redisstreams"
)

const reference = "../docs/config.md"

// The tables of the reference are those of the structs.
func TestReferenceIsCurrent(t *testing.T) {
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	text := between(t, string(data), "keys", keyTables(t))
	golden(t, reference, []byte(between(t, text, "urls", urlTables(t))))
}

// The example of the reference is right.
func TestReferenceExample(t *testing.T) {
	data, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "```yaml\n")
	example, _, ok := strings.Cut(rest, "```\n")
	if !ok {
		t.Fatal("there is none")
	}
	if _, err := config.Parse("omnibus.yaml", []byte(example), shop()); err != nil {
		t.Error(err)
	}
}

// between replaces what stands between two marks.
func between(t *testing.T, text, mark, with string) string {
	t.Helper()
	begin, end := "<!-- "+mark+" -->\n", "<!-- /"+mark+" -->\n"
	before, rest, ok := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("no mark %q", mark)
	}
	return before + begin + with + end + after
}

// keyTables has one table for each struct, in the order in which File reaches them.
func keyTables(t *testing.T) string {
	t.Helper()
	of := comments(t, ".")
	titles := map[string]string{
		"File": "The file", "Log": "`log`", "Require": "`require`", "Topic": "`topics.NAME`", "Publisher": "`publishers.NAME`", "Policy": "`policies.NAME`, and a policy in place",
		"Layer": "`middleware[]`: one key each", "Breaker": "`breaker`", "Compress": "`compress`", "Dedup": "`dedup`", "Poison": "`poison`", "RateLimit": "`rate-limit`",
		"Access": "`access`", "Encrypt": "`encrypt`", "Replay": "`replay`", "Sign": "`sign`",
		"Retry": "`retry` among layers", "Rule": "`rules[]`", "Subscription": "`subscriptions.NAME`", "DeadLetters": "`dead_letters`",
	}
	var out strings.Builder
	seen := map[reflect.Type]bool{}
	var visit func(reflect.Type)
	visit = func(s reflect.Type) {
		for s.Kind() == reflect.Pointer || s.Kind() == reflect.Map || s.Kind() == reflect.Slice {
			s = s.Elem()
		}
		if s == reflect.TypeFor[config.PolicyRef]() || s.Kind() != reflect.Struct || s.Name() == "" || seen[s] {
			return
		}
		seen[s] = true
		if titles[s.Name()] == "" {
			t.Errorf("%v has no title", s)
		}
		fmt.Fprintf(&out, "\n### %s\n\n| key | value | default | |\n|---|---|---|---|\n", titles[s.Name()])
		for f := range s.Fields() {
			if name := f.Tag.Get("yaml"); name != "-" {
				def := strings.TrimPrefix(f.Tag.Get("default"), "=")
				if f.Tag.Get("required") == "true" && s.Name() != "Layer" {
					def = "(required)"
				}
				fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", name, kind(f), def, of[s.Name()+"."+f.Name])
			}
		}
		for field := range s.Fields() {
			visit(field.Type)
		}
	}
	visit(reflect.TypeFor[config.File]())
	return out.String() + "\n"
}

// kind is what a key's value is, in words.
func kind(f reflect.StructField) string {
	text := map[reflect.Type]string{
		reflect.TypeFor[time.Duration](): "duration", reflect.TypeFor[config.Bytes](): "size", reflect.TypeFor[config.PolicyRef](): "name or keys",
		reflect.TypeFor[string](): "text", reflect.TypeFor[int](): "whole number", reflect.TypeFor[float64](): "number", reflect.TypeFor[bool](): "true, false",
		reflect.TypeFor[struct{}](): "none", reflect.TypeFor[[]string](): "list of texts", reflect.TypeFor[[]time.Duration](): "list of durations",
		reflect.TypeFor[map[string]string](): "texts by name",
	}[f.Type]
	if text == "" {
		switch f.Type.Kind() {
		case reflect.Map:
			text = "keys by name"
		case reflect.Slice:
			text = "list"
		default:
			text = "keys"
		}
	}
	if oneof := f.Tag.Get("oneof"); oneof != "" {
		text = strings.Join(strings.Fields(oneof), ", ")
	}
	if least := f.Tag.Get("min"); least != "" && least != "1ms" && least != "0.000001" && f.Type != reflect.TypeFor[config.Bytes]() {
		text += ", at least " + least
	}
	if also := f.Tag.Get("also"); also != "" {
		text += ", or " + also
	}
	return text
}

// An adapter is what the reference says of one.
type adapter struct {
	title, folder, scheme string
	parse                 func(string) error
}

func adapters() []adapter {
	return []adapter{
		{"Memory: `mem://NAME`", "../memory", "mem", func(u string) error {
			c, err := config.Parse("o.yaml", []byte("broker: "+u), nil)
			if err == nil {
				err = c.Check(brokers.All())
			}
			return err
		}},
		{"Kafka: `kafka://USER:PASSWORD@HOST:9092,HOST:9092`", "../kafka", "kafka", func(u string) error { _, err := kafka.ParseURL(u); return err }},
		{"RabbitMQ: `amqp://USER:PASSWORD@HOST:5672/VHOST`, `amqps://`", "../rabbitmq", "amqp", func(u string) error { _, err := rabbitmq.ParseURL(u); return err }},
		{"NATS: `nats://USER:PASSWORD@HOST:4222` with JetStream, `nats+core://` without", "../nats", "nats", func(u string) error { _, err := nats.ParseURL(u); return err }},
		{
			"Redis Streams: `redis://USER:PASSWORD@HOST:6379/0`, `rediss://`, `redis+cluster://HOST,HOST`, `redis+sentinel://HOST,HOST/NAME`", "../redisstreams", "redis",
			func(u string) error { _, err := redisstreams.ParseURL(u); return err },
		},
	}
}

func urlTables(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, a := range adapters() {
		fmt.Fprintf(&out, "\n### %s\n\n| parameter | field of `%s.Config` | |\n|---|---|---|\n", a.title, filepath.Base(a.folder))
		documented := map[string]bool{}
		for _, row := range a.rows(t) {
			for _, p := range row.parameters {
				documented[p] = true
			}
			shown := "–"
			if len(row.parameters) > 0 {
				shown = "`" + strings.Join(row.parameters, "`, `") + "`"
			}
			fmt.Fprintf(&out, "| %s | `%s` | %s |\n", shown, strings.Join(row.fields, "`, `"), strings.ReplaceAll(row.text, "|", `\|`))
		}
		known := a.known(t)
		if got, want := slices.Sorted(maps.Keys(documented)), slices.Sorted(slices.Values(known)); !slices.Equal(got, want) {
			t.Errorf("%s: its Config's comments have the parameters %q, its URL %q", a.folder, got, want)
		}
		for p := range documented {
			if err := a.parse(a.scheme + "://h?" + p + "=x"); err != nil && strings.Contains(err.Error(), "unknown parameter") {
				t.Errorf("%s does not know %s: %v", a.folder, p, err)
			}
		}
	}
	return out.String() + "\n"
}

// A row is one line of Config's fields, which share a comment.
type row struct {
	fields, parameters []string
	text               string
}

// rows reads the fields of an adapter's Config. A parameter stands in quotes in the comment, or is the field's name.
func (a adapter) rows(t *testing.T) (rows []row) {
	t.Helper()
	known := a.known(t)
	each(t, a.folder, func(n ast.Node) {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != "Config" {
			return
		}
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			text := f.Doc.Text()
			if text == "" {
				text = f.Comment.Text()
			}
			r := row{text: strings.Join(strings.Fields(text), " ")}
			for _, m := range regexp.MustCompile(`"(\w+)(?:=\w+)?"`).FindAllStringSubmatch(text, -1) {
				if slices.Contains(known, m[1]) && !slices.Contains(r.parameters, m[1]) {
					r.parameters = append(r.parameters, m[1])
				}
			}
			for _, name := range f.Names {
				r.fields = append(r.fields, name.Name)
				snake := strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(name.Name, "${1}_$2"))
				if len(r.parameters) == 0 && !strings.Contains(text, `"`) && slices.Contains(known, snake) {
					r.parameters = append(r.parameters, snake)
				}
			}
			if r.text == "" {
				t.Errorf("%s: %q have no comment", a.folder, r.fields)
			}
			rows = append(rows, r)
		}
	})
	return rows
}

// known are the parameters that the adapter's code reads: the keys of a map, or the cases of a switch, where it reads its URL.
func (a adapter) known(t *testing.T) (names []string) {
	t.Helper()
	add := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			name, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
	}
	each(t, a.folder, func(n ast.Node) {
		f, ok := n.(*ast.FuncDecl)
		if !ok || f.Name.Name != "set" && f.Name.Name != "parse" || f.Type.Params.NumFields() == 0 {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				add(n.Key)
			case *ast.SwitchStmt:
				if tag, ok := n.Tag.(*ast.Ident); ok && tag.Name == "key" {
					for _, c := range n.Body.List {
						for _, e := range c.(*ast.CaseClause).List {
							add(e)
						}
					}
				}
			}
			return true
		})
	})
	if len(names) == 0 {
		t.Errorf("%s: no parameters found", a.folder)
	}
	return names
}

func each(t *testing.T, folder string, visit func(ast.Node)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(folder, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			visit(d)
			if g, ok := d.(*ast.GenDecl); ok {
				for _, s := range g.Specs {
					visit(s)
				}
			}
		}
	}
}
