package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// What a newcomer is sent to is there. A name counts as code: `launcher/exec.go`, `launcher/`, `launcher` where a folder is
// meant, `findProgram()`, `Session.Prepare()`, `environ.Build()`, `var kinds`, `make docs`, `TestErrors`; and so do links.
// A function has to be declared in one of the files and folders that stand beside it, in the same paragraph, item or row.
func TestDocumentsNameWhatExists(t *testing.T) {
	makefile := read(t, "Makefile")
	code := declarations(t)
	for _, document := range []string{"CONTRIBUTING.md", "docs/architecture.md"} {
		named := 0
		for _, block := range blocks(read(t, document)) {
			missing := func(what string) { t.Errorf("%s: %s, in %q", document, what, begin(block)) }
			spans := spansOf(block)
			var places []string
			for _, s := range spans {
				if isPath(s) {
					named++
					places = append(places, s)
					if found, _ := filepath.Glob(strings.TrimSuffix(s, "/")); len(found) == 0 {
						missing("no file " + s)
					}
				}
			}
			for _, link := range links.FindAllStringSubmatch(block, -1) {
				file, _, _ := strings.Cut(link[1], "#")
				if !strings.Contains(link[1], "://") && !vaulttest.Exists(path.Join(path.Dir(document), file)) {
					missing("no file " + link[1])
				}
			}
			for _, s := range spans {
				call, declared := callSpan.FindStringSubmatch(s), declaredSpan.FindStringSubmatch(s)
				switch {
				case call != nil:
					named++
					if !code.has(places, call[1], call[2]) {
						missing("no function " + s + " in " + strings.Join(places, ", "))
					}
				case declared != nil:
					named++
					if !code.has(places, "", s) {
						missing("no " + s + " in " + strings.Join(places, ", "))
					}
				case testSpan.MatchString(s) && !code.has([]string{"."}, "", s):
					missing("no test " + s)
				case strings.HasPrefix(s, "make ") && !strings.Contains(makefile, "\n"+strings.TrimPrefix(s, "make ")+":"):
					missing("the Makefile has no " + s)
				}
			}
		}
		if named < 25 {
			t.Errorf("%s names only %d files and functions: this test does not read it", document, named)
		}
		if !strings.Contains(read(t, "README.md"), "]("+document+")") {
			t.Errorf("the README does not link to %s", document)
		}
	}
}

// Every package is in the picture, or in the table below it.
func TestArchitectureHasEveryPackage(t *testing.T) {
	text := read(t, "docs/architecture.md")
	folders, err := filepath.Glob("internal/*")
	if err != nil || len(folders) < 10 {
		t.Fatalf("%d packages: %v", len(folders), err)
	}
	for _, folder := range append(folders, "launcher") {
		if !regexp.MustCompile(regexp.QuoteMeta(folder) + `\b`).MatchString(text) {
			t.Errorf("docs/architecture.md says nothing about %s", folder)
		}
	}
}

// What GitHub reads of this repository is valid, calls what a person would call, and takes no action that may be another
// one tomorrow.
func TestGitHubFiles(t *testing.T) {
	pinned := regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	uses := 0
	err := filepath.WalkDir(".github", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(file, ".yaml") && !strings.HasSuffix(file, ".yml") {
			return err
		}
		text := read(t, file)
		var doc map[string]any
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc) == 0 {
			t.Errorf("%s: %v", file, err)
		}
		for line := range strings.Lines(text) {
			if _, action, ok := strings.Cut(line, "uses: "); ok {
				uses++
				if !pinned.MatchString(strings.TrimSpace(action)) {
					t.Errorf("%s: %q is not of the form OWNER/NAME@COMMIT # vX.Y.Z", file, strings.TrimSpace(action))
				}
			}
		}
		return nil
	})
	if err != nil || uses == 0 {
		t.Errorf("%d actions: %v", uses, err)
	}
	for file, words := range map[string]string{
		".github/workflows/test.yaml": "/.ci/run", ".github/workflows/release.yaml": "make dist",
		".github/ISSUE_TEMPLATE/config.yml": "/security/advisories/new", ".github/pull_request_template.md": "CHANGELOG.md",
	} {
		if !strings.Contains(read(t, file), words) {
			t.Errorf("%s does not hold %q", file, words)
		}
	}
}

var (
	links        = regexp.MustCompile(`\]\(([^)]+)\)`)
	callSpan     = regexp.MustCompile(`^(?:(\w+)\.)?(\w+)\(\)$`)
	declaredSpan = regexp.MustCompile(`^(?:var|type|const) \w+$`)
	testSpan     = regexp.MustCompile(`^(?:Test|Fuzz)[A-Z]\w*$`)
	pathSpan     = regexp.MustCompile(`^[\w.*-]+(?:/[\w.*-]+)*/?$`)
	fileName     = regexp.MustCompile(`(?:^|/)(?:Makefile|LICENSE|[\w.*-]+\.(?:go|md|mod|sh|1|json|golden|txtar|ya?ml|example))$`)
)

// isPath reports whether a piece of code in a document is a file or a folder.
func isPath(s string) bool {
	return pathSpan.MatchString(s) && (strings.Contains(s, "/") || fileName.MatchString(s) || s == "launcher")
}

// blocks cuts a document into paragraphs, items and rows, without its examples.
func blocks(text string) []string {
	var list []string
	fresh := true
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "", strings.HasPrefix(line, "    "):
			fresh = true
			continue
		case fresh, strings.HasPrefix(line, "|"), itemBegin.MatchString(line):
			list = append(list, line)
		default:
			list[len(list)-1] += "\n" + line
		}
		fresh = false
	}
	return list
}

var itemBegin = regexp.MustCompile(`^(?:\*|\d+\.) `)

// spansOf lists the pieces of code in a block.
func spansOf(block string) []string {
	var list []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(block, -1) {
		list = append(list, strings.Join(strings.Fields(m[1]), " "))
	}
	return list
}

// begin is the first line of a block, for a message.
func begin(block string) string {
	line, _, _ := strings.Cut(block, "\n")
	return line[:min(len(line), 70)]
}

// declared is what the Go files declare: by file, "package.Name", "Type.Method", "var name" and the like.
type declared map[string][]string

// has reports whether one of the places, files or folders, declares a name. before is a type or a package, "" for any.
func (d declared) has(places []string, before, name string) bool {
	for file, names := range d {
		near := slices.ContainsFunc(places, func(place string) bool {
			ok, _ := path.Match(place, file)
			return ok || place == "." || strings.HasPrefix(file, strings.TrimSuffix(place, "/")+"/")
		})
		if near && slices.ContainsFunc(names, func(n string) bool {
			return n == name || n == before+"."+name || before == "" && strings.HasSuffix(n, "."+name)
		}) {
			return true
		}
	}
	return false
}

// declarations reads all Go files but those of other modules, for every system.
func declarations(t *testing.T) declared {
	t.Helper()
	d := declared{}
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && file != "." && (strings.HasPrefix(entry.Name(), ".") || vaulttest.Exists(file+"/go.mod")) {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(file, ".go") {
			return err
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range parsed.Decls {
			d[file] = append(d[file], namesIn(parsed.Name.Name, decl)...)
		}
		return nil
	})
	if err != nil || len(d) < 100 {
		t.Fatalf("%d Go files: %v", len(d), err)
	}
	return d
}

// namesIn lists what a declaration of a package declares.
func namesIn(pkg string, decl ast.Decl) []string {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		name := decl.Name.Name
		if decl.Recv == nil {
			return []string{name, pkg + "." + name}
		}
		receiver := decl.Recv.List[0].Type
		if star, ok := receiver.(*ast.StarExpr); ok {
			receiver = star.X
		}
		if ident, ok := receiver.(*ast.Ident); ok {
			return []string{ident.Name + "." + name}
		}
	case *ast.GenDecl:
		var names []string
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				names = append(names, "type "+spec.Name.Name)
			case *ast.ValueSpec:
				for _, n := range spec.Names {
					names = append(names, decl.Tok.String()+" "+n.Name)
				}
			}
		}
		return names
	}
	return nil
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
