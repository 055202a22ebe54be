package e2e

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// event is a line of the log. What is known at run time only is "…" in its message.
type event struct {
	level, message string
	fields         []string // in their order; one in brackets is there only sometimes
}

// row is the event as docs/events.md has it, but for what it says about it.
func (e event) row() string {
	fields := make([]string, len(e.fields))
	for i, f := range e.fields {
		fields[i] = "`" + f + "`"
		if name, ok := strings.CutPrefix(f, "("); ok {
			fields[i] = "(`" + strings.TrimSuffix(name, ")") + "`)"
		}
	}
	quote := "`"
	if strings.Contains(e.message, "`") {
		quote = "``"
	}
	return "| " + quote + e.message + quote + " | " + e.level + " | " + strings.Join(fields, ", ") + " |"
}

// key is what tells an event from others.
func (e event) key() string { return e.level + " " + e.message }

// Whose message is a failure's own text from its beginning to its end. Nobody could tell other events of that kind apart.
var ownText = []string{"internal/cli ui.fail", "internal/vault keeper.outcome"}

// docs/events.md has every line that vaultexec logs, with its level and its fields, and nothing else.
func TestEventsAreDocumented(t *testing.T) {
	logged := loggedEvents(t, "launcher", "internal")
	text := read(t, "docs/events.md")
	documented, fields := documentedEvents(t, text)
	for _, key := range slices.Sorted(maps.Keys(logged)) {
		e := logged[key]
		switch found, ok := documented[key]; {
		case !ok:
			t.Errorf("docs/events.md lacks %s", e.row())
		case !slices.Equal(found.fields, e.fields):
			t.Errorf("docs/events.md has other fields, and should say %s", e.row())
		}
		for _, f := range e.fields {
			name := strings.Trim(f, "()")
			if !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(name) {
				t.Errorf("a field is called %q, in %s", name, e.row())
			}
			if _, ok := fields[name]; !ok {
				t.Errorf("docs/events.md does not say what the field %s is", name)
			}
			fields[name] = true
		}
	}
	for key := range documented {
		if _, ok := logged[key]; !ok {
			t.Errorf("docs/events.md has %q, which is not logged", key)
		}
	}
	for name, used := range fields {
		if !used {
			t.Errorf("docs/events.md explains the field %s, which is not logged", name)
		}
	}
}

// The test above sees what it should: the same file with something more, less, or else.
func TestEventsAreReadFromTheCode(t *testing.T) {
	dir := t.TempDir()
	source := `package p
func (s *supervisor) f(err error, n int) {
	attrs := []any{"pid", n}
	if n > 0 {
		attrs = append(attrs, "ports", n)
	}
	s.Log.Warn("one: "+err.Error(), append(attrs, hinted(err)...)...)
	s.Log.Info(fmt.Sprintf("two %q of %04o; %d%%", n, n, n))
	s.say("three", "more", n)
}
func (s *supervisor) say(text string, attrs ...any) { s.log.Error(text, append([]any{"path", s.path}, attrs...)...) }
func hinted(err error) []any {
	if err != nil {
		return []any{"hint", err}
	}
	return nil
}
`
	vaulttest.WriteFile(t, filepath.Join(dir, "a.go"), source, 0o600)
	got := loggedEvents(t, dir)
	for _, want := range []event{
		{"WARN", "one: …", []string{"pid", "(ports)", "(hint)"}},
		{"INFO", "two … of …; …%", nil},
		{"ERROR", "three", []string{"path", "more"}},
	} {
		e, ok := got[want.key()]
		if !ok || !slices.Equal(e.fields, want.fields) {
			t.Errorf("got %v, want %v", e, want)
		}
		delete(got, want.key())
	}
	if len(got) > 0 {
		t.Errorf("also %v", got)
	}
	for name, line := range map[string]string{
		"a message from elsewhere":      `s.Log.Info(texts[n])`,
		"a key from elsewhere":          `s.Log.Info("x", name, n)`,
		"a logger with another name":    `l := s.Log; l.Info("x")`,
		"a logger in a field":           `var other struct{ l *slog.Logger }; _ = other`,
		"attributes of another kind":    `s.Log.LogAttrs(nil, 0, "x")`,
		"a logger with a field":         `s.Log.With("pid", n).Info("x")`,
		"the log of the whole process":  `slog.Info("x")`,
		"attributes from elsewhere":     `s.Log.Info("x", s.attrs...)`,
		"a helper with a common name":   `}; func (s *supervisor) say2(x string) { s.log.Info(x) }; func (o *other) say2(string) {`,
		"one message with other fields": `s.Log.Error("one: "); s.Log.Error("one: ", "pid", n)`,
	} {
		vaulttest.WriteFile(t, filepath.Join(dir, "b.go"), "package p\nfunc (s *supervisor) g(n int) {\n"+line+"\n}\n", 0o600)
		c := &events{dir: dir}
		c.read(dir)
		if len(c.wrong) == 0 {
			t.Errorf("%s is not noticed: %s", name, line)
		}
	}
}

// eventCell is a message, and a field, in the tables of docs/events.md.
var (
	eventRow = regexp.MustCompile("^\\| (`[^`]+`|``.+?``) \\| (?:(INFO|WARN|ERROR) \\| )?([^|]*) \\|")
	fieldRow = regexp.MustCompile("^\\| `([a-z_]+)` \\| [^`]")
)

// documentedEvents are those of docs/events.md, and the fields that it explains.
func documentedEvents(t *testing.T, text string) (list map[string]event, fields map[string]bool) {
	t.Helper()
	list, fields = map[string]event{}, map[string]bool{}
	section := ""
	for line := range strings.Lines(text) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = strings.TrimSpace(title)
		}
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		switch section {
		case "Events", "Debug events":
			m := eventRow.FindStringSubmatch(line)
			if m == nil || (m[2] == "") != (section == "Debug events") {
				t.Errorf("not understood: %s", line)
				continue
			}
			e := event{level: cmp.Or(m[2], "DEBUG"), message: strings.Trim(m[1], "`")}
			if strings.HasPrefix(m[1], "``") {
				e.message = strings.TrimSuffix(strings.TrimPrefix(m[1], "``"), "``")
			}
			for _, f := range regexp.MustCompile("\\(?`[^`]+`\\)?").FindAllString(m[3], -1) {
				e.fields = append(e.fields, strings.ReplaceAll(f, "`", ""))
			}
			if _, twice := list[e.key()]; twice {
				t.Errorf("twice: %s", line)
			}
			list[e.key()] = e
		case "Fields":
			m := fieldRow.FindStringSubmatch(line)
			if m == nil {
				t.Errorf("not understood: %s", line)
				continue
			}
			fields[m[1]] = false
		}
	}
	return list, fields
}

// loggedEvents are those of the Go files in some folders, but for tests and for packages of tests.
func loggedEvents(t *testing.T, dirs ...string) map[string]event {
	t.Helper()
	all := map[string]event{}
	for _, dir := range dirs {
		c := &events{dir: dir}
		c.read(dir)
		for _, w := range c.wrong {
			t.Errorf("%s", w)
		}
		maps.Copy(all, c.found)
	}
	return all
}

// events finds the lines of a log in Go files. A logger is called log or Log, whatever it is in, and a message stands where it
// is logged, or where a function is called that logs its parameter. Whatever it cannot read is wrong.
type events struct {
	dir   string
	files token.FileSet
	found map[string]event
	wrong []string

	in      string                   // the package
	funcs   map[string]*ast.FuncDecl // its functions, by their name
	methods map[string]int           // how many of its methods have one name
	loggers map[string]logger        // what logs a parameter, by its name
}

// logger is a function that logs one of its parameters.
type logger struct {
	level   string
	name    string // of the parameter
	message int    // which one it is
	fields  []string
	rest    bool // its variadic parameter has further fields
}

func (c *events) read(dir string) {
	c.found = map[string]event{}
	packages := map[string][]*ast.File{}
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && file != dir && strings.HasSuffix(entry.Name(), "test"):
			return fs.SkipDir
		case !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
			return nil
		}
		parsed, err := parser.ParseFile(&c.files, file, nil, parser.SkipObjectResolution)
		if err == nil {
			packages[filepath.ToSlash(filepath.Dir(file))] = append(packages[filepath.ToSlash(filepath.Dir(file))], parsed)
		}
		return err
	})
	if err != nil || len(packages) == 0 {
		c.wrong = append(c.wrong, fmt.Sprintf("%d packages in %s: %v", len(packages), dir, err))
	}
	for name, files := range packages {
		c.in, c.funcs, c.methods, c.loggers = name, map[string]*ast.FuncDecl{}, map[string]int{}, map[string]logger{}
		for _, file := range files {
			for _, decl := range file.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
					c.funcs[f.Name.Name] = f
				} else if ok {
					c.methods[f.Name.Name]++
				}
			}
		}
		c.each(files, c.findLogger)
		c.each(files, c.call)
		for _, f := range files {
			ast.Inspect(f, c.names)
		}
	}
}

// each calls do for every call in every function.
func (c *events) each(files []*ast.File, do func(*ast.FuncDecl, *ast.CallExpr)) {
	for _, file := range files {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok { // a function in a variable, which has no name
				f = &ast.FuncDecl{Name: ast.NewIdent("var"), Type: &ast.FuncType{Params: &ast.FieldList{}}}
			}
			ast.Inspect(decl, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					do(f, call)
				}
				return true
			})
		}
	}
}

func (c *events) bad(at ast.Node, what string) {
	c.wrong = append(c.wrong, fmt.Sprintf("%s: %s", c.files.Position(at.Pos()), what))
}

// names holds that a logger has its name.
func (c *events) names(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.Field:
		if star, ok := n.Type.(*ast.StarExpr); ok && isSelector(star.X, "slog", "Logger") {
			for _, name := range n.Names {
				if !isLog(name) {
					c.bad(n, "a logger is called "+name.Name+" and not log")
				}
			}
		}
	case *ast.AssignStmt:
		for i, right := range n.Rhs {
			if len(n.Lhs) == len(n.Rhs) && isLog(right) && !isLog(n.Lhs[i]) {
				c.bad(n, "a logger gets a name that is not log")
			}
		}
	}
	return true
}

// isLog reports whether an expression is a logger, by its name.
func isLog(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "log" || e.Name == "Log"
	case *ast.SelectorExpr:
		return isLog(e.Sel)
	case *ast.CallExpr:
		return isSelector(e.Fun, "slog", "New")
	}
	return false
}

func isSelector(e ast.Expr, x, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	id, ok := s.X.(*ast.Ident)
	return ok && id.Name == x && s.Sel.Name == name
}

var levels = map[string]string{"Debug": "DEBUG", "Info": "INFO", "Warn": "WARN", "Error": "ERROR"}

// levelOf is the level of a call that logs; "" for any other.
func (c *events) levelOf(call *ast.CallExpr) string {
	s, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !isLog(s.X) {
		return ""
	}
	return levels[s.Sel.Name]
}

// findLogger notes a function that logs one of its parameters.
func (c *events) findLogger(f *ast.FuncDecl, call *ast.CallExpr) {
	level := c.levelOf(call)
	if level == "" {
		return
	}
	message, ok := call.Args[0].(*ast.Ident)
	if !ok {
		return
	}
	index := 0
	var last string // a variadic one
	at := -1
	for _, field := range f.Type.Params.List {
		for _, name := range field.Names {
			if name.Name == message.Name {
				at = index
			}
			if _, ok := field.Type.(*ast.Ellipsis); ok {
				last = name.Name
			}
			index++
		}
	}
	if at < 0 {
		return
	}
	l := logger{level: level, name: message.Name, message: at}
	fields := c.fields(f, call, 1)
	l.fields = slices.DeleteFunc(fields, func(name string) bool { return name == last+"..." })
	l.rest = len(l.fields) < len(fields) || slices.Contains(fields, last+"...")
	if _, twice := c.loggers[f.Name.Name]; twice || c.methods[f.Name.Name] > 1 {
		c.bad(call, "there is another "+f.Name.Name+": calls of this one, which logs what it is told, cannot be told apart")
	}
	c.loggers[f.Name.Name] = l
}

// call takes in a call that logs.
func (c *events) call(f *ast.FuncDecl, call *ast.CallExpr) {
	name := ""
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		name = fun.Name
	case *ast.SelectorExpr:
		name = fun.Sel.Name
		switch {
		case isLog(fun.X) && levels[name] == "":
			if id, ok := fun.X.(*ast.Ident); ok && id.Name == "log" && name == "SetOutput" { // the package
				return
			}
			if name == "Handler" || isSelector(call.Fun, "slog", "New") {
				return
			}
			c.bad(call, "a logger's "+name+", which is not understood")
			return
		case !isLog(fun.X) && levels[name] != "" && len(call.Args) > 0 && !isNoLogger(fun.X):
			c.bad(call, name+" of what is called neither log nor Log")
			return
		}
	}
	if level := c.levelOf(call); level != "" {
		if l, ok := c.loggers[f.Name.Name]; ok && fmt.Sprint(call.Args[0]) == l.name {
			return // its callers say what
		}
		c.add(f, call, event{level, c.text(call.Args[0]), c.fields(f, call, 1)})
		return
	}
	if l, ok := c.loggers[name]; ok && len(call.Args) > l.message {
		fields := slices.Clone(l.fields)
		if l.rest {
			fields = append(fields, c.fields(f, call, l.message+1)...)
		}
		c.add(f, call, event{l.level, c.text(call.Args[l.message]), fields})
	}
}

// isNoLogger is for Info of a Session, which asks Vault, and net.Error, which is a type.
func isNoLogger(e ast.Expr) bool {
	if s, ok := e.(*ast.SelectorExpr); ok {
		return s.Sel.Name == "Session"
	}
	return fmt.Sprint(e) == "net" || fmt.Sprint(e) == "session"
}

func (c *events) add(f *ast.FuncDecl, at ast.Node, e event) {
	in := f.Name.Name
	if f.Recv != nil {
		kind := f.Recv.List[0].Type
		if star, ok := kind.(*ast.StarExpr); ok {
			kind = star.X
		}
		in = fmt.Sprint(kind) + "." + in
	}
	if e.message == "…" && !slices.Contains(ownText, c.in+" "+in) {
		c.bad(at, "a message that is nowhere: write the text where it is logged")
	}
	if other, twice := c.found[e.key()]; twice && !slices.Equal(other.fields, e.fields) {
		c.bad(at, "the same message elsewhere has the fields "+strings.Join(other.fields, ", "))
	}
	c.found[e.key()] = e
}

var verb = regexp.MustCompile(`%[-+# 0]*\d*(?:\.\d+)?[a-zA-Z]`)

// text is a message, with "…" for what is known at run time only.
func (c *events) text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		if err == nil {
			return s
		}
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			return c.text(e.X) + c.text(e.Y)
		}
	case *ast.CallExpr:
		if isSelector(e.Fun, "fmt", "Sprintf") {
			return strings.ReplaceAll(verb.ReplaceAllString(c.text(e.Args[0]), "…"), "%%", "%")
		}
	}
	return "…"
}

// fields are the fields of a call, of its arguments from one on.
func (c *events) fields(f *ast.FuncDecl, call *ast.CallExpr, from int) []string {
	args := call.Args[min(from, len(call.Args)):]
	if !call.Ellipsis.IsValid() {
		return c.pairs(args)
	}
	return append(c.pairs(args[:len(args)-1]), c.slice(f, args[len(args)-1])...)
}

// pairs are the keys in a list of keys and values.
func (c *events) pairs(list []ast.Expr) (names []string) {
	for i, e := range list {
		if i%2 != 0 {
			continue
		}
		name := c.text(e)
		if strings.Contains(name, "…") {
			c.bad(e, "a field's name is no text")
		}
		names = append(names, name)
	}
	return names
}

// slice are the keys in a []any.
func (c *events) slice(f *ast.FuncDecl, e ast.Expr) []string {
	switch e := e.(type) {
	case *ast.CompositeLit:
		return c.pairs(e.Elts)
	case *ast.Ident:
		if last := f.Type.Params.List; len(last) > 0 {
			field := last[len(last)-1]
			if _, ok := field.Type.(*ast.Ellipsis); ok && field.Names[0].Name == e.Name {
				return []string{e.Name + "..."}
			}
		}
		return c.variable(f, e)
	case *ast.CallExpr:
		id, ok := e.Fun.(*ast.Ident)
		switch {
		case ok && id.Name == "append":
			names := c.slice(f, e.Args[0])
			if e.Ellipsis.IsValid() {
				return append(names, c.slice(f, e.Args[1])...)
			}
			return append(names, c.pairs(e.Args[1:])...)
		case ok && c.funcs[id.Name] != nil:
			return c.results(c.funcs[id.Name])
		}
	}
	c.bad(e, "these fields come from elsewhere")
	return nil
}

// variable are the keys in a variable of a function: what it begins with, and what may be added later.
func (c *events) variable(f *ast.FuncDecl, of *ast.Ident) (names []string) {
	known := false
	ast.Inspect(f, func(n ast.Node) bool {
		a, ok := n.(*ast.AssignStmt)
		if !ok || len(a.Lhs) != 1 || fmt.Sprint(a.Lhs[0]) != of.Name {
			return true
		}
		if a.Tok == token.DEFINE {
			known = true
			names = append(names, c.slice(f, a.Rhs[0])...)
			return true
		}
		call, ok := a.Rhs[0].(*ast.CallExpr)
		if !ok || fmt.Sprint(call.Fun) != "append" || fmt.Sprint(call.Args[0]) != of.Name || call.Ellipsis.IsValid() {
			c.bad(a, "these fields come from elsewhere")
			return true
		}
		names = append(names, sometimes(c.pairs(call.Args[1:]))...)
		return true
	})
	if !known {
		c.bad(of, "these fields come from elsewhere")
	}
	return names
}

// results are the keys in what a function returns, which may be none.
func (c *events) results(f *ast.FuncDecl) (names []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 1 && fmt.Sprint(r.Results[0]) != "nil" {
			names = append(names, sometimes(c.slice(f, r.Results[0]))...)
		}
		return true
	})
	return names
}

func sometimes(names []string) []string {
	for i, n := range names {
		names[i] = "(" + n + ")"
	}
	return names
}
