package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/agenticverz/vaultexec/internal/fallback"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// fallbackOptions reads --fallback and what belongs to it.
func (a *app) fallbackOptions(s *settings) launcher.Fallback {
	file, key, age := s.one("fallback"), s.one("fallback-key-file"), s.one("fallback-max-age")
	if file.text == "" {
		for _, v := range []setting{key, age} {
			if v.origin == fromOption {
				s.bad(v, "only --fallback uses it", "give --fallback FILE, too")
			}
		}
		return launcher.Fallback{}
	}
	o := launcher.Fallback{File: file.text, MaxAge: s.duration("fallback-max-age")}
	if s.option("fallback-max-age").mismatch(age.text) == "" && o.MaxAge <= 0 {
		s.bad(age, "no copy would ever be used", "give a time such as 24h, the longest that Vault may be away")
	}
	if key.text == "" {
		s.bad(file, "a copy is encrypted, and no key is given", "name its file with --fallback-key-file; vaultexec fallback key makes one")
		return o
	}
	if dir, err := os.Stat(filepath.Dir(file.text)); err != nil || !dir.IsDir() {
		s.bad(file, "there is no such folder", "name a file in a folder that is there, and that this user may write")
		return o
	}
	if beside(file.text, key.text) {
		s.bad(key, "it lies in the folder of the copy",
			"whoever gets one would get both: keep the key elsewhere, by systemd's LoadCredentialEncrypted= or as a secret of Kubernetes or Compose")
		return o
	}
	var err error
	if o.Key, err = readFallbackKey(key.from, key.text, s.owners()...); err != nil {
		s.faults = append(s.faults, fault.Of(err))
	}
	return o
}

// beside reports whether two files lie in one folder, where links lead to as well.
func beside(file, key string) bool {
	folders := func(name string) (list []os.FileInfo) {
		real, err := filepath.EvalSymlinks(name)
		if err != nil {
			real = name
		}
		for _, n := range []string{name, real} {
			if info, err := os.Stat(filepath.Dir(n)); err == nil {
				list = append(list, info)
			}
		}
		return list
	}
	for _, x := range folders(file) {
		for _, y := range folders(key) {
			if os.SameFile(x, y) {
				return true
			}
		}
	}
	return false
}

// readFallbackKey reads a key, by the rule for credentials of others.
func readFallbackKey(option, file string, allow ...int) (fallback.Key, error) {
	text, err := vault.ReadCredential(option, file, allow...)
	if err != nil {
		return fallback.Key{}, err
	}
	k, err := fallback.ParseKey(text.Reveal())
	if err != nil {
		return k, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %s %q", option, file), Why: err.Error(),
			Hint: "vaultexec fallback key makes one"}
	}
	return k, nil
}
