package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What holds the house together: which room may know which, and that a room can be looked over.

const module = "github.com/agenticverz/vaultexec"

// floors has the packages of the program from the top to the bottom. A package imports only what is below it.
var floors = [][]string{
	{"."},
	{"internal/cli"},
	{"launcher"},
	{"internal/environ"},
	{"internal/vault", "internal/listen", "internal/serving", "internal/notify", "internal/statusserver", "internal/scan", "internal/browser", "internal/cloud", "internal/restartlock"},
	{"internal/mask", "internal/fault", "internal/trust", "internal/clock", "internal/reap", "internal/dotenv", "internal/fallback", "internal/nodump", "internal/quit"},
	{"internal/wholefile"},
}

// pureImports is what internal/environ may import: nothing that opens a file, starts a program, waits or asks for the time.
var pureImports = []string{
	"encoding/base64", "encoding/json", "errors", "fmt", "io/fs", "net/url", "path", "slices", "sort", "strconv", "strings",
	module + "/internal/fault", module + "/internal/vault",
}

const (
	mostLines = 450 // of a file of the program
	mostRoot  = 6   // Go files in the root
)

// goPackage is what go list tells of a package.
type goPackage struct {
	Dir            string
	ImportPath     string
	Imports        []string
	GoFiles        []string
	IgnoredGoFiles []string // of other systems
}

// programPackages lists the packages of this module that the program is made of, on one system.
func programPackages(t *testing.T, system string) (all []goPackage) {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=Dir,ImportPath,Imports,GoFiles,IgnoredGoFiles", ".")
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, &stderr)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := dec.Decode(&p)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.ImportPath == module || strings.HasPrefix(p.ImportPath, module+"/") {
			all = append(all, p)
		}
	}
	if len(all) < 10 {
		t.Fatalf("%d packages, which cannot be all", len(all))
	}
	return all
}

// floorOf is the number of a package's floor from the top, or -1.
func floorOf(path string) int {
	room := strings.TrimPrefix(path, module+"/")
	if path == module {
		room = "."
	}
	return slices.IndexFunc(floors, func(rooms []string) bool { return slices.Contains(rooms, room) })
}

// TestPackagesPointDown: main → internal/cli → launcher → internal/environ, internal/vault, internal/mask → internal/fault, and nothing
// back. What is not in floors is no part of the program: helpers of tests, and what has no place yet.
func TestPackagesPointDown(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, system := range []string{"linux", "darwin"} {
		for _, p := range programPackages(t, system) {
			seen[p.ImportPath] = true
			floor := floorOf(p.ImportPath)
			if floor < 0 {
				t.Errorf("%s: %s has no place in floors", system, p.ImportPath)
				continue
			}
			for _, imported := range p.Imports {
				if below := floorOf(imported); below >= 0 && below <= floor {
					t.Errorf("%s: %s imports %s, which is not below it", system, p.ImportPath, imported)
				}
			}
			if p.ImportPath != module+"/internal/environ" {
				continue
			}
			for _, imported := range p.Imports {
				if !slices.Contains(pureImports, imported) {
					t.Errorf("%s: %s imports %s, and is no longer pure", system, p.ImportPath, imported)
				}
			}
		}
	}
	for _, rooms := range floors {
		for _, room := range rooms {
			if path := strings.TrimSuffix(module+"/"+room, "/."); !seen[path] {
				t.Errorf("floors names %s, which is no part of the program", room)
			}
		}
	}
}

// TestFilesAreShort: every file of the program, for whatever system, can be looked over.
func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, p := range programPackages(t, "linux") {
		for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			path := filepath.Join(p.Dir, name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files++
			short, _ := filepath.Rel(root, path)
			if n := strings.Count(string(b), "\n"); n > mostLines {
				t.Errorf("%s has %d lines, which is more than %d: give a part of it a file of its own", short, n, mostLines)
			}
		}
	}
	if files < 100 {
		t.Errorf("%d files, which cannot be all", files)
	}
	if inRoot, _ := filepath.Glob("*.go"); len(inRoot) > mostRoot || len(inRoot) == 0 {
		t.Errorf("%d Go files in the root, and %d are the most: %s", len(inRoot), mostRoot, strings.Join(inRoot, ", "))
	}
}

// TestAlone holds tools/alone.txt: a package of the program whose tests run without the race detector shares nothing.
func TestAlone(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile(filepath.Join("tools", "alone.txt"))
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for line := range strings.Lines(string(list)) {
		dir := strings.TrimSpace(line)
		if strings.HasPrefix(dir, "#") {
			continue
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: no package: %v", dir, err)
		}
		if !strings.HasPrefix(dir, "./internal/") {
			continue // tests that start the program, or a tool
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				shares(t, file)
				looked++
			}
		}
	}
	if looked < 10 {
		t.Errorf("only %d files were looked at", looked)
	}
}

// shares complains about what needs the race detector: goroutines, channels, locks.
func shares(t *testing.T, file string) {
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		what := ""
		switch n := n.(type) {
		case *ast.GoStmt:
			what = "a goroutine"
		case *ast.ChanType:
			what = "a channel"
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && (x.Name == "atomic" || x.Name == "sync" && !strings.HasPrefix(n.Sel.Name, "Once")) {
				what = x.Name + "." + n.Sel.Name
			}
		}
		if what != "" {
			t.Errorf("%s: %s: its package is not for tools/alone.txt", set.Position(n.Pos()), what)
		}
		return true
	})
}
