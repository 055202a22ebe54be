package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// maxConfig bounds a configuration file.
const maxConfig = 64 << 10

// commandKey holds the command that is started when there is no --.
const commandKey = "command"

// section is what a configuration file, or one profile of it, says about the command and about the options, by their
// long names.
type section map[string][]setting

// config is a configuration file that was read.
type config struct {
	top      section
	profiles map[string]section
}

// begin reads the file of --config, if one is named, and sets up how to talk.
func (a *app) begin(s *settings) error {
	open, err := s.configure()
	a.ui.setup(s, a.getenv)
	if open != nil {
		a.warnOnce(fmt.Sprintf("%s:%d holds what looks like a token, and others may read it (mode %04o): take it out, or chmod 600",
			open.file, open.line, open.mode))
	}
	return err
}

// configure adds what the file of --config says to the settings.
func (s *settings) configure() (open *openToken, err error) {
	// A command that needs no Vault has no --config.
	if !slices.ContainsFunc(s.opts, func(o option) bool { return o.name == "config" }) {
		return nil, nil
	}
	file, profile := s.one("config"), s.one("profile")
	switch {
	case file.from == "" && profile.text != "":
		return nil, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %s %q", profile.from, profile.text),
			Why: "no configuration file is named", Hint: "name it with --config or VAULTEXEC_CONFIG"}
	case file.from == "":
		return nil, nil
	}
	src, open, err := readConfig(file.from, file.text, s.owners())
	if err != nil {
		return nil, err
	}
	c, faults := parseConfig(file.text, src)
	if len(faults) > 0 {
		return open, fault.Join(faults)
	}
	if profile.text == "" {
		s.file = c.top
		return open, nil
	}
	chosen, ok := c.profiles[profile.text]
	if !ok {
		names := slices.Sorted(maps.Keys(c.profiles))
		e := &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %s %q", profile.from, profile.text),
			Why:  fmt.Sprintf("there is no such profile in %s", oneLine(file.text)),
			Hint: "choose from: " + strings.Join(names, ", ")}
		if len(names) == 0 {
			e.Hint = "there are none; they stand below profiles:"
		}
		return open, e
	}
	s.file = section{}
	for name, v := range c.top {
		s.file[name] = v
	}
	for name, v := range chosen {
		s.file[name] = v
	}
	return open, nil
}

// readConfig reads the file, unless somebody else could have written it: whoever can do so has the token sent to a
// server of their own.
func readConfig(from, name string, allow []int) (src []byte, open *openToken, err error) {
	what := fmt.Sprintf("cannot read %s %q", from, name)
	f, err := trust.Open(name, allow)
	if err != nil {
		return nil, nil, &fault.Error{Kind: fault.Usage, What: what, Why: vault.Errno(err),
			Hint: trust.Cure(err, "name a YAML file of options that can be read"), Err: err}
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = syscall.EISDIR
	}
	if err == nil {
		src, err = io.ReadAll(io.LimitReader(f, maxConfig+1))
	}
	switch {
	case err != nil:
		return nil, nil, &fault.Error{Kind: fault.Usage, What: what, Why: vault.Errno(err),
			Hint: "name a YAML file of options that can be read"}
	case len(src) > maxConfig:
		return nil, nil, &fault.Error{Kind: fault.Usage, What: what,
			Why:  fmt.Sprintf("it is larger than %d KiB", maxConfig>>10),
			Hint: "name a YAML file of options; vaultexec help run lists them"}
	}
	if info.Mode().IsRegular() {
		open = exposed(name, src, info)
	}
	return src, open, nil
}

// openToken is a token in a configuration file that others can read.
type openToken struct {
	file string
	line int
	mode os.FileMode
}

// exposed finds one; nil for none.
func exposed(name string, src []byte, info os.FileInfo) *openToken {
	mode := info.Mode().Perm()
	if line := vault.TokenLine(src); line > 0 && mode&0o077 != 0 {
		return &openToken{name, line, mode}
	}
	return nil
}
