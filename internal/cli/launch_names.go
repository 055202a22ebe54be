package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// required checks the names of --require.
func required(s *settings) []string {
	for _, v := range s.all("require") {
		if !environ.IsName(v.text) {
			s.bad(v, "not a variable name", "names are [A-Za-z_][A-Za-z0-9_]*; give the option once for each")
		}
	}
	return s.strs("require")
}

// names reads --names: each item is a list of names, or the file of one.
func names(s *settings) []string {
	items := s.all("names")
	if len(items) == 0 {
		return nil
	}
	list := []string{}
	for _, v := range items {
		parts := strings.Split(v.text, ",")
		if strings.ContainsAny(v.text, "/.") {
			var err error
			if parts, err = namesOf(v.text, s.owners()); err != nil {
				s.bad(v, vault.Errno(err), trust.Cure(err,
					"name a file that has one variable name in a line, or write the names themselves: --names API_KEY,DB_PASSWORD"))
				continue
			}
		}
		for _, name := range parts {
			if name = strings.TrimSpace(name); name == "" {
				continue
			}
			if !environ.IsName(name) {
				s.bad(v, fmt.Sprintf("%q is not a variable name", name),
					"names are [A-Za-z_][A-Za-z0-9_]*, separated by commas; the name of a file holds a / or a dot")
				break
			}
			list = append(list, name)
		}
	}
	return list
}

// maxNames bounds the file of --names.
const maxNames = 1 << 20

// namesOf reads a file of names, one in a line. What follows a # is a comment.
func namesOf(file string, allow []int) ([]string, error) {
	f, err := trust.Open(file, allow)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxNames+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxNames {
		return nil, errors.New("it is too large for a list of names")
	}
	var list []string
	for line := range strings.Lines(strings.TrimPrefix(string(b), "\ufeff")) { // the mark that some editors put first
		line, _, _ = strings.Cut(line, "#")
		list = append(list, line)
	}
	return list, nil
}

// dangerous refuses a reference under a name that changes which code runs.
func dangerous(sources []environ.Source, allowed []string) error {
	for _, src := range sources {
		what := fmt.Sprintf("cannot set %s", src.Name)
		if environ.Steers(src.Name) {
			return &fault.Error{Kind: fault.Usage, What: what,
				Why:  "it steers vaultexec and Vault's tools, and no secret may",
				Hint: "give it another name; to set it for vaultexec itself, set it where vaultexec is started"}
		}
		if why, hint := choosesCode(src.Name, "it", allowed); why != "" {
			return &fault.Error{Kind: fault.Usage, What: what, Why: why, Hint: hint}
		}
	}
	return nil
}

// choosesCode says why no secret may have a name that changes which code runs. It returns "" for any other name, and
// for one that is allowed. The text uses called for the name.
func choosesCode(name, called string, allowed []string) (why, hint string) {
	if !environ.IsDangerous(name, allowed) {
		return "", ""
	}
	return called + " changes which code runs",
		"whoever may write the secret would own the process: choose another name, or allow it with --allow-name " + name
}
