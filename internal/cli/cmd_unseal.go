package cli

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/trust"
	"github.com/agenticverz/vaultexec/internal/vault"
)

var unsealCommand = &command{
	name: "unseal", summary: "feed key shares until Vault is unsealed",
	about: `
Shares come from --keys-file, from standard input, or, on a terminal, are asked
for without echo; an empty line ends the asking. The file may hold the output of
"vault operator init", as text or JSON, KEY=value lines, or a share a line. A
Vault that is unsealed already counts as success.

Vault notices a wrong share only once it has as many as it needs, and then
forgets all of them. Other combinations of the shares at hand are tried, and the
wrong one is named.

  vaultexec unseal --keys-file /root/vault-keys
  vaultexec unseal --address https://vault-1:8200 --address https://vault-2:8200
`,
	own: []option{
		{name: "keys-file", arg: "FILE", env: ownVar("KEYS_FILE"), group: groupOwn, usage: "file with the shares; only its owner may be able to read it"},
		jsonOption,
		{name: "address", arg: "URL", list: true, env: vaultVar("ADDR"), def: vault.DefaultAddress, group: groupConnection, usage: "address of each node of the cluster"},
	},
	shared: append([]string{groupConfig, groupConnection, "--wait", "--timeout"}, withAll...),
	report: true,
	do:     (*app).unseal,
}

// unsealReport is what happened to one node.
type unsealReport struct {
	Address   string   `json:"address"`
	Sealed    *bool    `json:"sealed"` // null when it could not be asked
	Already   bool     `json:"already_unsealed,omitempty"`
	Progress  int      `json:"progress"`
	Threshold int      `json:"threshold"`
	Wrong     []string `json:"wrong_shares,omitempty"` // by their place, never themselves
	Error     string   `json:"error,omitempty"`
}

func (a *app) unseal(ctx context.Context, s *settings, _ []string) error {
	clients := a.unsealClients(s)
	if err := fault.Join(s.faults); err != nil {
		return err
	}
	shares, more, err := a.unsealShares(s)
	if err != nil {
		return err
	}
	var failed []*fault.Error
	reports := []unsealReport{}
	for _, c := range answeringFirst(ctx, clients) {
		u := &vault.Unsealing{Client: c, Shares: shares, More: more,
			Note: func(text string) { a.unsealNote(s, c, text) }}
		done, err := u.Run(ctx, a.patience(s))
		r := reportOn(c, u, done, err)
		switch {
		case err != nil:
			failed = append(failed, fault.Of(err))
		case done:
			a.unsealNote(s, c, "unsealed")
		default:
			a.unsealNote(s, c, "already unsealed")
		}
		reports = append(reports, r)
		shares = u.GoodFirst()
	}
	if s.bool("json") {
		a.ui.reportJSON(struct {
			Nodes []unsealReport `json:"nodes"`
		}{reports})
	}
	return fault.Join(failed)
}

// unsealShares returns the shares of a file, or a way to get them when one is needed. A Vault that is already unsealed
// asks for none.
func (a *app) unsealShares(s *settings) (
	shares []vault.Share, more func(vault.SealStatus) ([]vault.Share, error), err error) {
	if file := s.one("keys-file"); file.text != "" {
		shares, err = readKeysFile(file.from, file.text, s.owners())
		return shares, nil, err
	}
	asked := 0
	if isTerminal(a.terminal.in) {
		return nil, func(st vault.SealStatus) ([]vault.Share, error) { return a.askForShare(st, &asked) }, nil
	}
	return nil, func(vault.SealStatus) ([]vault.Share, error) {
		if asked++; asked > 1 {
			return nil, nil
		}
		text, err := io.ReadAll(io.LimitReader(a.terminal.in, maxValue))
		if err != nil {
			return nil, &fault.Error{Kind: fault.Usage, What: "cannot read the shares from standard input",
				Why: vault.Errno(err), Hint: "name a file with --keys-file"}
		}
		return vault.ParseShares(string(text), "standard input")
	}, nil
}

func reportOn(c *vault.Client, u *vault.Unsealing, done bool, err error) unsealReport {
	st := u.Status()
	r := unsealReport{Address: c.Where(), Already: err == nil && !done,
		Progress: st.Progress, Threshold: st.Threshold, Wrong: u.Wrong()}
	if st.Version != "" {
		r.Sealed = &st.Sealed
	}
	if err != nil {
		r.Error = fault.Of(err).Why
	}
	return r
}

// answeringFirst puts the nodes that do not answer at the end: they are waited for once the others are unsealed.
func answeringFirst(ctx context.Context, clients []*vault.Client) []*vault.Client {
	if len(clients) < 2 {
		return clients
	}
	away := make([]bool, len(clients))
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			_, err := c.Seal(ctx)
			away[i] = err != nil
		})
	}
	wg.Wait()
	var first, last []*vault.Client
	for i, c := range clients {
		if away[i] {
			last = append(last, c)
			continue
		}
		first = append(first, c)
	}
	return append(first, last...)
}

func (a *app) unsealNote(s *settings, c *vault.Client, text string) {
	if !s.bool("json") {
		a.ui.printf("%s: %s\n", c.Where(), oneLine(text))
	}
}

const orTrust = ", or unseal on that machine; --allow-http where the network itself is trusted"

// unsealClients makes a client for every node. No token is involved, and no Agent in front.
func (a *app) unsealClients(s *settings) []*vault.Client {
	addresses := s.strs("address")
	if len(addresses) == 0 {
		addresses = []string{s.option("address").def}
	}
	var clients []*vault.Client
	for _, address := range addresses {
		c, err := vault.New(a.connection(s, address))
		if err != nil {
			s.faults = append(s.faults, fault.Of(err))
			continue
		}
		if to := c.Exposed(); to != "" && !s.bool("allow-http") {
			f := &fault.Error{Kind: fault.Usage, What: "cannot unseal " + c.Where(),
				Why:  "the shares would cross the network unencrypted",
				Hint: to + " could read them: use https://" + orTrust}
			if c.Unverified() {
				f.Why = "the server's certificate is not verified"
				f.Hint = to + " could read the shares: use --ca-cert, not --tls-skip-verify" + orTrust
			}
			s.faults = append(s.faults, f)
		}
		clients = append(clients, c)
	}
	return clients
}

// readKeysFile refuses a file that others can read: whoever has the shares has everything. It also refuses one that
// others can change.
func readKeysFile(option, path string, allow []int) ([]vault.Share, error) {
	e := &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot read %s %q", option, path), Hint: vault.FileHint}
	f, err := trust.Open(path, allow)
	if err != nil {
		e.Why, e.Hint = vault.Errno(err), trust.Cure(err, e.Hint)
		return nil, e
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat() // of what is open, not of what the name may mean by now
	if err != nil {
		e.Why = vault.Errno(err)
		return nil, e
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		e.Why = fmt.Sprintf("others have access to it (mode %04o)", mode)
		e.Hint = fmt.Sprintf("chmod 600 %s, and think about who may have read it", shellQuote(path))
		return nil, e
	}
	b, err := io.ReadAll(io.LimitReader(f, maxValue))
	if err != nil {
		e.Why = vault.Errno(err)
		return nil, e
	}
	return vault.ParseShares(string(b), fmt.Sprintf("%s %q", option, path))
}

// askForShare asks at the terminal, again for what cannot be a share.
func (a *app) askForShare(st vault.SealStatus, asked *int) ([]vault.Share, error) {
	for {
		line, err := a.terminal.readHidden(
			fmt.Sprintf("Key share (%d/%d so far; empty to end): ", st.Progress, st.Threshold))
		switch {
		case err == errInputEnded, err == nil && line == "":
			return nil, nil
		case err != nil:
			return nil, &fault.Error{Kind: fault.Usage, What: "cannot ask for a share", Why: err.Error(),
				Hint: "name a file with --keys-file"}
		}
		if share, ok := vault.ParseShare(line, fmt.Sprintf("share %d", *asked+1)); ok {
			*asked++
			return []vault.Share{share}, nil
		}
		a.ui.errorf("That is no key share: they are Base64 or hexadecimal.\n")
	}
}
