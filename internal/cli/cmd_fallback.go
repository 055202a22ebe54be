package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fallback"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var fallbackCommand = &command{
	name: "fallback", args: "key [FILE] | show FILE", summary: "the key and the state of a last-good copy",
	about: `
With --fallback FILE a run keeps an encrypted copy of the secrets that it has read.
A later start uses it when Vault is still away after --wait, says so in a warning,
and gives up a copy that is older than --fallback-max-age. With --watch everything
is read as soon as Vault answers, and the command is restarted only if something
differs. The copy is removed when a policy denies a path, or a secret is gone.

Only secrets of KV engines are kept: with a lease or a certificate among the paths
no copy is written. It is of one address, namespace and set of paths. Whoever has the
file and the key has the secrets, and a secret that was revoked lives in it for up to
--fallback-max-age: SECURITY.md says what that means. The key must not lie in the
folder of the copy. docs/fallback.md has it with systemd's credentials, which a TPM
can bind to one machine.

vaultexec fallback key makes a key for --fallback-key-file and prints it, or writes
it into a new FILE with mode 0600. vaultexec fallback show says of which Vault,
namespace, paths and versions a copy is, and how old; with --fallback-key-file also
whether it opens, and the names of the keys in it. A value is never shown.
`,
	own:    []option{{name: "json", group: groupOwn, usage: "with show: print JSON"}},
	shared: append([]string{"--fallback-key-file", "--fallback-max-age", "--allow-owner"}, withAll...), least: 1, most: 2,
	do: (*app).fallback,
}

func (a *app) fallback(_ context.Context, s *settings, words []string) error {
	switch {
	case words[0] == "key" && len(words) == 1:
		a.ui.printf("%s\n", fallback.NewKey().Encode())
		return nil
	case words[0] == "key":
		return writeKey(words[1])
	case words[0] == "show" && len(words) == 2:
		return a.showCopy(s, words[1])
	case words[0] == "show":
		return findCommand("fallback").misused("which copy?")
	}
	return findCommand("fallback").misused("it is key or show, not " + fmt.Sprintf("%q", words[0]))
}

// writeKey writes a key into a file that is not there yet: another key would make copies useless.
func writeKey(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err == nil {
		if _, err = f.WriteString(fallback.NewKey().Encode() + "\n"); err == nil {
			err = f.Sync()
		}
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			_ = os.Remove(file)
		}
	}
	if err == nil {
		return nil
	}
	e := &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot write %q", file), Why: vault.Errno(err),
		Hint: "name a new file in a folder that this user may write"}
	if errors.Is(err, os.ErrExist) {
		e.Why, e.Hint = "it is there already", "with another key no copy opens: name a new file, or remove this one first"
	}
	return e
}

// shownCopy is the JSON of fallback show.
type shownCopy struct {
	fallback.Header
	AgeSeconds int64               `json:"age_seconds"`
	Expired    bool                `json:"expired"`
	Opens      *bool               `json:"opens,omitempty"` // absent where no key was given
	Names      map[string][]string `json:"names,omitempty"`
}

func (a *app) showCopy(s *settings, file string) error {
	cannot := func(err error) error {
		return &fault.Error{Kind: fault.Value, What: fmt.Sprintf("cannot show %q", file), Why: vault.Errno(err),
			Hint: "name a file that --fallback has written"}
	}
	raw, err := fallback.Read(file)
	if err != nil {
		return cannot(err)
	}
	h, err := fallback.Peek(raw)
	if err != nil {
		return cannot(err)
	}
	shown := shownCopy{Header: h, AgeSeconds: int64(h.Age(time.Now()).Seconds()), Expired: h.Age(time.Now()) > s.duration("fallback-max-age")}
	var why error
	if key := s.one("fallback-key-file"); key.text != "" {
		k, err := readFallbackKey(key.from, key.text, s.owners()...)
		if err != nil {
			return err
		}
		var payload []byte
		_, payload, why = fallback.Open(k, raw)
		opens := why == nil
		if shown.Opens = &opens; opens {
			shown.Names = namesIn(payload)
			clear(payload)
		}
	}
	if s.bool("json") {
		text, err := json.Marshal(shown)
		if err != nil {
			return err
		}
		a.ui.printf("%s\n", text)
		return nil
	}
	a.printCopy(shown, why)
	return nil
}

func (a *app) printCopy(c shownCopy, why error) {
	line := func(name, text string) { a.ui.printf("%-10s %s\n", name, oneLine(text)) }
	line("Vault", c.Address)
	if c.Namespace != "" {
		line("namespace", c.Namespace)
	}
	age := (time.Duration(c.AgeSeconds) * time.Second).String()
	if c.Expired {
		age += ", too old to be used"
	}
	line("age", age)
	for _, p := range c.Paths {
		text := p
		if v := c.Versions[p]; v > 0 {
			text += fmt.Sprintf("  version %d", v)
		}
		if names := c.Names[p]; len(names) > 0 {
			text += "  " + strings.Join(names, " ")
		}
		line("path", text)
	}
	for _, p := range slices.Sorted(maps.Keys(c.Names)) { // the secrets of folders
		if !slices.Contains(c.Paths, p) && len(c.Names[p]) > 0 {
			line("", p+"  "+strings.Join(c.Names[p], " "))
		}
	}
	switch {
	case c.Opens == nil:
		line("key", "not tried: --fallback-key-file names it")
	case *c.Opens:
		line("key", "opens it")
	default:
		line("key", why.Error())
	}
}

// namesIn lists the names of the keys in a payload, by path.
func namesIn(payload []byte) map[string][]string {
	var list []struct {
		Path   vault.Path `json:"path"`
		Secret *struct {
			Values map[string]json.RawMessage `json:"values"`
		} `json:"secret"`
	}
	if json.Unmarshal(payload, &list) != nil {
		return nil
	}
	names := map[string][]string{}
	for _, c := range list {
		if c.Secret != nil {
			names[c.Path.String()] = slices.Sorted(maps.Keys(c.Secret.Values))
		}
	}
	return names
}
