package omnibus_test

import (
	"go/ast"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What is written for people is complete, and true as far as a test can see.

// Whatever users can name says what it means: a comment above it, or behind it.
func TestExportedNamesHaveComments(t *testing.T) {
	for _, p := range packages(t) {
		if p.Name == "main" || ours(p) {
			continue
		}
		for _, file := range p.production {
			for _, name := range uncommented(parse(t, file)) {
				t.Errorf("%s: %s has no comment", file, name)
			}
		}
	}
}

// ours says that nobody else can import the package, or would.
func ours(p pkg) bool {
	return slices.ContainsFunc(strings.Split(p.rel, "/"), func(dir string) bool { return dir == "internal" || dir == "examples" })
}

// uncommented lists the exported names of a file that have no comment. Embedded fields need none, and neither do methods of what is not exported.
func uncommented(f *ast.File) (names []string) {
	note := func(name string, docs ...*ast.CommentGroup) {
		if ast.IsExported(name[strings.LastIndexByte(name, '.')+1:]) && !slices.ContainsFunc(docs, func(c *ast.CommentGroup) bool { return c.Text() != "" }) {
			names = append(names, name)
		}
	}
	fields := func(of string, list *ast.FieldList) {
		for _, field := range list.List {
			for _, name := range field.Names {
				note(of+"."+name.Name, field.Doc, field.Comment)
			}
		}
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			switch of := receiver(d); {
			case of == "":
				note(d.Name.Name, d.Doc)
			case ast.IsExported(of):
				note(of+"."+d.Name.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if !ast.IsExported(s.Name.Name) {
						continue
					}
					note(s.Name.Name, d.Doc, s.Doc)
					switch of := s.Type.(type) {
					case *ast.StructType:
						fields(s.Name.Name, of.Fields)
					case *ast.InterfaceType:
						fields(s.Name.Name, of.Methods)
					}
				case *ast.ValueSpec:
					docs := []*ast.CommentGroup{s.Doc, s.Comment}
					if d.Lparen == token.NoPos {
						docs = append(docs, d.Doc)
					}
					for _, name := range s.Names {
						note(name.Name, docs...)
					}
				}
			}
		}
	}
	return names
}

// receiver is the type that a function is a method of, "" = none.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	of := d.Recv.List[0].Type
	for {
		switch x := of.(type) {
		case *ast.StarExpr:
			of = x.X
		case *ast.IndexExpr:
			of = x.X
		case *ast.IndexListExpr:
			of = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// pages are the texts of the repository, by their paths.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "build"):
			return filepath.SkipDir
		case !d.IsDir() && filepath.Ext(file) == ".md":
			all[filepath.ToSlash(file)] = string(read(t, file))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 5 {
		t.Fatalf("there are only %q", slices.Sorted(maps.Keys(all)))
	}
	return all
}

// What a text links to in this repository is there, with the heading that it names.
func TestLinks(t *testing.T) {
	all := pages(t)
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for page, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(page), file))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(all[target]), anchor) {
				t.Errorf("%s links to %s, and %s has no such heading", page, m[1], target)
			}
		}
	}
}

// anchors are the headings of a page as links name them.
func anchors(text string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		name := strings.ToLower(strings.ReplaceAll(m[1], " ", "-"))
		all = append(all, regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(name, ""))
	}
	return all
}

// Each command of make that a text names is there.
func TestMakeCommands(t *testing.T) {
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllSubmatch(read(t, "Makefile"), -1) {
		targets[string(m[1])] = true
	}
	command := regexp.MustCompile("(?m)(?:`|^)make ([a-z-]+)")
	found := 0
	for page, text := range pages(t) {
		for _, m := range command.FindAllStringSubmatch(text, -1) {
			if found++; !targets[m[1]] {
				t.Errorf("%s names make %s, which there is not", page, m[1])
			}
		}
	}
	if found == 0 {
		t.Error("no text names a command")
	}
}

// The layout in DESIGN.md has what is there: each folder that it names, and each package that others can import.
func TestLayout(t *testing.T) {
	_, rest, _ := strings.Cut(string(read(t, "DESIGN.md")), "## Layout\n")
	table, _, ok := strings.Cut(rest, "\n## ")
	if !ok {
		t.Fatal("DESIGN.md has no layout")
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z/*_.]+)`").FindAllStringSubmatch(table, -1) {
		name := strings.TrimSuffix(m[1], "/")
		named[name] = true
		if found, err := filepath.Glob(name); err != nil || len(found) == 0 {
			t.Errorf("the layout has %s, which is not there (%v)", m[1], err)
		}
	}
	for _, p := range packages(t) {
		if ours(p) || len(p.production) == 0 || p.rel == "" || named[p.rel] {
			continue
		}
		// or the row of the folder above has it
		if dir, base := path.Split(p.rel); !named[strings.TrimSuffix(dir, "/")] || !strings.Contains(table, "`"+base+"`") {
			t.Errorf("the layout does not have %s", p.rel)
		}
	}
}

// The program at the top of README.md is the one that is run as an example.
func TestReadmeProgram(t *testing.T) {
	_, rest, _ := strings.Cut(string(read(t, "README.md")), "```go\nfunc main() {\n")
	got, _, ok := strings.Cut(rest, "}\n```\n")
	if !ok {
		t.Fatal("README.md has no program")
	}
	_, rest, _ = strings.Cut(string(read(t, filepath.Join("examples", "programs", "hello_test.go"))), "func Example_hello() {\n")
	want, _, ok := strings.Cut(rest, "\t// Output:")
	if !ok || got != want {
		t.Errorf("README.md has\n%s\nand the example is\n%s", got, want)
	}
}
