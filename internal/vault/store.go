package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/wholefile"
)

// storeFile is the name of the Vault CLI's token file, in the home directory.
const storeFile = ".vault-token"

// Store is where the Vault CLI keeps its token: with the token helper that its configuration names, or in
// ~/.vault-token.
type Store struct {
	home    string
	helper  string // "" for the file
	config  string // that names the helper
	environ []string
	allow   []int
}

// FindStore finds it. home is the home directory, configPath the VAULT_CONFIG_PATH of the CLI, and environ what a helper
// gets for its environment. Files of the users in allow count as one's own. No file holds it up longer than readLimit: a
// home directory may be on a server that is away.
func FindStore(ctx context.Context, home, configPath string, environ []string, allow ...int) (*Store, error) {
	s := &Store{home: home, environ: environ, allow: allow}
	config := cliConfig(home, configPath)
	if config == "" {
		return s, nil
	}
	helper, err := readBeside(ctx, "the Vault CLI's configuration", config,
		func() (string, error) { return tokenHelper(config, allow) })
	if err != nil {
		return nil, err
	}
	if helper != "" {
		s.helper, s.config = helper, config
	}
	return s, nil
}

// Helper is the path of the token helper, "" for none.
func (s *Store) Helper() string { return s.helper }

// File is the path of the token file.
func (s *Store) File() string { return filepath.Join(s.home, storeFile) }

// Token returns the stored token.
func (s *Store) Token(ctx context.Context) (Text, error) {
	if s.helper != "" {
		return s.askHelper(ctx)
	}
	none := noStoredToken("no token")
	if s.home == "" {
		none.Why = "no token, and HOME is not set"
		return Text{}, none
	}
	file := s.File()
	t, err := readBeside(ctx, "the token file", file,
		func() (Text, error) { return ReadCredential("the token file", file, s.allow...) })
	if errors.Is(err, fs.ErrNotExist) {
		return Text{}, none
	}
	return t, err
}

// noStoredToken is the failure to find a token anywhere.
func noStoredToken(why string) *fault.Error {
	return &fault.Error{Kind: fault.Usage, Cause: fault.NoToken, What: "cannot log in", Why: why,
		Hint: "set VAULT_TOKEN, give --token-file FILE, or log in with `vaultexec login`; " + StrippedHint}
}

// Check finds out whether a token could be stored, before a person goes to the trouble of a login.
func (s *Store) Check(ctx context.Context) error {
	if s.helper != "" {
		return s.checkHelper(s.what("store", "write"))
	}
	return s.inPlace(ctx, s.what("store", "write"), func(*os.File) error { return nil })
}

// inPlace does something in the folder of the token file.
func (s *Store) inPlace(ctx context.Context, what string, f func(dir *os.File) error) error {
	_, err := readBeside(ctx, "the folder of", s.File(), func() (struct{}, error) {
		dir, err := s.place(what)
		if err == nil {
			defer dir.Close()
			err = f(dir)
		}
		return struct{}{}, err
	})
	return err
}

// what is the text of a failure.
func (s *Store) what(helper, file string) string {
	if s.helper != "" {
		return fmt.Sprintf("cannot %s the token with the token helper %q", helper, s.helper)
	}
	return fmt.Sprintf("cannot %s %q", file, s.File())
}

// place opens the folder of the token file, which nobody else may write to. What is in the place of the file must be one
// that was put there for this.
func (s *Store) place(what string) (*os.File, error) {
	e := &fault.Error{Kind: fault.Usage, What: what}
	if s.home == "" {
		e.Why, e.Hint = "HOME is not set", "set it to your home directory"
		return nil, e
	}
	dir, err := trust.Folder(s.home, s.allow)
	if err != nil {
		e.Why, e.Err = Errno(err), err
		e.Hint = trust.Cure(err, "HOME has to name a folder that this user may write to")
		return nil, e
	}
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), storeFile, &st, unix.AT_SYMLINK_NOFOLLOW)
	kind := uint32(st.Mode) & unix.S_IFMT
	if err == nil && kind != unix.S_IFREG && kind != unix.S_IFLNK {
		dir.Close()
		e.Why, e.Hint = "something is there that is not a file", "take it away, or have the Vault CLI use a token helper (token_helper in ~/.vault)"
		return nil, e
	}
	return dir, nil
}

// Put stores a token in place of the one that is there. A token file is complete and on the disk before it has its name,
// and belongs to nobody else. A link is replaced as the Vault CLI replaces it, and not followed: it would lead the token
// to wherever it leads.
func (s *Store) Put(ctx context.Context, t Text) error {
	what := s.what("store", "write")
	if s.helper != "" {
		_, err := s.runHelper(ctx, what, "store", t)
		return err
	}
	return s.inPlace(ctx, what, func(dir *os.File) error {
		if err := wholefile.Replace(dir, storeFile, []byte(t.Reveal()), nil); err != nil {
			return &fault.Error{Kind: fault.Usage, What: what, Why: err.Error(), Err: err,
				Hint: "the folder must be one that this user may write to, with room for a small file"}
		}
		return nil
	})
}

// Erase removes the token, if it is still the one that is stored.
func (s *Store) Erase(ctx context.Context, t Text) error {
	what := s.what("erase", "remove")
	if now, err := s.Token(ctx); err != nil || !now.Equal(t) {
		if err != nil && !fault.Has(err, fault.NoToken) {
			return err
		}
		return nil
	}
	if s.helper != "" {
		_, err := s.runHelper(ctx, what, "erase", Text{})
		return err
	}
	return s.inPlace(ctx, what, func(dir *os.File) error {
		if err := unix.Unlinkat(int(dir.Fd()), storeFile, 0); err != nil && err != unix.ENOENT {
			return &fault.Error{Kind: fault.Usage, What: what, Why: err.Error(), Err: err, Hint: "remove it by hand"}
		}
		return nil
	})
}
