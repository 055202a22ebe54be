package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

var rotateCommand = &command{
	name: "rotate", args: "PATH KEY [VALUE | -]", summary: "a new value for one key, random when none is given",
	about: `
The other keys of the secret stay as they are, also when others write at the
same moment: by PATCH where the policy allows it, otherwise by reading and
writing on condition that nobody else wrote (check-and-set). What was written is
read back.

  vaultexec rotate app-prod MACHINE_SECRET_TOKEN          32 random letters and digits
  vaultexec rotate --charset hex --length 64 app-prod K
  pass show stripe | vaultexec rotate app-prod STRIPE_KEY -
  vaultexec rotate app-prod KEY -- -value-with-a-dash

A value on the command line stands in the shell's history; - reads it from
standard input, without the line break at its end.

Policy: "patch" on MOUNT/data/PATH is enough to write, but then nothing can be
read back; with "read" it is verified. "read" and "update" do without patch.
`,
	own: []option{
		{name: "length", arg: "N", def: "32", group: groupOwn, usage: "characters of a random value"},
		{name: "charset", arg: "alnum|hex|base64|ascii|uuid", def: "alnum", group: groupOwn, usage: "what a random value is made of"},
		{name: "from-file", arg: "FILE", group: groupOwn, usage: "take the value from FILE, without one line break at its end"},
		{name: "raw", group: groupOwn, usage: "keep that line break, of FILE or of standard input"},
		{name: "create", group: groupOwn, usage: "make a new path or a new key, or write over a version that was deleted (its other keys stay gone)"},
		dryRunOption, jsonOption,
	},
	shared: withKV, least: 2, most: 3, secret: 2,
	do: (*app).rotate,
}

// rotateReport is what rotate says.
type rotateReport struct {
	Path     string `json:"path"`
	Key      string `json:"key"`
	KV       int    `json:"kv_version"`
	Old      int    `json:"old_version,omitempty"`
	New      int    `json:"new_version,omitempty"`
	NewPath  bool   `json:"new_path,omitempty"`
	NewKey   bool   `json:"new_key,omitempty"`
	Deleted  bool   `json:"over_deleted,omitempty"` // the latest version was deleted or destroyed
	Method   string `json:"method,omitempty"`
	Verified bool   `json:"verified"`
	Why      string `json:"not_verified_because,omitempty"`
	DryRun   bool   `json:"dry_run,omitempty"`
}

func (a *app) rotate(ctx context.Context, s *settings, words []string) error {
	p, err := vault.ParsePath(words[0], s.mount())
	if err != nil {
		return err
	}
	key := words[1]
	switch {
	case p.Version != 0:
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot rotate %s", p), Why: "an old version cannot be changed", Hint: "leave @VERSION out"}
	case key == "" || strings.IndexFunc(key, unicode.IsControl) >= 0 || !utf8.ValidString(key):
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %q as a key", key), Why: "it is empty or holds a control character", Hint: "write it as in vaultexec rotate PATH KEY"}
	}
	value, err := a.newValue(s, words[2:])
	if err := fault.Join(append(s.faults, fault.All(err)...)); err != nil {
		return err
	}
	return a.withVault(ctx, s, func(ctx context.Context, c *vault.Client) error {
		typed := p
		p, engine, err := a.resolve(ctx, c, s, p)
		if err != nil {
			return err
		}
		edit := vault.Edit{
			Path: p, Set: map[string]vault.Text{key: value}, Patience: a.patience(s), Create: s.bool("create"),
			Check: func(st vault.State) error {
				if err := mayRotate(st, key, s.bool("create")); err != nil {
					return err
				}
				return misplaced(ctx, c, s, st, typed)
			},
		}
		if s.bool("dry-run") {
			return a.rotateDry(ctx, c, s, edit, engine, key, typed)
		}
		if engine.KV == 1 {
			a.ui.log.Warn(fmt.Sprintf("%s is KV version 1, which has no check-and-set: what somebody else writes to %s at the same moment is lost", engine.Mount, p.Name))
		}
		out, err := c.Apply(ctx, edit, engine)
		r := rotateReportOf(out, key)
		if err != nil && out.Version == 0 {
			return adviseRotate(ctx, c, s, typed, err)
		}
		a.reportRotate(s, r)
		return err
	})
}

// mayRotate refuses what needs --create: a typing error would otherwise make a new secret that nobody reads.
func mayRotate(st vault.State, key string, create bool) error {
	what := fmt.Sprintf("cannot rotate %s#%s", st.Path, key)
	switch {
	case create, st.Blind:
		return nil
	case st.Gone != nil:
		return &fault.Error{Kind: fault.Deleted, What: what, Why: fmt.Sprintf("the latest version is %s", st.Gone), Hint: "bring it back with `vault kv undelete`, or start anew with --create: its other keys stay gone"}
	case !st.Exists:
		return vault.NoSecret(what)
	case st.Keys != nil && !slices.Contains(st.Keys, key):
		e := &fault.Error{Kind: fault.Missing, What: what, Why: "the secret has no such key", Hint: "--create makes a new one"}
		if near := vault.Nearest(key, st.Keys); near != "" {
			e.Hint = fmt.Sprintf("did you mean %q? %s", near, e.Hint)
		}
		return e
	}
	return nil
}

// adviseRotate looks for the name that was meant, and says what to do when there is none.
func adviseRotate(ctx context.Context, c *vault.Client, s *settings, p vault.Path, err error) error {
	err = advise(ctx, c, s, p, err)
	if fault.Has(err, fault.NoSecret) { // advise may have found that another path was meant
		fault.Of(err).AddHint("--create makes a new one")
	}
	return err
}

func rotateReportOf(out vault.Written, key string) rotateReport {
	st := out.Before
	r := rotateReport{
		Path: st.Path.String(), Key: key, KV: st.Engine.KV, Old: st.Version, New: out.Version, Method: out.Method, Verified: out.Verified, Why: out.Why,
		NewPath: !st.Blind && !st.Exists && st.Gone == nil || st.Blind && out.Version == 1, Deleted: st.Gone != nil,
	}
	r.NewKey = st.Exists && st.Keys != nil && !slices.Contains(st.Keys, key)
	if st.Blind && out.Version > 0 {
		r.Old = out.Version - 1 // a patch makes the next version
	}
	return r
}

func (a *app) rotateDry(ctx context.Context, c *vault.Client, s *settings, edit vault.Edit, engine vault.Engine, key string, typed vault.Path) error {
	var st vault.State
	err := edit.Patience.Do(ctx, func(ctx context.Context) (err error) {
		st, err = c.State(ctx, edit.Path, engine)
		return err
	})
	if err == nil {
		err = edit.Check(st)
	}
	if err != nil {
		return adviseRotate(ctx, c, s, typed, err)
	}
	r := rotateReportOf(vault.Written{Before: st}, key)
	r.DryRun = true
	if st.Engine.KV == 2 && !st.Blind {
		r.New = st.Version + 1
	}
	a.reportRotate(s, r)
	return nil
}

func (a *app) reportRotate(s *settings, r rotateReport) {
	if s.bool("json") {
		a.ui.reportJSON(r)
		return
	}
	var parts []string
	switch {
	case r.KV == 1 && !r.DryRun:
		parts = append(parts, "written")
	case r.KV == 1 || r.New == 0:
	case r.NewPath:
		parts = append(parts, fmt.Sprintf("version %d", r.New))
	case r.Deleted:
		parts = append(parts, fmt.Sprintf("version %d (deleted) → %d", r.Old, r.New))
	default:
		parts = append(parts, fmt.Sprintf("version %d → %d", r.Old, r.New))
	}
	if r.NewPath {
		parts = append(parts, "a new path")
	}
	if r.NewKey {
		parts = append(parts, "a new key")
	}
	switch {
	case r.DryRun:
		parts = append(parts, "not written (dry run)")
	case r.Verified:
		parts = append(parts, "verified")
	default:
		if r.KV != 1 {
			parts = append(parts, "written")
		}
		parts = append(parts, fmt.Sprintf("not verified (%s)", r.Why))
	}
	a.ui.printf("%s\n", oneLine(fmt.Sprintf("%s#%s: %s", r.Path, r.Key, strings.Join(parts, ", "))))
}

// newValue is the value from wherever it comes: the command line, standard input, a file, or chance.
func (a *app) newValue(s *settings, words []string) (vault.Text, error) {
	file := s.str("from-file")
	random := len(words) == 0 && file == ""
	for _, name := range []string{"length", "charset"} {
		if s.given.has(name) && !random {
			return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot use --" + name, Why: "it is for random values, and the value is given", Hint: "leave one of them out"}
		}
	}
	switch {
	case random && s.bool("raw"):
		return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot use --raw", Why: "it is for a value from standard input or a file", Hint: "leave it out, or give the value with - or --from-file"}
	case random:
		return randomValue(s)
	case len(words) > 0 && file != "":
		return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot use --from-file", Why: "the value stands on the command line, too", Hint: "leave one of them out"}
	case file != "":
		b, err := readUpTo(file, maxValue+2) // more than a value and its line break
		if err != nil {
			return vault.Text{}, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot read --from-file %q", file), Why: vault.Errno(err), Hint: fileHint}
		}
		return checkValue(string(b), !s.bool("raw"), fmt.Sprintf("the value in %q", file))
	case words[0] == "-" && !a.literalDash():
		if isTerminal(a.terminal.in) {
			line, err := a.terminal.readHidden("New value: ")
			if err != nil {
				return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot ask for the value", Why: err.Error(), Hint: "read it from a file: --from-file FILE"}
			}
			return checkValue(line, false, "the value")
		}
		b, err := io.ReadAll(io.LimitReader(a.terminal.in, maxValue+2))
		if err != nil {
			return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot read the value from standard input", Why: vault.Errno(err), Hint: "read it from a file: --from-file FILE"}
		}
		return checkValue(string(b), !s.bool("raw"), "the value on standard input")
	}
	value := strings.Clone(words[0])
	launcher.HideArgument(words[0])
	a.ui.log.Warn("the value on the command line stands in the shell's history now, and was visible to everybody in the list of processes until it was overwritten there; - reads it from standard input")
	if value == "" { // meant: nobody writes '' by accident
		return vault.NewText(""), nil
	}
	return checkValue(value, false, "the value")
}

// literalDash reports whether a lone - stood after --, where it is a value.
func (a *app) literalDash() bool { return len(a.command) > 0 && a.command[len(a.command)-1] == "-" }

// maxValue is the most that Vault takes for one string.
const maxValue = 1 << 20

// readUpTo reads the beginning of a file, which may be one without an end.
func readUpTo(file string, most int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, most))
}

// checkValue refuses what Vault would change or no variable could hold. The value itself is in no text.
func checkValue(v string, trim bool, what string) (vault.Text, error) {
	if trim {
		if line, ok := strings.CutSuffix(v, "\n"); ok {
			v = strings.TrimSuffix(line, "\r")
		}
	}
	e := &fault.Error{Kind: fault.Value, What: "cannot use " + what}
	switch {
	case v == "":
		e.Why, e.Hint = "it is empty", "an empty value can be given as '' on the command line"
	case len(v) > maxValue:
		e.Why, e.Hint = "it is longer than Vault takes (1 MiB)", "keep it elsewhere, encrypted with a key that is in Vault"
	case !utf8.ValidString(v):
		e.Why, e.Hint = "it is not UTF-8, and Vault would change it", "encode it, for example with base64"
	case strings.ContainsRune(v, 0):
		e.Why, e.Hint = "it holds a NUL byte, which no variable can", "encode it, for example with base64"
	default:
		return vault.NewText(v), nil
	}
	return vault.Text{}, e
}

const fileHint = "name a file that is there and that this user may read"

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// charsets are what random values are made of. ascii is everything that can be seen, without the blank.
var charsets = map[string]string{
	"alnum":  letters + "0123456789",
	"hex":    "0123456789abcdef",
	"base64": letters + "0123456789+/",
	"ascii":  visible(),
}

func visible() string {
	var b []byte
	for c := byte('!'); c <= '~'; c++ {
		b = append(b, c)
	}
	return string(b)
}

func randomValue(s *settings) (vault.Text, error) {
	charset := s.choice("charset")
	if charset == "uuid" {
		if s.given.has("length") {
			return vault.Text{}, &fault.Error{Kind: fault.Usage, What: "cannot use --length", Why: "a uuid has its own length", Hint: "leave it out, or choose another --charset"}
		}
		return vault.NewText(newUUID()), nil
	}
	v := s.one("length")
	n, err := strconv.Atoi(v.text)
	switch {
	case err != nil || n < 8 || n > 4096:
		s.bad(v, "not a number from 8 to 4096", "")
	case charset == "hex" && n%2 != 0, charset == "base64" && n%4 != 0:
		s.bad(v, "nothing of this length can be decoded", "use an even number with hex and a multiple of 4 with base64")
	}
	if alphabet := charsets[charset]; len(s.faults) == 0 {
		return vault.NewText(randomText(alphabet, n)), nil
	}
	return vault.Text{}, nil // what is wrong has been noted
}

// randomText draws n characters, each with the same probability: bytes beyond the last whole multiple of the alphabet's
// size are drawn again.
func randomText(alphabet string, n int) string {
	limit := 256 - 256%len(alphabet)
	out, buf := make([]byte, 0, n), make([]byte, 64)
	for len(out) < n {
		_, _ = rand.Read(buf) // never fails, says its documentation
		for _, b := range buf {
			if int(b) < limit && len(out) < n {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out)
}

// newUUID makes a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
