package hidetest

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

const module = "github.com/agenticverz/vaultexec"

// secrets are the types that hold a secret themselves.
var secrets = []string{module + "/internal/vault.Text", module + "/internal/vault.Value"}

// holders lists the types of the module that hold a secret, by the path of their package. Such a type has a secret in a
// field, or in another such type, in a list, in a map or behind a pointer. What a function gives is not in it. What a
// channel or an interface carries is judged by its own type. Types within functions are not listed: they would have to
// be made there.
func holders(root string) (map[string][]string, error) {
	names := map[string]map[string]bool{} // the types that a type is made of
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && file != root ||
			file == filepath.Join(root, "tools", "vault")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		if ok, err := build.Default.MatchFile(filepath.Dir(file), filepath.Base(file)); !ok || err != nil {
			return err
		}
		parsed, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		own := path.Join(module, filepath.ToSlash(rel))
		imports := map[string]string{}
		for _, spec := range parsed.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			name := path.Base(p)
			if spec.Name != nil {
				name = spec.Name.Name
			}
			imports[name] = p
		}
		for _, decl := range parsed.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE {
				continue
			}
			for _, spec := range gen.Specs {
				spec := spec.(*ast.TypeSpec)
				names[own+"."+spec.Name.Name] = mentioned(spec.Type, own, imports)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	holds := map[string]bool{}
	for _, s := range secrets {
		holds[s] = true
	}
	for grown := true; grown; {
		grown = false
		for name, of := range names {
			if holds[name] {
				continue
			}
			for other := range of {
				if holds[other] {
					holds[name], grown = true, true
				}
			}
		}
	}
	list := map[string][]string{}
	for name := range holds {
		dot := strings.LastIndexByte(name, '.')
		list[name[:dot]] = append(list[name[:dot]], name[dot+1:])
	}
	return list, nil
}

// mentioned lists the named types in a type.
func mentioned(x ast.Expr, own string, imports map[string]string) map[string]bool {
	found := map[string]bool{}
	ast.Inspect(x, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncType, *ast.ChanType, *ast.InterfaceType:
			return false
		case *ast.Field: // not its name, which may be that of a type
			for name := range mentioned(n.Type, own, imports) {
				found[name] = true
			}
			return false
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok {
				found[imports[pkg.Name]+"."+n.Sel.Name] = true
			}
			return false
		case *ast.Ident:
			found[own+"."+n.Name] = true
		}
		return true
	})
	return found
}
