package fault_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestTextsAreForPeople holds that no code goes by what a failure says: whoever rewords a text must not change what happens. The
// kind and the cause are there for that. This package itself joins and compares texts, without knowing any.
func TestTextsAreForPeople(t *testing.T) {
	files := 0
	walk := func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path == filepath.Join("..", "fault"):
			return filepath.SkipDir
		case d.IsDir(), !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			for _, text := range judged(n) {
				t.Errorf("%s: code goes by the text %s", set.Position(n.Pos()), text)
			}
			return true
		})
		return nil
	}
	if err := errors.Join(filepath.WalkDir("..", walk), filepath.WalkDir(filepath.Join("..", "..", "launcher"), walk)); err != nil || files < 90 {
		t.Fatalf("%d files: %v", files, err)
	}
}

// judged lists the texts of failures that a node compares with something, or takes apart.
func judged(n ast.Node) (texts []string) {
	add := func(exprs ...ast.Expr) {
		for _, e := range exprs {
			if s, ok := e.(*ast.SelectorExpr); ok && (s.Sel.Name == "Why" || s.Sel.Name == "What" || s.Sel.Name == "Hint") {
				texts = append(texts, "."+s.Sel.Name)
			}
		}
	}
	switch n := n.(type) {
	case *ast.BinaryExpr:
		comparison := n.Op == token.EQL || n.Op == token.NEQ || n.Op == token.LSS || n.Op == token.GTR || n.Op == token.LEQ || n.Op == token.GEQ
		if hint, ok := n.X.(*ast.SelectorExpr); ok && hint.Sel.Name == "Hint" && isEmptyText(n.Y) {
			return nil // whether there is one says nothing of its words
		}
		if comparison {
			add(n.X, n.Y)
		}
	case *ast.SwitchStmt:
		add(n.Tag)
	case *ast.IndexExpr: // of a map by texts
		add(n.Index)
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.SelectorExpr)
		if !ok {
			return nil
		}
		if pkg, ok := f.X.(*ast.Ident); ok && (pkg.Name == "strings" || pkg.Name == "slices" || pkg.Name == "regexp") || f.Sel.Name == "MatchString" {
			add(n.Args...)
		}
	}
	return texts
}

func isEmptyText(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Value == `""`
}

// TestJudged is the negative control: what the test above looks for, it finds.
func TestJudged(t *testing.T) {
	for _, src := range []string{
		`f.Why == whyNoSecret`, `"x" != f.What`, `f.Hint == other`, `strings.Contains(f.Hint, "https://")`, `strings.HasPrefix(fault.Of(err).Why, x)`,
		`slices.Contains(list, f.Why)`, `seen[f.What]`, `re.MatchString(f.Why)`,
	} {
		e, err := parser.ParseExpr(src)
		if err != nil {
			t.Fatal(err)
		}
		if len(judged(e)) == 0 {
			t.Errorf("%s passes", src)
		}
	}
	for _, src := range []string{`f.Hint != ""`, `f.Kind == fault.Missing`, `f.Why + "; more"`, `strings.Contains(name, "Why")`} {
		if e, err := parser.ParseExpr(src); err != nil || len(judged(e)) != 0 {
			t.Errorf("%s does not pass (%v)", src, err)
		}
	}
}
