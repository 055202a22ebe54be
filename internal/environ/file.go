package environ

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// FileSpec is one --file: a secret that is handed over as a file and not as a variable. NAME_FILE holds the path; NAME
// itself is not set, also not with a value of vaultexec's own environment: programs that know both refuse to have both.
type FileSpec struct {
	Name   string
	Path   string // absolute; "" for a sealed file in memory
	Set    string // the folder of the path, where all of it is replaced together; "" for a file of its own
	Base64 bool   // the secret is the base64 of what the file holds

	Given *Access // what its options say; nil without any
}

// Access is the mode of the file and whose it is.
func (f *FileSpec) Access() Access {
	if f.Given == nil {
		return ownAccess
	}
	return *f.Given
}

// Variable is the name of the variable that holds the path.
func (f *FileSpec) Variable() string { return f.Name + "_FILE" }

// place is what the variable holds, as far as it is known before the start.
func (f *FileSpec) place() string {
	if f.Path != "" {
		return f.Path
	}
	return MemoryPath(0)
}

// MemoryPath names a descriptor of whoever opens the path. The number is known only when the file is made.
func MemoryPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// Host is what only the machine knows of a --file.
type Host struct {
	Abs func(path string) (string, error) // path/filepath.Abs; it fails when the current folder is gone
	UID func(user string) (string, error) // the number of a user
	GID func(group string) (string, error)
}

// ParseFile reads NAME[:base64][=PATH][,mode=MODE][,owner=USER[:GROUP]]. The path is made absolute: the command may
// change its folder.
func ParseFile(text string, host Host) (FileSpec, error) {
	bad := func(why, hint string) (FileSpec, error) {
		what := fmt.Sprintf("cannot use %q", text)
		return FileSpec{}, &fault.Error{Kind: fault.Usage, What: what, Why: why, Hint: hint}
	}
	rest, who, err := cutAccess(text, host)
	if err != nil {
		return bad(err.Error(), "write it as TLS_KEY=/run/app/tls.key,mode=0440,owner=app:ssl; also 1000:1000, or :ssl")
	}
	name, path, hasPath := strings.Cut(rest, "=")
	name, coding, coded := strings.Cut(name, ":")
	switch {
	case !IsName(name):
		return bad(fmt.Sprintf("%q is not a variable name", name),
			"write it as NAME, NAME=PATH, NAME:base64 or NAME:base64=PATH")
	case coded && coding != "base64":
		return bad(fmt.Sprintf("%q is not an encoding", coding), "the only one is base64: NAME:base64")
	case hasPath && (path == "" || strings.HasSuffix(path, "/") || strings.IndexByte(path, 0) >= 0):
		return bad("its path names no file", "write it as TLS_KEY=/run/app/tls.key")
	}
	f := FileSpec{Name: name, Base64: coded}
	if who != ownAccess {
		f.Given = &who
	}
	if hasPath {
		if f.Path, err = host.Abs(path); err != nil {
			return bad("the current folder is gone", "write an absolute path")
		}
	}
	return f, nil
}

// Files lists the secrets that are handed over as files, sorted by name.
func (e *Env) Files() []Variable {
	var files []Variable
	for _, v := range e.Vars {
		if v.File != nil {
			files = append(files, v)
		}
	}
	return files
}

// sameFiles reports whether the files of two environments hold the same.
func sameFiles(a, b []Variable) bool {
	return slices.EqualFunc(a, b, func(a, b Variable) bool {
		return a.Name == b.Name && a.Unused() == b.Unused() && (a.Unused() || a.Value.Equal(b.Value))
	})
}

// file returns the --file of a name, or nil.
func (r *Rules) file(name string) *FileSpec {
	if i := slices.IndexFunc(r.Files, func(f FileSpec) bool { return f.Name == name }); i >= 0 {
		return &r.Files[i]
	}
	return nil
}

// putFile adds a secret that becomes a file: any length, any bytes.
func (b *builder) putFile(v Variable, f *FileSpec) {
	if why, hint := refusal(f.Variable(), "", b.rules.AllowNames); why != "" { // its value is a path of vaultexec's own
		b.fail(fault.Value, v.Origin, why, hint)
		return
	}
	if f.Base64 {
		content, ok := decodeBase64(v.Value.Reveal())
		if !ok {
			b.fail(fault.Value, v.Origin, "the value is not base64",
				fmt.Sprintf("write --file %s without :base64 to hand it over as it is", f.Name))
			return
		}
		v.Parts = append(v.Parts, v.Value)
		v.Value = content
	}
	v.File = f
	b.insert(v)
}

// decodeBase64 reads either alphabet, with or without padding, in one line or many.
func decodeBase64(s string) (vault.Text, bool) {
	s = strings.Map(func(r rune) rune {
		switch r {
		case ' ', '\t', '\r', '\n':
			return -1
		case '-':
			return '+'
		case '_':
			return '/'
		}
		return r
	}, s)
	if n := len(s); n%4 == 0 { // padding that does not fill up a group of four is a damaged value
		s = strings.TrimSuffix(strings.TrimSuffix(s, "="), "=")
	}
	out, err := base64.RawStdEncoding.DecodeString(s)
	return vault.NewText(string(out)), err == nil
}

// checkFiles finds a --file that no secret gives, and a name that a file and a secret both want. The files of an
// optional path that has nothing are forgiven, too: that it has nothing was already said.
func (b *builder) checkFiles(got []Fetched) {
	forgiven := slices.ContainsFunc(got, func(g Fetched) bool {
		return g.Secret == nil && g.Folder == nil && g.Source.Optional
	})
	for i := range b.rules.Files {
		f := &b.rules.Files[i]
		if _, ok := b.byName[f.Name]; !ok {
			if !forgiven && len(b.faults) == 0 {
				b.faults = append(b.faults, &fault.Error{Kind: fault.Value,
					What: "cannot make the file of --file " + f.Name, Why: "no secret gives " + f.Name,
					Hint: "--dry-run without --file shows the names; --env " + f.Name + "=PATH#KEY gives it one"})
			}
			continue
		}
		if j, ok := b.byName[f.Variable()]; ok {
			b.faults = append(b.faults, &fault.Error{Kind: fault.Value, What: "cannot set " + f.Variable(),
				Why:  fmt.Sprintf("both --file %s and %s give it", f.Name, b.vars[j].Origin),
				Hint: "leave one out with --exclude, or rename one with --env NAME=PATH#KEY or --prefix"})
		}
	}
}
