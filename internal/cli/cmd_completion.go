package cli

import (
	"context"
	_ "embed"
	"fmt"
	"slices"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// The scripts ask `vaultexec __complete` (complete.go) and know nothing of options themselves.
var (
	//go:embed completion/vaultexec.bash
	bashCompletion string
	//go:embed completion/_vaultexec
	zshCompletion string
	//go:embed completion/vaultexec.fish
	fishCompletion string
)

var completionCommand = &command{
	name: "completion", args: "[install] bash|zsh|fish", summary: "install or print the completion of a shell",
	about: `
vaultexec completion install writes the script where your shell looks for it, and
says what is left to do. Without a name, the shell is that of SHELL. Files that you
write yourself, such as .bashrc, are never changed. It may be repeated, after an
update for instance. The packages install the scripts for everybody.

  bash:  ~/.local/share/bash-completion/completions/vaultexec
  zsh:   _vaultexec in a folder of yours that is in fpath, or ~/.zsh/completions
  fish:  ~/.config/fish/completions/vaultexec.fish

Without install the script is printed, to be loaded at each start of the shell:

  bash:  source <(vaultexec completion bash)        in ~/.bashrc
  zsh:   source <(vaultexec completion zsh)         in ~/.zshrc, after compinit
  fish:  vaultexec completion fish | source         in ~/.config/fish/config.fish

Commands, options and their fixed values are completed, and file names; mounts,
paths and keys come from Vault when a token is at hand: VAULT_TOKEN, --token-file,
~/.vault-token, or a Vault Agent. A login, a token helper or a wrapping token is
never used for it, nothing is asked, and no token crosses the network unencrypted
unless --allow-http says that it may. Paths need the policy's "list", keys its
"read". Vault has 250 ms; what it has not answered by then is left out. What
stands after -- is completed as the command line that it is.
`,
	own:    []option{{name: "dry-run", group: groupOwn, usage: "with install: say which file would be written, and write none"}},
	shared: append([]string{"--allow-owner"}, withAll...), least: 1, most: 2,
	do: (*app).completion,
}

const installWord = "install"

func (a *app) completion(ctx context.Context, s *settings, words []string) error {
	shell, install := "", words[0] == installWord
	switch {
	case !install && len(words) > 1:
		return findCommand("completion").misused("too many words")
	case !install && s.bool("dry-run"):
		return &fault.Error{Kind: fault.Usage, What: "--dry-run belongs to vaultexec completion install",
			Hint: "without install, the script is printed and nothing is written"}
	case !install, len(words) > 1:
		shell = words[len(words)-1]
	}
	script, ok := completionScript(shell)
	if !ok && shell != "" || !ok && !install {
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("no completion for %q", shell),
			Hint: "choose from: bash, zsh, fish"}
	}
	if install {
		return a.installCompletion(ctx, s, shell)
	}
	a.ui.printf("%s", script)
	return nil
}

func completionScript(shell string) (string, bool) {
	script, ok := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[shell]
	return script, ok
}

// completionWords are what may follow `vaultexec completion` and some words.
func completionWords(before []string) []string {
	switch {
	case len(before) == 0:
		return append([]string{installWord}, shells...)
	case len(before) == 1 && before[0] == installWord:
		return slices.Clone(shells)
	}
	return nil
}
