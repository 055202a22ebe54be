package cli

import (
	"context"
	_ "embed"
	"fmt"

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
	name: "completion", args: "bash|zsh|fish", summary: "print the completion script of a shell",
	about: `
bash:  source <(vaultexec completion bash)        in ~/.bashrc
zsh:   source <(vaultexec completion zsh)         in ~/.zshrc, after compinit
fish:  vaultexec completion fish | source         in ~/.config/fish/config.fish
The packages install all three.

Commands, options and their fixed values are completed, and file names; mounts,
paths and keys come from Vault when a token is at hand: VAULT_TOKEN, --token-file,
~/.vault-token, or a Vault Agent. A login, a token helper or a wrapping token is
never used for it, nothing is asked, and no token crosses the network unencrypted
unless --allow-http says that it may. Paths need the policy's "list", keys its
"read". Vault has 250 ms; what it has not answered by then is left out. What
stands after -- is completed as the command line that it is.
`,
	shared: []string{"--log-level", "--quiet", "--log-format", "--help"}, least: 1, most: 1,
	do: (*app).completion,
}

func (a *app) completion(_ context.Context, _ *settings, words []string) error {
	script, ok := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[words[0]]
	if !ok {
		return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("no completion for %q", words[0]),
			Hint: "choose from: bash, zsh, fish"}
	}
	a.ui.printf("%s", script)
	return nil
}
