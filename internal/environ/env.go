package environ

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// Source is one --path, --optional-path or reference, in the order of the command line. A value that is made of several
// keys is several sources in a row. The Path may be a folder (launcher/folder.go).
type Source struct {
	Path     vault.Path
	Optional bool   // absent, deleted or destroyed is forgiven
	Name     string // variable of a single key; "" for all keys of the secret
	Key      string // the single key

	Before, After vault.Text // what stands around the key's text
	Filters       []string   // what the key's text passes
	More          bool       // the next source goes on with the value
}

// Collision says what happens when two sources give one name.
type Collision string

// The values of --on-collision.
const (
	CollisionError Collision = "error"
	CollisionFirst Collision = "first"
	CollisionLast  Collision = "last"
)

// Rules turn secrets into an environment.
type Rules struct {
	Prefix       string
	Upcase       bool
	Only         []string // globs; empty means all
	Exclude      []string // globs
	OnCollision  Collision
	KeepExisting bool     // an inherited variable wins
	CleanEnv     bool     // inherit only cleanNames and Pass
	Pass         []string // inherited also with CleanEnv
	KeepToken    bool     // do not strip Vault credentials
	NullAsEmpty  bool
	AllowNames   []string // dangerous names that are allowed; globs
	Files        []FileSpec
	Names        []string // nil, or the only names that --path may give
	Require      []string // names that the command has to get
	Parts        bool     // remember what values are made of, and what they hold
}

// Inherits reports whether --clean-env lets a variable through.
func (r Rules) Inherits(name string) bool {
	return !r.CleanEnv || slices.Contains(cleanNames, name) || matchesAny(r.Pass, name)
}

// Variable is one variable that comes from Vault.
type Variable struct {
	Name   string
	Value  vault.Text
	Origin string     // mount/path@version#key
	Beat   []string   // origins that lost a collision
	Kept   bool       // --keep-existing: the inherited variable won
	Whole  bool       // it came with its whole secret, by --path
	File   *FileSpec  // handed over as a file; Value is what it holds
	recipe vault.Text // what else decides about the value, when it is made of a text

	Parts []vault.Text // what the value was made of, and what it holds, as far as that came from Vault
}

// Unused reports whether the child gets nothing of it. A file with a path is written even if an inherited variable won.
func (v *Variable) Unused() bool { return v.Kept && (v.File == nil || v.File.Path == "") }

// Env is a finished environment.
type Env struct {
	Vars     []Variable // from Vault, sorted by name
	Stripped []string   // names of inherited variables that were taken out, or changed, because they hold credentials
	inherit  []string
}

// Strings returns the environment as execve wants it. Inherited variables keep their order and bytes; a name that Vault
// sets is taken out of them, so that no name stands twice.
func (e *Env) Strings() []string { return e.StringsAt(nil) }

// StringsAt is Strings with the paths of the files in memory, by name.
func (e *Env) StringsAt(memory map[string]string) []string {
	out := make([]string, 0, len(e.inherit)+len(e.Vars))
	out = append(out, e.inherit...)
	for _, v := range e.Vars {
		switch {
		case v.Kept:
		case v.File == nil:
			out = append(out, v.Name+"="+v.Value.Reveal())
		case memory[v.Name] != "":
			out = append(out, v.File.Variable()+"="+memory[v.Name])
		default:
			out = append(out, v.File.Variable()+"="+v.File.place())
		}
	}
	return out
}

// DropInherited takes inherited variables out.
func (e *Env) DropInherited(names []string) {
	e.inherit = slices.DeleteFunc(slices.Clone(e.inherit), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(names, name)
	})
}

// Equal reports whether a child would see no difference.
func (e *Env) Equal(o *Env) bool {
	return slices.Equal(e.Strings(), o.Strings()) && sameFiles(e.Files(), o.Files())
}

// cleanNames are inherited with --clean-env. NOTIFY_SOCKET and its like belong to the process, not to the user's
// settings.
var cleanNames = []string{"PATH", "HOME", "TERM", "TZ", "LANG", "NOTIFY_SOCKET", "JOURNAL_STREAM", "LISTEN_PID",
	"LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "WATCHDOG_PID", "WATCHDOG_USEC"}

// Kernel limits, from include/uapi/linux/binfmts.h and fs/exec.c: MAX_ARG_STRLEN is 32 pages, the byte at its end
// included.
const maxArgStrlen = 32 * 4096

// Fetched is what reading one source gave: a secret, or why there is none.
type Fetched struct {
	Source  Source
	Secret  *vault.Secret
	Absence error
	Folder  *vault.Folder // of a folder, which has no secret itself
}

// Build is pure: the same secrets, rules and inherited variables give the same environment or the same failures, all of
// them at once.
func Build(got []Fetched, rules Rules, inherited []string) (*Env, error) {
	b := builder{rules: rules, byName: map[string]int{}}
	for _, g := range got {
		switch {
		case g.Source.Name != "":
			b.piece(g)
		case g.Secret != nil:
			b.add(g)
		}
	}
	b.checkFiles(got)
	if len(b.faults) > 0 && len(rules.Require) == 0 {
		return nil, fault.Join(b.faults)
	}
	env := b.finish(inherited)
	b.checkRequired(env)
	if len(b.faults) > 0 {
		return nil, fault.Join(b.faults)
	}
	return env, nil
}

type builder struct {
	rules  Rules
	vars   []Variable
	byName map[string]int // index in vars
	made   made
	faults []*fault.Error
	broken []string // names that a secret gives, and that one of the faults keeps from being set
}

// add adds every key of a secret.
func (b *builder) add(g Fetched) {
	for _, key := range sortedKeys(g.Secret.Values) {
		if !b.selected(key) {
			continue
		}
		name := key
		if b.rules.Upcase {
			name = strings.ToUpper(name)
		}
		from := origin(g, key)
		if b.rules.Names != nil && !slices.Contains(b.rules.Names, b.rules.Prefix+name) {
			b.fail(fault.Value, from, fmt.Sprintf("%q is not among --names", b.rules.Prefix+name),
				"add it to --names if the command is to have it, or leave the key out with --exclude")
			continue
		}
		if text, ok := b.text(from, g.Secret.Values[key]); ok {
			b.put(Variable{Name: b.rules.Prefix + name, Value: vault.NewText(text), Origin: from, Whole: true,
				Parts: b.leaves(g.Secret.Values[key])})
		} else {
			b.broken = append(b.broken, b.rules.Prefix+name)
		}
	}
}

func (b *builder) selected(key string) bool {
	return (len(b.rules.Only) == 0 || matchesAny(b.rules.Only, key)) && !matchesAny(b.rules.Exclude, key)
}

// text turns a value into what a variable holds, or notes why that cannot be.
func (b *builder) text(from string, v vault.Value) (string, bool) {
	text, err := v.Text()
	switch {
	case err == nil:
		return text.Reveal(), true
	case !errors.Is(err, vault.ErrNull):
		b.fail(fault.Value, from, "the value cannot be read", "")
	case b.rules.NullAsEmpty:
		return "", true
	default:
		b.fail(fault.Value, from, "the value is null",
			"write a value, leave the key out with --exclude, or take null as empty with --null-as-empty")
	}
	return "", false
}

// maxParts bounds how many parts of values are masked.
const maxParts = 20000

// leaves are the parts of a value that is an object or a list, if the output is masked.
func (b *builder) leaves(v vault.Value) []vault.Text {
	if !b.rules.Parts {
		return nil
	}
	return v.Leaves(maxParts)
}

// put adds one variable, or the reason why it cannot be one.
func (b *builder) put(v Variable) {
	known := len(b.faults)
	b.tryPut(v)
	if len(b.faults) > known {
		b.broken = append(b.broken, v.Name)
	}
}

func (b *builder) tryPut(v Variable) {
	name := v.Name
	if !IsName(name) {
		b.fail(fault.Value, v.Origin, fmt.Sprintf("%q is not a variable name", name),
			"names are [A-Za-z_][A-Za-z0-9_]*: choose one with --env NAME=PATH#KEY, or leave the key out with --exclude")
		return
	}
	if why, hint := refusal(name, v.Value.Reveal(), b.rules.AllowNames); why != "" {
		b.fail(fault.Value, v.Origin, why, hint)
		return
	}
	if f := b.rules.file(name); f != nil {
		b.putFile(v, f)
		return
	}
	value := v.Value.Reveal()
	if strings.IndexByte(value, 0) >= 0 {
		b.fail(fault.Value, v.Origin, "the value holds a NUL byte, which no variable can",
			fmt.Sprintf("hand it over as a file with --file %s, or leave the key out with --exclude", name))
		return
	}
	if size := len(name) + 1 + len(value) + 1; size > maxArgStrlen {
		b.fail(fault.Value, v.Origin,
			fmt.Sprintf("%s would be %d bytes; a variable may have %d", name, size, maxArgStrlen),
			fmt.Sprintf("hand it over as a file with --file %s, or leave the key out with --exclude; the limit is the kernel's", name))
		return
	}
	b.insert(v)
}

func (b *builder) insert(v Variable) {
	i, taken := b.byName[v.Name]
	if !taken {
		b.byName[v.Name] = len(b.vars)
		b.vars = append(b.vars, v)
		return
	}
	old := b.vars[i]
	switch {
	case old.Origin == v.Origin && old.recipe.Equal(v.recipe): // the same key of the same version twice is no collision
	case b.rules.OnCollision == CollisionFirst:
		b.vars[i].Beat = append(b.vars[i].Beat, v.Origin)
	case b.rules.OnCollision == CollisionLast:
		v.Beat = append(old.Beat, old.Origin)
		b.vars[i] = v
	default:
		b.faults = append(b.faults, &fault.Error{Kind: fault.Value, What: "cannot set " + v.Name,
			Why:  fmt.Sprintf("both %s and %s give it", old.Origin, v.Origin),
			Hint: "leave one out with --exclude, rename one with --env NAME=PATH#KEY or --prefix, or choose with --on-collision first|last"})
	}
}

func (b *builder) fail(kind fault.Kind, from, why, hint string) {
	b.faults = append(b.faults, &fault.Error{Kind: kind, What: "cannot use " + from, Why: why, Hint: hint})
}

func origin(g Fetched, key string) string {
	p := g.Secret.Path
	if p.Version == 0 {
		p.Version = g.Secret.Version
	}
	return p.String() + "#" + key
}

// finish merges the inherited variables and those of Vault.
func (b *builder) finish(inherited []string) *Env {
	e := &Env{Vars: b.vars}
	sort.Slice(e.Vars, func(i, j int) bool { return e.Vars[i].Name < e.Vars[j].Name })
	index := make(map[string]int, len(e.Vars))
	for i, v := range e.Vars {
		index[v.Name] = i
		if v.File != nil {
			index[v.File.Variable()] = i
		}
	}
	if !b.rules.KeepToken {
		inherited, e.Stripped = WithoutCredentials(inherited)
		e.Stripped = slices.DeleteFunc(e.Stripped, func(name string) bool { return !b.rules.Inherits(name) })
	}
	seen := make(map[string]bool, len(inherited))
	for _, kv := range inherited {
		name, _, hasValue := strings.Cut(kv, "=")
		if hasValue && seen[name] { // execve would pass both on; getenv(3) finds the first
			continue
		}
		seen[name] = seen[name] || hasValue // no getenv(3) finds a string without "="
		if !b.rules.Inherits(name) {
			continue
		}
		if i, ok := index[name]; ok && hasValue {
			if !b.rules.KeepExisting {
				continue
			}
			e.Vars[i].Kept = true
		}
		e.inherit = append(e.inherit, kv)
	}
	return e
}

// CheckSize finds out before the start what execve would refuse with E2BIG. stackLimit is RLIMIT_STACK in bytes.
// Rule: fs/exec.c, bprm_stack_limits: a quarter of the stack limit, at least 128 KiB, at most 6 MiB, for all strings
// and their pointers.
func CheckSize(env *Env, argv []string, stackLimit uint64) error {
	const pointer = strconv.IntSize / 8
	const added = 4096 // the program's path, a #! line's interpreter, and what the stub for a terminal needs
	total := uint64(2 * pointer)
	for _, s := range argv {
		total += uint64(len(s) + 1 + pointer)
	}
	strs := env.Strings()
	for _, s := range strs {
		total += uint64(len(s) + 1 + pointer)
	}
	limit := min(max(stackLimit/4, 128<<10), 6<<20)
	total += added
	if total <= limit {
		return nil
	}
	vars := slices.DeleteFunc(slices.Clone(env.Vars), func(v Variable) bool { return v.File != nil })
	sort.SliceStable(vars, func(i, j int) bool { return len(vars[i].Value.Reveal()) > len(vars[j].Value.Reveal()) })
	var largest []string
	for _, v := range vars[:min(3, len(vars))] {
		largest = append(largest, fmt.Sprintf("%s (%s, %d bytes)", v.Name, v.Origin, len(v.Value.Reveal())))
	}
	return &fault.Error{Kind: fault.Value, What: "cannot start the command",
		Why: fmt.Sprintf("arguments and environment take %d bytes of at most %d", total, limit),
		Hint: "raise the stack limit (ulimit -s), of which the kernel takes a part, or hand the largest over with --file: " +
			strings.Join(largest, ", ")}
}

// IsName reports whether s is a variable name that every shell can use: POSIX's "Name", XBD 3.216.
func IsName(s string) bool {
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9') {
			return false
		}
	}
	return true
}

// matchesAny matches path.Match globs; a "/" in a key is matched by no "*", as in the shell.
func matchesAny(globs []string, s string) bool {
	return slices.ContainsFunc(globs, func(g string) bool {
		ok, err := path.Match(g, s)
		return ok && err == nil
	})
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
