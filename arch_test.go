package omnibus_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The rules of this repository that no compiler checks. Folders that do not exist yet have their rules already.

const module = "github.com/omnibus-go/omnibus"

// mayImport says which of our own packages a folder may import, besides those inside itself. "*" is any. What has a line of its own follows
// that; everything else the line of its top folder.
var mayImport = map[string][]string{
	"":             nil, // the module's doc
	"pubsub":       {"internal/"},
	"kafka":        {"pubsub", "internal/"},
	"rabbitmq":     {"pubsub", "internal/"},
	"redisstreams": {"pubsub", "internal/"},
	"nats":         {"pubsub", "internal/"},
	"memory":       {"pubsub", "internal/"},
	"middleware":   {"pubsub", "internal/"},
	"dlq":          {"pubsub", "internal/"},
	"pubsubtest":   {"pubsub", "memory", "internal/"},
	"conformance":  {"pubsub", "internal/", "middleware", "middleware/security", "dlq"},
	"internal":     nil,
	"brokers":      {"pubsub", "internal/", "kafka", "rabbitmq", "redisstreams", "nats", "memory"},
	"config":       {"pubsub", "internal/", "middleware", "middleware/security", "dlq"}, // brokers come to it in a pubsub.Mux
	"cmd":          {"*"},
	"examples":     {"*"},

	// The store of what was handled is package middleware's.
	"middleware/security": {"pubsub", "internal/", "middleware"},

	"internal/adaptertest": {"pubsub", "dlq", "conformance", "conformance/containers", "internal/"}, // for tests
	"internal/benchclient": {"pubsub", "internal/"},
	"internal/drivers":     {"pubsub"},

	// A page is made of what the suite has written; it needs no broker, and the suite does not need it (nor html/template).
	"conformance/report": {"conformance"},
}

// mayLink says which modules of others a package may link, by its longest prefix here; the others link none.
// "*" is any: what starts containers links a client of the container daemon with all that it needs, and only tests and a
// command of this repository import it.
var mayLink = map[string][]string{
	"middleware": {
		"github.com/sony/gobreaker/v2", // Breaker's state machine: one package over the standard library. failsafe-go's links a bit set, and its module requires gRPC
		"golang.org/x/time",            // RateLimit's token bucket, one package over the standard library
	},

	"conformance":          {"github.com/sony/gobreaker/v2", "golang.org/x/time"}, // those of middleware: engine, breaker and poison keep promises together
	"internal/cmd/conform": {"github.com/sony/gobreaker/v2", "golang.org/x/time"}, // the suite's
	"internal/cmd/testsum": {"github.com/sony/gobreaker/v2", "golang.org/x/time"}, // the same: it prints the suite's reports

	"conformance/containers": {"*"},
	"internal/adaptertest":   {"*"},
	"internal/cmd/brokers":   {"*"},

	// the client, and what it links: codecs, Kerberos, proxies, its metrics; SCRAM is kept by others
	"kafka": {
		"github.com/IBM/sarama", "github.com/davecgh/go-spew", "github.com/eapache/go-resiliency", "github.com/hashicorp/go-uuid",
		"github.com/jcmturner", "github.com/klauspost/compress", "github.com/pierrec/lz4/v4", "github.com/rcrowley/go-metrics", "github.com/xdg-go/scram", "github.com/xdg-go/stringprep", "golang.org/x/crypto",
		"golang.org/x/net", "golang.org/x/sys", "golang.org/x/text",
	},

	// the client, and what it links: hashes for its caches, atomics
	"redisstreams": {"github.com/redis/go-redis/v9", "github.com/cespare/xxhash/v2", "go.uber.org/atomic", "golang.org/x/sys"},

	// the client, and what it links: ed25519 keys, names of inboxes, compressed websockets
	"nats": {"github.com/nats-io/nats.go", "github.com/nats-io/nkeys", "github.com/nats-io/nuid", "github.com/klauspost/compress", "golang.org/x/crypto", "golang.org/x/sys"},

	"rabbitmq": {"github.com/rabbitmq/amqp091-go"}, // the client, which links nothing else

	// a parser that keeps lines, over the standard library alone; and those of middleware
	"config": {"go.yaml.in/yaml/v3", "github.com/sony/gobreaker/v2", "golang.org/x/time"},
}

// mayRequire is all that go.mod may name. What only a tool needs is in tools.mod.
// What these require in turn (indirect) follows from them. Go's module graph is pruned: who imports pubsub or an adapter
// downloads none of what only conformance/containers links.
var mayRequire = []string{
	"go.uber.org/goleak", // tests: no goroutine outlives Close

	// middleware, see mayLink
	"github.com/sony/gobreaker/v2",
	"golang.org/x/time",

	// the adapter kafka
	"github.com/IBM/sarama",          // the client; conformance/containers asks with it whether Kafka can serve, and for its version
	"github.com/rcrowley/go-metrics", // the client's metrics, which are switched off by their own interface; sarama links it anyway
	"github.com/xdg-go/scram",        // SCRAM, which the client leaves to others; its own tests use this one

	// the adapter nats
	"github.com/nats-io/nats.go", // the client; NATS clients of the tests of conformance/containers, too
	"github.com/nats-io/nuid",    // names of messages that wait for their time; nats.go links it anyway

	"github.com/rabbitmq/amqp091-go", // the client of the adapter rabbitmq, and of the tests of conformance/containers

	// the adapter redisstreams
	"github.com/redis/go-redis/v9", // the client; the tests of conformance/containers have it, too

	"github.com/spf13/cobra", // cmd/omnibus, which nobody imports: flags, help, completion
	"github.com/spf13/pflag", // its flags, in its own signatures

	// config. The YAML organization's own, which is kept (gopkg.in/yaml.v3 is archived) and in the module graph anyway, through sarama. v4 has the same nodes
	// and would be one module more; goccy/go-yaml's errors quote the file, which has secrets.
	"go.yaml.in/yaml/v3",

	// conformance/containers
	"github.com/Shopify/toxiproxy/v2",             // the faults of the network
	"github.com/moby/moby/api",                    // the container daemon's API, in testcontainers' own signatures
	"github.com/moby/moby/client",                 // kill, pause and inspect, which testcontainers does not have
	"github.com/nats-io/jwt/v2",                   // NATS credentials made at test time
	"github.com/nats-io/nkeys",                    // keys of these credentials
	"github.com/rs/zerolog",                       // toxiproxy takes its logger: a silent one
	"github.com/testcontainers/testcontainers-go", // containers
}

// modules are the nested ones: their own go.mod keeps what they require from whoever imports this module. Each may require, beside us,
// what is listed here.
var modules = map[string][]string{
	"middleware/security/wycheproof": {
		"github.com/c2sp/wycheproof", // test vectors, 100 MB of them
	},
	"middleware/security/tinkkeys": {
		"github.com/tink-crypto/tink-go/v2", // Tink's keysets; it links protobuf and some of golang.org/x/crypto
		"go.uber.org/goleak",                // tests, as here
		"google.golang.org/protobuf",        // tests: a keyset that Tink would not write; Tink links it anyway
	},
	"benchmarks": {
		"github.com/ThreeDotsLabs/watermill",         // a peer; for GoChannel it links uuid, ulid, shortuuid and errors
		"github.com/ThreeDotsLabs/watermill-nats/v2", // a peer, on JetStream
		"github.com/nats-io/nats.go",                 // raw on NATS; the adapter has it anyway
		"gocloud.dev",                                // a peer; for mempubsub it links grpc, protobuf and OpenTelemetry's SDK

		"github.com/IBM/sarama",                       // raw on Kafka; the adapter has it anyway
		"github.com/ThreeDotsLabs/watermill-kafka/v3", // a peer, on Kafka; it links OpenTelemetry for sarama
		"github.com/twmb/franz-go",                    // Kafka's other client: what another choice would have given
		"gocloud.dev/pubsub/kafkapubsub",              // a peer, on Kafka

		"github.com/ThreeDotsLabs/watermill-redisstream", // a peer, on Redis
		"github.com/redis/go-redis/v9",                   // raw on Redis; the adapter has it anyway

		"github.com/ThreeDotsLabs/watermill-amqp/v3", // a peer, on RabbitMQ
		"github.com/rabbitmq/amqp091-go",             // raw on RabbitMQ; the adapter has it anyway
		"gocloud.dev/pubsub/rabbitpubsub",            // a peer, on RabbitMQ
	},
}

// mayUseTesting are the packages that link the testing package: they are for tests only.
// testcontainers links it too.
var mayUseTesting = []string{"pubsubtest", "conformance/containers", "internal/adaptertest", "internal/child", "internal/cmd/brokers"}

const maxLines = 500 // of a production Go file

type pkg struct {
	ImportPath, Name        string
	GoFiles, IgnoredGoFiles []string
	Imports, Deps           []string

	rel        string   // the import path within the module; "" = the root
	production []string // its Go files that are no tests, build tags or not
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out := goTool(t, "list", "-json=ImportPath,Name,GoFiles,IgnoredGoFiles,Imports,Deps", "./...")
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		p.rel = strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, f := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
			if !strings.HasSuffix(f, "_test.go") {
				p.production = append(p.production, filepath.Join(filepath.FromSlash(p.rel), f))
			}
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		t.Fatal("no packages")
	}
	return all
}

func goTool(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out
}

func TestImportRules(t *testing.T) {
	for _, p := range packages(t) {
		top, _, _ := strings.Cut(p.rel, "/")
		allowed, known := mayImport[top]
		if !known {
			t.Errorf("%s: the folder %q has no import rule yet: add it to mayImport", p.ImportPath, top)
			continue
		}
		if own, has := mayImport[p.rel]; has {
			top, allowed = p.rel, own
		}
		if strings.HasPrefix(p.rel, "internal/cmd/") {
			continue // programs of the repository itself
		}
		for _, imp := range p.Imports {
			rel, ours := strings.CutPrefix(imp, module+"/")
			if !ours || within(rel, top) {
				continue
			}
			if !slices.ContainsFunc(allowed, func(a string) bool {
				return a == "*" || a == rel || strings.HasSuffix(a, "/") && strings.HasPrefix(rel, a)
			}) {
				t.Errorf("%s imports %s; %s may import only %q of ours", p.rel, rel, top, allowed)
			}
		}
	}
}

// Who imports one adapter must link no other client, and the core links nothing but the standard library.
func TestLinkedModules(t *testing.T) {
	std := map[string]bool{}
	for p := range strings.FieldsSeq(string(goTool(t, "list", "std"))) {
		std[p] = true
	}
	for _, p := range packages(t) {
		if top, _, _ := strings.Cut(p.rel, "/"); slices.Contains(mayImport[top], "*") || top == "brokers" {
			continue // they link what their imports do
		}
		allowed := longest(mayLink, p.rel)
		for _, dep := range p.Deps {
			if std[dep] || strings.HasPrefix(dep, "vendor/") || within(dep, module) {
				continue
			}
			if !slices.ContainsFunc(allowed, func(m string) bool { return m == "*" || within(dep, m) }) {
				t.Errorf("%s links %s; it may link only %q", p.ImportPath, dep, allowed)
			}
		}
	}
}

func TestNoTestingInBinaries(t *testing.T) {
	all := packages(t)
	for _, rel := range mayUseTesting { // an exception that nobody needs any more would hide the next one
		if !slices.ContainsFunc(all, func(p pkg) bool { return p.rel == rel && slices.Contains(p.Deps, "testing") }) {
			t.Errorf("mayUseTesting names %q, which does not link testing", rel)
		}
	}
	for _, p := range all {
		if slices.Contains(mayUseTesting, p.rel) {
			continue
		}
		for _, dep := range p.Deps {
			if within(dep, "testing") {
				t.Errorf("%s links %s", p.ImportPath, dep)
			}
		}
	}
}

func TestRequirements(t *testing.T) {
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace []struct{ Old struct{ Path string } }
		Tool    []struct{ Path string }
	}
	if err := json.Unmarshal(goTool(t, "mod", "edit", "-json"), &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if !r.Indirect && !slices.Contains(mayRequire, r.Path) {
			t.Errorf("go.mod requires %s: users would get it too", r.Path)
		}
	}
	if len(mod.Replace) > 0 || len(mod.Tool) > 0 {
		t.Error("go.mod has replace or tool lines; tools belong in tools.mod")
	}
}

// The rules that need no build hold in nested modules too; their peers are not downloaded for this.
func TestNestedModules(t *testing.T) {
	var found []string
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "build"):
			return filepath.SkipDir
		case d.Name() == "go.mod" && file != "go.mod":
			found = append(found, filepath.ToSlash(filepath.Dir(file)))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Sorted(maps.Keys(modules)); !slices.Equal(found, want) {
		t.Errorf("nested modules %q, want %q: add it to modules", found, want)
	}
	for _, dir := range found {
		var mod struct {
			Module  struct{ Path string }
			Require []struct {
				Path     string
				Indirect bool
			}
			Replace []struct{ Old, New struct{ Path string } }
		}
		if err := json.Unmarshal(goTool(t, "mod", "edit", "-json", dir+"/go.mod"), &mod); err != nil {
			t.Fatal(err)
		}
		if mod.Module.Path != module+"/"+dir {
			t.Errorf("%s is called %s: it could not import our internal packages", dir, mod.Module.Path)
		}
		if len(mod.Replace) != 1 || mod.Replace[0].Old.Path != module || path.Join(dir, mod.Replace[0].New.Path) != "." {
			t.Errorf("%s: replace %+v; it is to use this module as it lies here, and nothing else in another's place", dir, mod.Replace)
		}
		for _, r := range mod.Require {
			if !r.Indirect && r.Path != module && !slices.Contains(modules[dir], r.Path) {
				t.Errorf("%s requires %s: name it in modules, with what it drags in", dir, r.Path)
			}
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		var production []*ast.File
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			production = append(production, parse(t, file))
			if n := bytes.Count(read(t, file), []byte("\n")); n > maxLines {
				t.Errorf("%s has %d lines, more than %d: split it by noun", file, n, maxLines)
			}
		}
		for _, problem := range mutableState(production) {
			t.Errorf("%s: %s", dir, problem)
		}
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		var with []string
		for _, file := range p.production {
			f := parse(t, file)
			if f.Doc == nil {
				continue
			}
			with = append(with, filepath.Base(file))
			want := "Package " + p.Name + " "
			if p.Name == "main" {
				want = "Command " + path.Base(p.ImportPath) + " "
			}
			if !strings.HasPrefix(f.Doc.Text(), want) {
				t.Errorf("%s: the package comment does not begin with %q", p.ImportPath, want)
			}
		}
		if len(p.production) > 0 && len(with) != 1 {
			t.Errorf("%s: %d package comments, in %v; want one", p.ImportPath, len(with), with)
		}
	}
}

func TestNoInitAndNoMutableState(t *testing.T) {
	for _, p := range packages(t) {
		var files []*ast.File
		for _, file := range p.production {
			files = append(files, parse(t, file))
		}
		for _, problem := range mutableState(files) {
			t.Errorf("%s: %s", p.ImportPath, problem)
		}
	}
}

func TestFileLength(t *testing.T) {
	for _, p := range packages(t) {
		for _, file := range p.production {
			if n := bytes.Count(read(t, file), []byte("\n")); n > maxLines {
				t.Errorf("%s has %d lines, more than %d: split it by noun", file, n, maxLines)
			}
		}
	}
}

// What would be out of place in a published repository. The patterns are written so that they do not match themselves.
func TestTexts(t *testing.T) {
	everywhere := map[string]*regexp.Regexp{
		"a path of one machine": regexp.MustCompile(`(^|[\s"'=(:])/(wor[k]|roo[t]|hom[e])/`),
		"a registry's host":     regexp.MustCompile(`proxy\.golang\.or[g]|npmjs\.(or[g]|com)|pypi\.or[g]|deb\.debian\.or[g]|repo1?\.maven`),
	}
	goFiles := map[string]*regexp.Regexp{
		"unfinished work": regexp.MustCompile(`\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b|(?i)\bfor no[w]\b`),
	}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "build"):
			return filepath.SkipDir
		case d.IsDir() || !d.Type().IsRegular() || strings.HasSuffix(file, ".sum") || file == ".git": // a file in a worktree
			return nil
		}
		text := read(t, file)
		for i, line := range bytes.Split(text, []byte("\n")) {
			for what, re := range everywhere {
				if re.Match(line) {
					t.Errorf("%s:%d: %s: %s", file, i+1, what, line)
				}
			}
			for what, re := range goFiles {
				if strings.HasSuffix(file, ".go") && re.Match(line) {
					t.Errorf("%s:%d: %s: %s", file, i+1, what, line)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// mutableState finds init functions and package variables that can change: exported ones, locks, counters and channels,
// and those that a function assigns or takes the address of.
func mutableState(files []*ast.File) (problems []string) {
	vars := map[string]*ast.ValueSpec{}
	for _, f := range files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					problems = append(problems, "func init")
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR {
					continue
				}
				for _, spec := range d.Specs {
					spec := spec.(*ast.ValueSpec)
					for _, name := range spec.Names {
						if name.Name == "_" {
							continue
						}
						vars[name.Name] = spec
						if name.IsExported() {
							problems = append(problems, "var "+name.Name+" is exported: anyone can change it")
						}
						if changing(spec.Type) {
							problems = append(problems, "var "+name.Name+" is shared state")
						}
					}
				}
			}
		}
	}
	written := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
				continue
			case *ast.SelectorExpr:
				e = x.X
				continue
			case *ast.ParenExpr:
				e = x.X
				continue
			case *ast.StarExpr:
				e = x.X
				continue
			case *ast.Ident:
				// the parser resolves what is declared in a function; a package variable of another file has no Obj
				if spec := vars[x.Name]; spec != nil && (x.Obj == nil || x.Obj.Decl == spec) {
					problems = append(problems, "var "+x.Name+" is changed by a function")
				}
			}
			return
		}
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						written(e)
					}
				}
			case *ast.IncDecStmt:
				written(n.X)
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					written(n.Key)
					written(n.Value)
				}
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					written(n.X)
				}
			}
			return true
		})
	}
	return problems
}

func changing(typ ast.Expr) bool {
	switch x := typ.(type) {
	case *ast.ChanType:
		return true
	case *ast.IndexExpr:
		return changing(x.X)
	case *ast.SelectorExpr:
		from, ok := x.X.(*ast.Ident)
		return ok && (from.Name == "sync" || from.Name == "atomic")
	}
	return false
}

func TestMutableStateIsFound(t *testing.T) {
	for src, want := range map[string]int{
		`var _ error = e{}; var table = map[string]int{"a": 1}; func f() int { return table["a"] }`: 0,
		`var table = []int{1}; func f() { table := []int{2}; table[0]++ ; table = nil }`:            0,
		`var n int; func f() { n++ }`:                          1,
		`var m = map[int]int{}; func f() { m[1] = 2 }`:         1,
		`var s struct{ x int }; func f() *int { return &s.x }`: 1,
		`import "sync"; var mu sync.Mutex`:                     1,
		`import "sync/atomic"; var p atomic.Pointer[int]`:      1,
		`var Default = 1`:                                      1,
		`func init() {}`:                                       1,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "p.go", "package p; "+src, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := mutableState([]*ast.File{f}); len(got) != want {
			t.Errorf("%s: %q, want %d", src, got, want)
		}
	}
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, read(t, file), parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// within says whether p is root or lies below it.
func within(p, root string) bool { return p == root || strings.HasPrefix(p, root+"/") }

func longest(rules map[string][]string, p string) []string {
	for ; p != "." && p != ""; p = path.Dir(p) {
		if r, ok := rules[p]; ok {
			return r
		}
	}
	return nil
}
