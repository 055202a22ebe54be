// Package hidetest finds out whether a secret shows when somebody prints what holds it, in whatever way. It also finds
// what nobody has thought of: a struct in a line of a debug log, three types above the secret.
package hidetest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// marker is what stands in place of a secret. It looks the same in quotes.
const marker = "markerOfASecretThatShows"

// Check fills each of the values, all of one package, with secrets wherever one has its place. It prints each in every
// way and looks for the secrets. Every type of the package that holds a secret must be among the values; what they hold
// does not matter. put puts a secret at a pointer and reports true, when it points at what can hold one.
func Check(t *testing.T, put func(at any, secret string) bool, values ...any) {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	all, err := holders(root)
	if err != nil {
		t.Fatal(err)
	}
	given, pkg := map[string]bool{}, ""
	for _, v := range values {
		typ := reflect.TypeOf(v)
		name, _, _ := strings.Cut(typ.Name(), "[") // of a generic type
		given[name], pkg = true, typ.PkgPath()
		filled := reflect.New(typ).Elem()
		if fill(filled, func(at any) bool { return put(at, marker) }, nil) == 0 {
			t.Errorf("%v holds no secret: take it out of the list", typ)
		}
		for way, text := range prints(filled) {
			if form := shown(text); form != "" {
				t.Errorf("%v shows its secret, printed with %s: %.300s", typ, way, text)
			}
		}
	}
	if pkg == "main" { // as reflect calls it
		pkg = module
	}
	for _, name := range all[pkg] {
		if !given[name] {
			t.Errorf("the type %s of %s holds a secret and is not in the list of this test: add it", name, pkg)
		}
	}
	if len(all[pkg]) == 0 {
		t.Errorf("no type of %q holds a secret", pkg)
	}
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", os.ErrNotExist
		}
		dir = filepath.Dir(dir)
	}
}

// fill has put fill every place that it knows, unexported fields included, and returns how many there were. within are
// the types that fill is inside of.
func fill(v reflect.Value, put func(at any) bool, within []reflect.Type) (n int) {
	typ := v.Type()
	v = reflect.NewAt(typ, v.Addr().UnsafePointer()).Elem() // reflect lets nobody write to an unexported field
	if put(v.Addr().Interface()) {
		return 1
	}
	if typ.Name() != "" {
		if slices.Contains(within, typ) {
			return 0
		}
		within = append(slices.Clone(within), typ)
	}
	switch typ.Kind() {
	case reflect.Struct:
		if p := typ.PkgPath(); p != "" && p != "main" && !strings.HasPrefix(p, module) {
			return 0
		}
		for i := range typ.NumField() {
			n += fill(v.Field(i), put, within)
		}
	case reflect.Array:
		for i := range v.Len() {
			n += fill(v.Index(i), put, within)
		}
	case reflect.Pointer:
		p := reflect.New(typ.Elem())
		if n = fill(p.Elem(), put, within); n > 0 {
			v.Set(p)
		}
	case reflect.Slice:
		list := reflect.MakeSlice(typ, 1, 1)
		if n = fill(list.Index(0), put, within); n > 0 {
			v.Set(list)
		}
	case reflect.Map:
		key, elem := reflect.New(typ.Key()).Elem(), reflect.New(typ.Elem()).Elem()
		if n = fill(key, put, within) + fill(elem, put, within); n > 0 {
			m := reflect.MakeMap(typ)
			m.SetMapIndex(key, elem)
			v.Set(m)
		}
	}
	return n
}

// prints prints a value in many ways, by the name of the way.
func prints(v reflect.Value) map[string]string {
	texts := map[string]string{}
	inField := func(name, pkg string) any {
		s := reflect.New(reflect.StructOf([]reflect.StructField{{Name: name, PkgPath: pkg, Type: v.Type()}})).Elem()
		reflect.NewAt(v.Type(), s.Field(0).Addr().UnsafePointer()).Elem().Set(v)
		return s.Interface()
	}
	for place, x := range map[string]any{
		"the value": v.Interface(), "a pointer to it": v.Addr().Interface(), "a list": []any{v.Interface()},
		"a map":   map[string]any{"k": v.Interface()},
		"a field": inField("Field", ""), "an unexported field": inField("field", "x"),
		"a list of pointers": []any{v.Addr().Interface()},
	} {
		note := func(way string, print func() string) {
			defer func() {
				if r := recover(); r != nil { // a method that cannot do with a value that is filled like this
					texts[place+" and "+way] = fmt.Sprint(r)
				}
			}()
			texts[place+" and "+way] = print()
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q",
			"%x", "%X", "%d", "%c", "%U", "%t", "%08b", "%e", "%p"} {
			note(verb, func() string { return fmt.Sprintf(verb, x) })
		}
		note("Println", func() string { return fmt.Sprintln(x) })
		note("JSON", func() string {
			b, err := json.Marshal(x)
			return fmt.Sprintf("%s %v", b, err)
		})
		for format, handler := range map[string]func(*bytes.Buffer, *slog.HandlerOptions) slog.Handler{
			"text": func(b *bytes.Buffer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(b, o) },
			"JSON": func(b *bytes.Buffer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(b, o) },
		} {
			note("slog's "+format, func() string {
				var b bytes.Buffer
				log := slog.New(handler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
				log.Debug("x", "value", x, slog.Group("g", "value", x), "error", fmt.Errorf("of %v", x))
				return b.String()
			})
		}
		note("reflection", func() string {
			var b strings.Builder
			at := reflect.New(reflect.TypeOf(x)).Elem()
			at.Set(reflect.ValueOf(x))
			dump(&b, at, map[any]bool{}, 0)
			return b.String()
		})
	}
	return texts
}

// dump writes everything that reflection gets at, and calls no method: what printers for debugging do.
func dump(b *strings.Builder, v reflect.Value, seen map[any]bool, depth int) {
	if depth > 30 {
		return
	}
	if v.CanAddr() {
		v = reflect.NewAt(v.Type(), v.Addr().UnsafePointer()).Elem()
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			b.WriteString(" " + v.Type().Field(i).Name + "=")
			dump(b, v.Field(i), seen, depth+1)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 && v.Kind() == reflect.Slice {
			b.Write(v.Bytes())
		}
		for i := range v.Len() {
			b.WriteByte(' ')
			dump(b, v.Index(i), seen, depth+1)
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			for _, part := range []reflect.Value{it.Key(), it.Value()} {
				at := reflect.New(part.Type()).Elem()
				at.Set(part)
				b.WriteByte(' ')
				dump(b, at, seen, depth+1)
			}
		}
	case reflect.Interface:
		if !v.IsNil() {
			at := reflect.New(v.Elem().Type()).Elem()
			at.Set(v.Elem())
			dump(b, at, seen, depth+1)
		}
	case reflect.Pointer:
		if key := [2]any{v.Type(), v.Pointer()}; !v.IsNil() && !seen[key] {
			seen[key] = true
			dump(b, v.Elem(), seen, depth+1)
		}
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		fmt.Fprintf(b, "%#x", v.Pointer())
	default:
		fmt.Fprint(b, v.Interface())
	}
}

// shown returns the form in which the marker stands in a text, "" when it does not.
func shown(text string) string {
	runes := func(format, sep string) string { // of each letter
		var list []string
		for i := range len(marker) {
			list = append(list, fmt.Sprintf(format, marker[i]))
		}
		return strings.Join(list, sep)
	}
	forms := []string{marker, runes("%d", " "), runes("%d", ","), runes("%x", ""), runes("%X", ""), runes("%#x", ", "),
		runes("%c", " "), runes("U+%04X", " "), runes("%08b", " ")}
	for skip := range 3 { // Base64 takes three bytes at a time
		forms = append(forms, base64.RawStdEncoding.EncodeToString([]byte(marker[skip:skip+18])))
	}
	for _, form := range forms {
		if strings.Contains(text, form) {
			return form
		}
	}
	return ""
}
