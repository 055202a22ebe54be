package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/environ"
)

// shortUsage and the failure below it are what vaultexec without arguments shows: six lines.
const shortUsage = `vaultexec starts a program with secrets from HashiCorp Vault in its environment.

  vaultexec --path app-prod --path database -- uvicorn app:app
  vaultexec check --path app-prod            shows whether that would work
`

const synopsis = `vaultexec starts a program with secrets from HashiCorp Vault in its environment, and nowhere else.

Usage:
  vaultexec [OPTIONS] -- COMMAND [ARG...]        the launcher (also: vaultexec run ...)
  vaultexec check [OPTIONS]                      log in, look at every path: names and versions
%s  vaultexec help TOPIC                           a command, exit-codes, files, fleets, listening,
                                                 login, ready, references, status-endpoint,
                                                 watching
  vaultexec help WORD                            an option, or whatever has the word in it
  vaultexec help --all                           everything, for a pager

Everything after the first -- belongs to the command, byte for byte.
An option may also be given as the variable in brackets, or in the file of
--config; the option wins, then the variable.
`

// topics are the pages of `vaultexec help TOPIC`.
var topics = map[string]func() string{
	"exit-codes":      func() string { return exitCodes },
	"files":           func() string { return filesHelp },
	"fleets":          func() string { return fleetHelp },
	"listening":       func() string { return listeningHelp },
	"login":           func() string { return loginHelp },
	"ready":           func() string { return readyHelp },
	"references":      references,
	"status-endpoint": func() string { return statusHelp },
	"watching":        func() string { return watchingHelp },
}

const exitCodes = `Exit codes of vaultexec itself; a command that was started gives its own.

    1  vaultexec diff: the two differ;
       vaultexec scan: a secret stands in plain text
    2  vaultexec status: Vault is sealed or not initialized
  120  Vault was away for longer than --wait: unreachable, sealed, overloaded;
       or it cannot be talked to like this: TLS refused, wrong protocol
  121  login refused, a policy denies, the token is not valid
  122  no such secret or mount; the version is deleted or destroyed; a variable
       of --require that nothing gives
  123  a secret that cannot become a variable: collision, bad name, NUL byte,
       null, too large; rotate and import: somebody else wrote first
  124  --on-change exit: a secret changed, and the command was stopped
  125  wrong option, reference or configuration; found before Vault is asked
  126  the command was found and cannot be executed
  127  the command, or the interpreter of a script, was not found
  128+n  as a shell shows it: ended by signal n

To tell them from a command's own: vaultexec says why on standard error, and
with --log-format json its last line has the field "exit".
`

const loginHelp = `How vaultexec logs in: by --auth METHOD, or else by what is given.

  token       VAULT_TOKEN, --token-file, what ` + "`vault login`" + ` stored;
              or wrapped: --wrapped-token-file, VAULTEXEC_WRAPPED_TOKEN
  approle     --role-id (VAULTEXEC_ROLE_ID) or --role-id-file, and the secret
              id: --secret-id-file, VAULTEXEC_SECRET_ID, or wrapped:
              --wrapped-secret-id-file, VAULTEXEC_WRAPPED_SECRET_ID
  aws         --auth aws; the credentials that AWS' own tools would find:
              variables, profiles, the role of a pod, task or instance;
              --aws-server-id where Vault demands it, --aws-region
  azure       --auth azure --role NAME; the identity of a machine, of an app, or of
              a pod with a workload identity. --azure-resource is that of the mount
  gcp         --auth gcp --role NAME; the metadata server's token, or a service
              account's key: --gcp-credentials-file, GOOGLE_APPLICATION_CREDENTIALS
  kubernetes  --auth kubernetes --role NAME; the service account's token
  jwt         --jwt-file or VAULTEXEC_JWT, and --role
  cert        --auth cert with --client-cert and --client-key
  userpass    --auth userpass --username NAME and --password-file,
  ldap        VAULTEXEC_PASSWORD, or typed at a terminal
  okta        the same; a push or a number to choose on the telephone may follow
  radius      the same
  github      --github-token-file or VAULTEXEC_GITHUB_TOKEN: a personal token
  oidc        --auth oidc --role NAME: a person's browser, where there is a
              terminal; elsewhere vaultexec login comes first
  agent       VAULT_AGENT_ADDR: a Vault Agent or Proxy in front has the token

Without --auth, in this order: VAULT_TOKEN or --token-file; the one method whose
inputs are given (more than one is an error); agent when VAULT_AGENT_ADDR is
set; the store of the Vault CLI. What the file of --config gives counts where no
option and no variable gives anything. --auth-mount names the mount when it is
not named after the method. --auth-namespace is for a login in another namespace
than that of the paths (root: the topmost); the token is renewed, looked up and
revoked there, too.

A secret is never the value of an option: everybody can read command lines. The
variables above are taken out of the command's environment; those of AWS are the
command's own, and stay. Files are read again
at every login, so that they can be rotated. A wrapping token can be used only
once; before that, vaultexec checks where it was made
(auth/MOUNT/role/ROLE/secret-id).

Whoever may write such a file, a CA or the file of --config decides where the
token goes. They are refused unless they, and all folders on the way to them,
belong to root or to vaultexec's own user, and nobody else may write them (a group
with the number of the owner may). In a sticky folder, such as /tmp, only the
owners count. What Kubernetes, systemd, docker and podman hand in passes, and so
does what was handed over open (/dev/stdin, a pipe). --allow-owner USER accepts
that user's files, too, such as those of a sidecar that writes the token. In a
container a file of the host's user is accepted when it is mounted read-only.

A file may hold the JSON that Vault's CLI (-format=json) or Agent writes. With
--token-file a wrapping token in it is unwrapped, an Agent's sink with wrap_ttl
as well; such a token is never revoked.

A token that vaultexec obtained is revoked when it is no longer needed; one that
was handed in never is. While vaultexec supervises a command it renews the token
at about two thirds of its life, and logs in again when that no longer works.
Logins that were refused are repeated after 1, 2, 4, 8 and then every 15 minutes,
and at once when a credential has changed.
`

const watchingHelp = `How --watch works: the command is restarted when what it was given changes.

Every --interval (30s, ± 10 %) vaultexec looks at the metadata of each path, one
small request; where the policy forbids metadata, at the data itself.
A path with @VERSION is pinned and not looked at. --refresh-signal HUP looks at
once when that signal comes. The policy for one path:

  path "agenticverz/data/app-prod"     { capabilities = ["read"] }
  path "agenticverz/metadata/app-prod" { capabilities = ["read"] }

Of a folder (--path 'team/*') the list is looked at as well: a secret that comes
or goes is a change.

A change is acted on when nothing has changed further for --settle (2s), so that
a rotation over several paths is one restart; then after a random delay of up to
--splay (0), and never within --min-uptime (5s) of the last start. Only a change
of the resulting environment counts.

Everything new is read and checked first, and only then is the old command
stopped: --stop-signal, and SIGKILL after --stop-timeout (10s). The new one
starts when nothing of the old one's group is left. A deleted version, a lost
permission or an invalid value leaves the command running on what it has, and
the log says why, once. So does a Vault that is away.

A command that ends with an error within --probation (10s) of such a start is
started again with what worked before, and the failed versions are not tried
again (--no-rollback turns that off). vaultexec forgets this when it ends:
--path app-prod@7 pins the version that works.

  --on-change restart       the default
  --on-change signal:NAME   send a signal; every name that may change has to be
                            a --file NAME=PATH, which is rewritten first
  --on-change exit[:CODE]   stop the command and end with 124, or CODE
  --on-change none          log the change and do nothing

  --on-change-hook PROGRAM  runs first, without any secret; its environment says
                            what changed: paths, versions, names. It
                            has 30s; its failure postpones the change.

Leased secrets (database/creds/...) need no --watch: vaultexec stays, and renews
the leases. When a lease cannot be renewed any further, vaultexec reads new
credentials before it expires, and restarts the command with them. --lease-margin
says how long before: by default a tenth of the lease's life, at least
--stop-timeout, at most half of that life; --settle comes on top. --splay,
--min-uptime and a failing hook cannot postpone this beyond --stop-timeout and two
seconds before the lease expires. The old lease is revoked when the old command
has ended, and the last one when vaultexec ends, if the token may do that.

A lease ends with the token that made it, so that vaultexec replaces its leases
when it has to log in again. With --watch it also notices a lease that somebody
revoked (sys/leases/lookup). The policy "default" allows lookup and renewal.

A secret that expires without a lease, such as identity/oidc/token/ROLE, is read
again before it expires, and not looked at in between. The password of a static
role (database/static-creds/...) is read when Vault has rotated it; a ttl that
counts down is not a change. A secret that differs at every read stays as it was
first read, and the log says so, once.
`

const referencesHelp = `How secrets are named, and which names variables may have.

  --path app-prod              all keys of that secret, in the mount of --mount
  --path /agenticverz/app-prod the leading slash names the mount itself
  --path app-prod@3            version 3 (KV version 2 only)
  --path 'team/*'              every secret directly in that folder; the policy has
                               to allow "list" on agenticverz/metadata/team/
  --env ID_TOKEN=/identity/oidc/token/app#token
                               a signed token about the entity that logged in
  --path '/pki/issue/web?common_name=app.example&ttl=24h'
                               what the engine makes of these fields: a certificate
  --env DB=database#PASSWORD   one key under a name of your choice
  --env DB=app-prod#db.password, --env HOST=app-prod#hosts.0
                               the same in an object or a list; a key whose very
                               name has dots in it wins
  --env 'URL=postgres://${database#USER}:${database#PASSWORD|url}@db/app'
                               several keys in a text, each in ${ }

  One or several filters may follow: url escapes what has a meaning in a URL
  (all but letters, digits and - . _ ~), json makes a JSON string with its
  quotes, base64 encodes, trim drops white space at both ends, and lines ends each
  item of a list with a line break, or the text if it is one. Write $${ for a
  ${ that begins no reference, and double a $ directly before a reference.

  vaultexec writes to a path with fields, and the answer is the secret. If the
  engine takes the fields with a read, it reads with them. So the policy has to
  allow "update" on the path (or "read"). Vault's help for the path says which
  fields there are; any other is an error. Fields are sent as strings, which Vault
  converts where it needs a number or a list. In a value %26 %23 %25 %0A stand for
  & # % and a line break, as in a URL; a + is a plus. Like the path, fields are no
  secret: everybody can see them. The same path with the same fields is made once
  at every start; check, --dry-run and get make nothing. --watch does not look at
  it; if the answer says when it expires, it is made again before that. KV secrets,
  settings of engines, @VERSION and 'PATH/*' take no fields.

  --env 'CERT=${P#certificate|lines}${P#ca_chain|lines}' --env 'KEY=P#private_key'
                               one certificate with its chain, and its key, where P
                               stands for /pki/issue/web?common_name=app.example

  With --resolve-env a variable that is already set is replaced when its value is
  a reference or has one in it; --env-file FILE reads a .env file of such
  variables, in the dialect of Docker Compose, and of plain ones. What is set
  already wins over the file. The mark vault: is needed there:

  DB=vault:database#PASSWORD   DB=vault:/agenticverz/database#PASSWORD
  URL=postgres://app:${vault:database#PASSWORD|url}@db/app
  DB=vault:agenticverz/data/database#PASSWORD#3     as bank-vaults writes it, with
                               the path of Vault's API (KV version 2), version 3

  Not what bank-vaults also has: writing (>>vault:), templates, transit.
  Variables that begin with VAULT_, BAO_ or VAULTEXEC_ are never replaced.

  %40 %23 %25 %2A %2C %3F %7C %7D in a path stand for @ # % * , ? | }. Segments "." and ".."
  and empty ones are errors. Lists in variables (VAULTEXEC_PATH and the like) are
  separated by commas, or by line breaks where there is one.

  Strings pass unchanged. Numbers become the literal that Vault sends, booleans
  true and false, objects and lists compact JSON; null is an error.

  Names are [A-Za-z_][A-Za-z0-9_]*. --names API_KEY,DB_PASSWORD takes these from
  --path and makes any other key an error: then no secret chooses what is set.
  Without it names that change which code runs in the program are refused unless
  --allow-name allows them. Those that steer vaultexec and its supervisor are
  always refused. No such list is complete:

`

// references is the page with the names that change which code runs.
func references() string {
	var b strings.Builder
	b.WriteString(referencesHelp)
	for _, group := range environ.DangerousNames() {
		b.WriteString("  " + group[0] + ":\n")
		line := "   "
		for _, n := range strings.Fields(group[1]) {
			if len(line)+1+len(n) > 78 {
				b.WriteString(line + "\n")
				line = "   "
			}
			line += " " + n
		}
		b.WriteString(line + "\n\n")
	}
	return b.String()
}

// help prints the whole usage or one topic on standard output.
func (a *app) help(args []string) error {
	text := usageText()
	if len(args) > 0 {
		var ok bool
		if text, ok = findHelp(args); !ok {
			return noHelp(args)
		}
	}
	a.ui.printf("%s", text)
	return nil
}

// helpOn is the page of a topic or a command.
func helpOn(topic string) (text string, ok bool) {
	if c := findCommand(topic); c != nil {
		if page := topics[topic]; page != nil { // login
			return page() + "\n" + c.help(), true
		}
		return c.help(), true
	}
	if topic == "run" || topic == "check" { // they have the launcher's options
		return usageText(), true
	}
	if page := topics[topic]; page != nil {
		return page(), true
	}
	return "", false
}

// helpTopics is everything that help has a page on: the topics, then the commands.
func helpTopics() []string {
	names := slices.Sorted(maps.Keys(topics))
	for _, c := range adminCommands {
		if topics[c.name] == nil { // else it is there already
			names = append(names, c.name)
		}
	}
	return append(names, "run", "check")
}

// usageText is the text of --help, from the option table.
func usageText() string {
	var b strings.Builder
	var commands strings.Builder
	for _, c := range adminCommands {
		fmt.Fprintf(&commands, "  %-45s  %s\n", c.usage(), c.summary)
	}
	fmt.Fprintf(&b, synopsis, commands.String())
	for _, g := range groups {
		fmt.Fprintf(&b, "\n%s:\n", g)
		for _, o := range options {
			if o.group == g {
				b.WriteString(optionText(o))
			}
		}
	}
	return b.String()
}

func optionText(o option) string {
	head := "  --" + o.name
	if o.arg != "" {
		head += " " + o.arg
	}
	const column = 34
	if len(head) >= column-1 {
		return head + "\n" + wrap(o.text(), column)
	}
	return head + strings.TrimPrefix(wrap(o.text(), column), strings.Repeat(" ", len(head)))
}

// text is what the option does, whether it may be repeated, its default and its variables.
func (o option) text() string {
	var notes []string
	if o.list {
		notes = append(notes, "repeatable")
	}
	if o.def != "" {
		notes = append(notes, "default "+o.def)
	}
	text := o.usage
	if len(notes) > 0 {
		text += " (" + strings.Join(notes, ", ") + ")"
	}
	if len(o.env) > 0 {
		text += " [" + strings.Join(o.env, ", ") + "]"
	}
	return text
}

// wrap breaks text into lines of at most 100 columns, each indented.
func wrap(text string, indent int) string {
	var b strings.Builder
	line := strings.Repeat(" ", indent-1)
	for _, w := range strings.Fields(text) {
		if len(line)+1+len(w) > 100 {
			b.WriteString(line + "\n")
			line = strings.Repeat(" ", indent-1)
		}
		line += " " + w
	}
	b.WriteString(line + "\n")
	return b.String()
}
