package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/cloud"
	"github.com/agenticverz/vaultexec/internal/environ"
	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/listen"
	"github.com/agenticverz/vaultexec/internal/restartlock"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// option is one option of the command line, the one place for the parser, the variables and every help text.
type option struct {
	name  string
	arg   string   // placeholder of the value; "" for a switch
	list  bool     // may be repeated
	env   []string // variables; the first that is set and not empty counts
	def   string   // default, as it would be written
	group string
	usage string
}

// The groups of the help text, in its order.
const (
	groupConfig     = "Configuration file"
	groupSecrets    = "Which secrets"
	groupChild      = "The command's environment"
	groupConnection = "Connection"
	groupLogin      = "Logging in"
	groupFailing    = "Failing"
	groupProcess    = "Signals and processes"
	groupWatch      = "Watching for changes"
	groupLogging    = "Logging and safety"
)

var groups = []string{groupConfig, groupSecrets, groupChild, groupConnection, groupLogin, groupFailing, groupProcess,
	groupWatch, groupLogging}

// vaultVar is a variable of the Vault CLI; OpenBao's name for it wins.
func vaultVar(name string) []string { return []string{"BAO_" + name, "VAULT_" + name} }

func ownVar(name string) []string { return []string{"VAULTEXEC_" + name} }

// options is every option of the launcher. Lists in a variable are separated by commas or line breaks.
var options = []option{
	{name: "config", arg: "FILE", env: ownVar("CONFIG"), group: groupConfig, usage: "read options from this YAML file; none is ever looked for (see help config)"},
	{name: "profile", arg: "NAME", env: ownVar("PROFILE"), group: groupConfig, usage: "take this one of its profiles, whose options win over those of the top level"},
	{name: "allow-owner", arg: "USER", list: true, env: ownVar("ALLOW_OWNER"), group: groupConfig, usage: "credential, configuration and CA files of this user count as your own; anyone turns that check off (see help login)"},

	{name: "mount", arg: "NAME", env: ownVar("MOUNT"), def: "secret", group: groupSecrets, usage: "KV mount that relative paths belong to"},
	{name: "path", arg: "PATH[@VERSION|?FIELDS]", list: true, env: ownVar("PATH"), group: groupSecrets, usage: "every key of this secret becomes a variable; /MOUNT/PATH names the mount itself, 'PATH/*' every secret directly in that folder, 'PATH?NAME=VALUE' what the engine makes of these fields"},
	{name: "optional-path", arg: "PATH[@VERSION|?FIELDS]", list: true, env: ownVar("OPTIONAL_PATH"), group: groupSecrets, usage: "the same, but a secret that does not exist is left out with a warning"},
	{name: "env", arg: "NAME=PATH[@VERSION|?FIELDS]#KEY", list: true, env: ownVar("ENV"), group: groupSecrets, usage: "one key of a secret under a name of your choice; or NAME=TEXT with ${PATH#KEY|url} in it (see help references)"},
	{name: "resolve-env", env: ownVar("RESOLVE_ENV"), group: groupSecrets, usage: "replace inherited variables whose value is vault:PATH#KEY, or has ${vault:PATH#KEY} in it"},
	{name: "env-file", arg: "FILE", list: true, env: ownVar("ENV_FILE"), group: groupSecrets, usage: "add the variables of this .env file, and resolve such references in it; what is already set wins"},
	{name: "prefix", arg: "TEXT", env: ownVar("PREFIX"), group: groupSecrets, usage: "put TEXT before the names that come from --path"},
	{name: "upcase", env: ownVar("UPCASE"), group: groupSecrets, usage: "turn the keys of --path into capital letters"},
	{name: "only", arg: "GLOB", list: true, env: ownVar("ONLY"), group: groupSecrets, usage: "take only those keys of --path"},
	{name: "exclude", arg: "GLOB", list: true, env: ownVar("EXCLUDE"), group: groupSecrets, usage: "leave those keys of --path out"},
	{name: "names", arg: "LIST", list: true, env: ownVar("NAMES"), group: groupSecrets, usage: "the only names that --path may give, as NAME,NAME or a file with one per line (./names.txt); any other is an error that names it"},
	{name: "require", arg: "NAME", list: true, env: ownVar("REQUIRE"), group: groupSecrets, usage: "start nothing unless the command gets this variable, from a secret or inherited; its value may be empty"},
	{name: "on-collision", arg: "error|first|last", env: ownVar("ON_COLLISION"), def: "error", group: groupSecrets, usage: "what to do when two sources give the same name"},
	{name: "allow-name", arg: "GLOB", list: true, env: ownVar("ALLOW_NAME"), group: groupSecrets, usage: "allow a name that changes which code runs, such as LD_PRELOAD (see help references)"},
	{name: "null-as-empty", env: ownVar("NULL_AS_EMPTY"), group: groupSecrets, usage: "treat null as an empty value, not as an error"},
	{name: "kv-version", arg: "1|2", env: ownVar("KV_VERSION"), group: groupSecrets, usage: "version of the KV engine; detected when not given"},
	{name: "dry-run", group: groupSecrets, usage: "show the names, where each comes from and what is stripped, never a value; start nothing"},

	{name: "chdir", arg: "DIR", env: ownVar("CHDIR"), group: groupChild, usage: "start the command in this folder, entered anew at each start; a relative program is looked up there"},
	{name: "keep-existing", env: ownVar("KEEP_EXISTING"), group: groupChild, usage: "a variable that is already set wins over Vault"},
	{name: "clean-env", env: ownVar("CLEAN_ENV"), group: groupChild, usage: "start from an empty environment with PATH, HOME, TERM, TZ and LANG"},
	{name: "pass", arg: "GLOB", list: true, env: ownVar("PASS"), group: groupChild, usage: "with --clean-env: keep those variables too"},
	{name: "file", arg: "NAME[:base64][=PATH][,mode=MODE][,owner=USER:GROUP]", list: true, env: ownVar("FILE"), group: groupChild, usage: "hand the secret NAME over as a file, whose path is in NAME_FILE: sealed in memory, or at PATH until the end; mode 0400 and vaultexec's user unless mode= and owner= say otherwise"},
	{name: "file-set", arg: "DIR", list: true, env: ownVar("FILE_SET"), group: groupChild, usage: "make the folder DIR for those --file NAME=PATH that are in it, and replace all of them in one step"},
	{name: "allow-disk", env: ownVar("ALLOW_DISK"), group: groupChild, usage: "let the PATH of --file be on a disk, which keeps what was written there"},
	{name: "mask", env: ownVar("MASK"), group: groupChild, usage: "replace the secrets by *** in what the command prints, however they are quoted, folded or encoded"},
	{name: "mask-min", arg: "BYTES", env: ownVar("MASK_MIN"), def: "6", group: groupChild, usage: "with --mask: leave shorter secrets as they are"},
	{name: "keep-token", env: ownVar("KEEP_TOKEN"), group: groupChild, usage: "leave VAULT_TOKEN and other Vault credentials in the command's environment"},

	{name: "address", arg: "URL", env: vaultVar("ADDR"), def: vault.DefaultAddress, group: groupConnection, usage: "address of Vault: http://, https:// or unix:///SOCKET"},
	{name: "namespace", arg: "NAME", env: vaultVar("NAMESPACE"), group: groupConnection, usage: "namespace of every path (Vault Enterprise, OpenBao)"},
	{name: "ca-cert", arg: "FILE", env: vaultVar("CACERT"), group: groupConnection, usage: "PEM file with the CA that signed the server's certificate"},
	{name: "ca-path", arg: "DIR", env: vaultVar("CAPATH"), group: groupConnection, usage: "folder of such PEM files"},
	{name: "client-cert", arg: "FILE", env: vaultVar("CLIENT_CERT"), group: groupConnection, usage: "PEM file with this client's certificate"},
	{name: "client-key", arg: "FILE", env: vaultVar("CLIENT_KEY"), group: groupConnection, usage: "PEM file with its private key"},
	{name: "tls-server-name", arg: "NAME", env: vaultVar("TLS_SERVER_NAME"), group: groupConnection, usage: "name to expect in the server's certificate"},
	{name: "tls-skip-verify", env: vaultVar("SKIP_VERIFY"), group: groupConnection, usage: "do not verify the server's certificate: anybody in between can read the secrets"},
	{name: "allow-http", env: ownVar("ALLOW_HTTP"), group: groupConnection, usage: "do not warn that the token crosses the network unencrypted, or to a server that is not verified, nor that --status can be read from other machines"},

	{name: "auth", arg: "METHOD", env: ownVar("AUTH"), group: groupLogin, usage: "token, approle, aws, azure, gcp, kubernetes, jwt, cert, userpass, ldap, okta, radius, github, oidc or agent; without it, what is given decides (see help login)"},
	{name: "auth-mount", arg: "NAME", env: ownVar("AUTH_MOUNT"), group: groupLogin, usage: "where the auth method is mounted, when that is not its own name"},
	{name: "auth-namespace", arg: "NAME", env: ownVar("AUTH_NAMESPACE"), group: groupLogin, usage: "namespace of the login and its token, when that is not the one of the paths; root is the topmost"},
	{name: "role", arg: "NAME", env: ownVar("ROLE"), group: groupLogin, usage: "role to log in as: aws, azure, gcp, kubernetes, jwt, cert, oidc; with approle the one that a wrapped secret id must belong to"},
	{name: "token-file", arg: "FILE", env: ownVar("TOKEN_FILE"), group: groupLogin, usage: "file with the token; else VAULT_TOKEN, else what `vaultexec login` or `vault login` stored"},
	{name: "wrapped-token-file", arg: "FILE", env: ownVar("WRAPPED_TOKEN_FILE"), group: groupLogin, usage: "file with a wrapping token that holds the token; or VAULTEXEC_WRAPPED_TOKEN"},
	{name: "role-id", arg: "ID", env: append(ownVar("ROLE_ID"), vaultVar("ROLE_ID")...), group: groupLogin, usage: "approle: the role id"},
	{name: "role-id-file", arg: "FILE", env: ownVar("ROLE_ID_FILE"), group: groupLogin, usage: "approle: file with the role id"},
	{name: "secret-id-file", arg: "FILE", env: ownVar("SECRET_ID_FILE"), group: groupLogin, usage: "approle: file with the secret id, read at every login; or VAULTEXEC_SECRET_ID"},
	{name: "wrapped-secret-id-file", arg: "FILE", env: ownVar("WRAPPED_SECRET_ID_FILE"), group: groupLogin, usage: "approle: file with a wrapping token that holds the secret id; or VAULTEXEC_WRAPPED_SECRET_ID"},
	{name: "jwt-file", arg: "FILE", env: ownVar("JWT_FILE"), group: groupLogin, usage: "jwt, kubernetes: file with the JWT, read at every login (kubernetes: default the service account's); or VAULTEXEC_JWT"},
	{name: "aws-region", arg: "REGION", env: ownVar("AWS_REGION"), group: groupLogin, usage: "aws: region of the STS that Vault asks; else AWS_REGION, AWS_DEFAULT_REGION, the profile's, or the STS for the whole world"},
	{name: "aws-server-id", arg: "TEXT", env: ownVar("AWS_SERVER_ID"), group: groupLogin, usage: "aws: value of the header X-Vault-AWS-IAM-Server-ID, where Vault demands it (iam_server_id_header_value)"},
	{name: "gcp-type", arg: "gce|iam", env: ownVar("GCP_TYPE"), group: groupLogin, usage: "gcp: gce takes the metadata server's token, iam signs one with a service account's key; without it, what is given decides"},
	{name: "gcp-credentials-file", arg: "FILE", env: ownVar("GCP_CREDENTIALS_FILE"), group: groupLogin, usage: "gcp: JSON key file of a service account, read at every login; or GOOGLE_APPLICATION_CREDENTIALS"},
	{name: "azure-resource", arg: "URI", env: ownVar("AZURE_RESOURCE"), def: cloud.AzureResource, group: groupLogin, usage: "azure: what the token is for, the same as resource in the mount's configuration"},
	{name: "azure-client-id", arg: "ID", env: ownVar("AZURE_CLIENT_ID"), group: groupLogin, usage: "azure: which managed identity, where there are several; or AZURE_CLIENT_ID"},
	{name: "azure-resource-id", arg: "ID", env: ownVar("AZURE_RESOURCE_ID"), group: groupLogin, usage: "azure: what the identity belongs to, for a role that is bound to subscriptions or resource groups; found out on machines and in App Service"},
	{name: "username", arg: "NAME", env: ownVar("USERNAME"), group: groupLogin, usage: "userpass, ldap, okta, radius: the user"},
	{name: "password-file", arg: "FILE", env: ownVar("PASSWORD_FILE"), group: groupLogin, usage: "userpass, ldap, okta, radius: file with the password; or VAULTEXEC_PASSWORD; asked for at a terminal"},
	{name: "github-token-file", arg: "FILE", env: ownVar("GITHUB_TOKEN_FILE"), group: groupLogin, usage: "github: file with a personal access token; or VAULTEXEC_GITHUB_TOKEN"},
	{name: "oidc-port", arg: "PORT", env: ownVar("OIDC_PORT"), def: "8250", group: groupLogin, usage: "oidc: where the browser comes back to; the role has to allow http://localhost:PORT/oidc/callback"},
	{name: "no-browser", env: ownVar("NO_BROWSER"), group: groupLogin, usage: "oidc: show the address and open no browser"},

	{name: "wait", arg: "DURATION|forever", env: ownVar("WAIT"), def: "60s", group: groupFailing, usage: "how long to wait for a Vault that is away or sealed; 0 is one attempt"},
	{name: "fallback", arg: "FILE", env: ownVar("FALLBACK"), group: groupFailing, usage: "keep an encrypted copy of the secrets there, and start with it when Vault is still away after --wait (see help fallback)"},
	{name: "fallback-key-file", arg: "FILE", env: ownVar("FALLBACK_KEY_FILE"), group: groupFailing, usage: "with --fallback: the key of the copy, in another folder; vaultexec fallback key makes one"},
	{name: "fallback-max-age", arg: "DURATION", env: ownVar("FALLBACK_MAX_AGE"), def: "24h", group: groupFailing, usage: "with --fallback: an older copy is not used"},
	{name: "timeout", arg: "DURATION", env: append(ownVar("TIMEOUT"), vaultVar("CLIENT_TIMEOUT")...), def: "10s", group: groupFailing, usage: "limit of one attempt"},

	{name: "listen", arg: "[NAME=]ADDRESS", list: true, env: ownVar("LISTEN"), group: groupProcess, usage: "hold this listening socket for the command, as descriptor 3 and up: no connection is refused while it restarts (see help listening). HOST:PORT, :PORT, [::1]:PORT or unix:/PATH[,mode=0660]"},
	{name: "supervise", env: ownVar("SUPERVISE"), group: groupProcess, usage: "stay as the command's parent: forward signals, reap orphans (always so as PID 1)"},
	{name: "init", env: ownVar("INIT"), group: groupProcess, usage: "the same, under the name that it has in other tools"},
	{name: "replace", env: ownVar("REPLACE"), group: groupProcess, usage: "become the command even as PID 1; for where a tini in front reaps"},
	{name: "pass-notify", env: ownVar("PASS_NOTIFY"), group: groupProcess, usage: "hand systemd's NOTIFY_SOCKET and watchdog on to the command; otherwise a vaultexec that stays speaks to systemd itself"},
	{name: "ready", arg: "auto|notify|http:PATH|tcp|after:DURATION|exec:PROGRAM", env: ownVar("READY"), def: "auto", group: groupProcess, usage: "when a command counts as ready, for --restart-order start-first; if given, systemd hears READY=1 only when the first command is ready (see help ready; stays as parent)"},
	{name: "ready-timeout", arg: "DURATION", env: ownVar("READY_TIMEOUT"), def: "60s", group: groupProcess, usage: "how long a command may take to be ready"},
	{name: "ready-address", arg: "ADDRESS", env: ownVar("READY_ADDRESS"), group: groupProcess, usage: "with --ready http:PATH or tcp: connect to HOST:PORT or unix:/PATH, which only the new command has, and not to the sockets of --listen"},
	{name: "status", arg: "ADDRESS", env: ownVar("STATUS"), group: groupProcess, usage: "answer /livez, /readyz, /status and /metrics there: HOST:PORT or unix:/PATH[,mode=0600] (see help status-endpoint; stays as parent)"},
	{name: "max-age", arg: "DURATION", env: ownVar("MAX_AGE"), group: groupProcess, usage: "with --status and --watch: /readyz answers 503 when the last successful look at a path is longer ago"},
	{name: "stop-signal", arg: "SIGNAL", env: ownVar("STOP_SIGNAL"), def: "SIGTERM", group: groupProcess, usage: "what stops the command; a received SIGTERM is passed on as this"},
	{name: "stop-timeout", arg: "DURATION", env: ownVar("STOP_TIMEOUT"), def: "10s", group: groupProcess, usage: "how long a stop may take before SIGKILL; for a received SIGTERM only when this is given"},
	{name: "ok-exit", arg: "CODE[=CODE]", list: true, env: ownVar("OK_EXIT"), group: groupProcess, usage: "this exit code of the command, or 128 + signal, counts as 0, or as the second code (stays as parent)"},
	{name: "signal-group", env: ownVar("SIGNAL_GROUP"), group: groupProcess, usage: "forward signals to the command's whole process group"},

	{name: "watch", env: ownVar("WATCH"), group: groupWatch, usage: "look at the secrets from time to time, and restart the command when what it was given has changed"},
	{name: "interval", arg: "DURATION", env: ownVar("INTERVAL"), def: "30s", group: groupWatch, usage: "time between two looks, ± 10 %"},
	{name: "settle", arg: "DURATION", env: ownVar("SETTLE"), def: "2s", group: groupWatch, usage: "act once nothing further has changed for this long, so that a rotation of several paths is one restart"},
	{name: "splay", arg: "DURATION", env: ownVar("SPLAY"), def: "0s", group: groupWatch, usage: "random delay up to this, so that many instances do not restart at once"},
	{name: "min-uptime", arg: "DURATION", env: ownVar("MIN_UPTIME"), def: "5s", group: groupWatch, usage: "least time between two restarts"},
	{name: "on-change", arg: "restart|signal:NAME|exit[:CODE]|none", env: ownVar("ON_CHANGE"), def: "restart", group: groupWatch, usage: "what to do when a secret changes; exit ends with 124 or CODE"},
	{name: "restart-order", arg: "stop-first|start-first", env: ownVar("RESTART_ORDER"), def: "stop-first", group: groupWatch, usage: "start-first starts the new command beside the old one, which stops when the new one is ready"},
	{name: "on-change-hook", arg: "PROGRAM", env: ownVar("ON_CHANGE_HOOK"), group: groupWatch, usage: "run this first; it is told the paths, versions and names that changed, and postpones the change when it fails"},
	{name: "refresh-signal", arg: "SIGNAL", env: ownVar("REFRESH_SIGNAL"), group: groupWatch, usage: "this signal is not forwarded but makes vaultexec look at once"},
	{name: "probation", arg: "DURATION", env: ownVar("PROBATION"), def: "10s", group: groupWatch, usage: "a command that fails within this time after a change is started again with what worked before"},
	{name: "no-rollback", env: ownVar("NO_ROLLBACK"), group: groupWatch, usage: "end with the command in that case"},

	{name: "restart-lock", arg: "kubernetes:NAME|consul:NAME", env: ownVar("RESTART_LOCK"), group: groupWatch, usage: "restart after a change only while a place in this lock is held, which the fleet shares (see help fleets)"},
	{name: "restart-limit", arg: "N", env: ownVar("RESTART_LIMIT"), def: "1", group: groupWatch, usage: "with --restart-lock: how many places it has, so that N restart at once and no more"},
	{name: "restart-lock-wait", arg: "DURATION", env: ownVar("RESTART_LOCK_WAIT"), def: "10m", group: groupWatch, usage: "how long a change waits for a place, before it is made without one; 0 waits for ever"},
	{name: "restart-lock-required", env: ownVar("RESTART_LOCK_REQUIRED"), group: groupWatch, usage: "never make a change without a place, but for credentials that expire: go on waiting"},
	{name: "canary", env: ownVar("CANARY"), group: groupWatch, usage: "with --restart-lock: the first that has a place tries the change, and the others follow if it works"},
	{name: "service-account", arg: "DIR", env: ownVar("SERVICE_ACCOUNT"), def: restartlock.ServiceAccount, group: groupWatch, usage: "with --restart-lock kubernetes:NAME: folder of the token, ca.crt and namespace of the pod's service account"},

	{name: "lease-margin", arg: "DURATION", env: ownVar("LEASE_MARGIN"), def: "0s", group: groupWatch, usage: "how long before the end of a lease the command is restarted with new credentials; 0 is a tenth of the lease's life, and --stop-timeout at least"},

	{name: "log-level", arg: "error|warn|info|debug", env: ownVar("LOG_LEVEL"), def: "info", group: groupLogging, usage: "how much to say, always on standard error and never a value"},
	{name: "quiet", env: ownVar("QUIET"), group: groupLogging, usage: "say nothing but errors, as with --log-level error; a command that reports what it did says nothing either"},
	{name: "log-format", arg: "text|json", env: ownVar("LOG_FORMAT"), def: "text", group: groupLogging, usage: "lines for a person or for a machine"},
	{name: "dumpable", env: ownVar("DUMPABLE"), group: groupLogging, usage: "let /proc/PID of vaultexec be opened by its own user, for images that write to /proc/1/fd/1"},
	{name: "help", group: groupLogging, usage: "show this text"},
	{name: "version", group: groupLogging, usage: "show the version"},
}

// settings answers what each option is, from the command line, the variables, the configuration file and the defaults,
// and collects what is wrong.
type settings struct {
	opts    []option
	given   *given
	environ func(name string) string
	file    section // of --config, the profile included
	allowed []int   // what owners returns, once it was asked
	faults  []*fault.Error
}

func (s *settings) option(name string) option {
	i := slices.IndexFunc(s.opts, func(o option) bool { return o.name == name })
	if i < 0 {
		panic("no option " + name) // a mistake in this program's own table
	}
	return s.opts[i]
}

// origin is where a setting came from; the greater one wins.
type origin uint8

const (
	fromDefault origin = iota
	fromFile
	fromVariable
	fromOption
)

// setting is one value and where it came from.
type setting struct {
	text   string
	from   string // "--wait", "VAULTEXEC_WAIT", "wait (vaultexec.yaml:3)" or "" for the default
	origin origin
	order  int    // position on the command line; 0 in a variable; below that in a file
	place  string // FILE:LINE in a file
}

// all returns the values of a list.
func (s *settings) all(name string) []setting {
	o := s.option(name)
	var out []setting
	for _, v := range s.given.values[name] {
		out = append(out, setting{text: v.text, from: "--" + name, origin: fromOption, order: v.order})
	}
	if len(out) > 0 {
		return out
	}
	for _, env := range o.env {
		if v := s.environ(env); v != "" {
			for _, item := range wholeItems(o, splitList(v)) {
				out = append(out, setting{text: item, from: env, origin: fromVariable})
			}
			return out
		}
	}
	return s.inFile(o)
}

// inFile returns what the configuration file says. What has no variable cannot be set by a file either: import's
// --replace must not come from a file that says replace for a run.
func (s *settings) inFile(o option) []setting {
	if len(o.env) == 0 {
		return nil
	}
	return s.file[o.name]
}

// splitList splits the value of a variable at line breaks, or at commas when it has none.
func splitList(v string) []string {
	sep := ","
	if strings.Contains(v, "\n") {
		sep = "\n"
	}
	var out []string
	for item := range strings.SplitSeq(v, sep) {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}

// wholeItems puts together what the commas of a list have parted: an option of --file belongs to the file before it, and
// one of --listen to the address.
func wholeItems(o option, items []string) []string {
	isOption := environ.IsFileOption
	switch o.name {
	case "file":
	case "listen":
		isOption = listen.IsOption
	default:
		return items
	}
	var out []string
	for _, item := range items {
		if len(out) > 0 && isOption(item) {
			out[len(out)-1] += "," + item
			continue
		}
		out = append(out, item)
	}
	return out
}

// one returns a single value; of several on the command line the last counts.
func (s *settings) one(name string) setting {
	o := s.option(name)
	if vs := s.given.values[name]; len(vs) > 0 {
		last := vs[len(vs)-1]
		return setting{text: last.text, from: "--" + name, origin: fromOption, order: last.order}
	}
	for _, env := range o.env {
		if v := s.environ(env); v != "" {
			return setting{text: v, from: env, origin: fromVariable}
		}
	}
	if vs := s.inFile(o); len(vs) > 0 {
		return vs[len(vs)-1]
	}
	return setting{text: o.def}
}

func (s *settings) str(name string) string { return s.one(name).text }

func (s *settings) strs(name string) []string {
	var out []string
	for _, v := range s.all(name) {
		out = append(out, v.text)
	}
	return out
}

func (s *settings) isSet(name string) bool { return s.one(name).from != "" }

// mismatch says why a text is no value of the option, where its placeholder tells; "" for one that is.
func (o option) mismatch(text string) string {
	words := strings.Split(o.arg, "|")
	switch {
	case text == "":
	case o.arg == "":
		if _, err := strconv.ParseBool(text); err != nil {
			return "not true or false"
		}
	case words[0] == "DURATION":
		if _, ok := parseDuration(text); !ok && !slices.Contains(words[1:], text) {
			return "not a duration"
		}
	case len(words) > 1 && !strings.ContainsAny(o.arg, ":["): // on-change has a grammar of its own
		if !slices.Contains(words, text) {
			return "not one of " + strings.Join(words, ", ")
		}
	}
	return ""
}

func (s *settings) bool(name string) bool {
	v := s.one(name)
	if why := s.option(name).mismatch(v.text); why != "" {
		s.bad(v, why, "")
	}
	b, _ := strconv.ParseBool(v.text)
	return b
}

// choice returns one of the words of the option's placeholder.
func (s *settings) choice(name string) string {
	v := s.one(name)
	if why := s.option(name).mismatch(v.text); why != "" {
		s.bad(v, why, "")
	}
	return v.text
}

func (s *settings) duration(name string) time.Duration {
	v := s.one(name)
	d, ok := parseDuration(v.text)
	if !ok {
		s.bad(v, "not a duration", "write it as 500ms, 10s or 2m")
	}
	return d
}

// parseDuration reads a duration as Go and the Vault CLI write it: 10s, 1m30s, or a bare number of seconds.
func parseDuration(text string) (time.Duration, bool) {
	d, err := time.ParseDuration(text)
	if n, nerr := strconv.ParseFloat(text, 64); nerr == nil {
		d, err = time.Duration(n*float64(time.Second)), nil
	}
	if err != nil || d < 0 {
		return 0, false
	}
	return d, true
}

// globs checks the patterns of a list.
func (s *settings) globs(name string) []string {
	for _, v := range s.all(name) {
		if !validGlob(v.text) {
			s.bad(v, "not a pattern", `write it as "POSTGRES_*", with * ? [a-z]`)
		}
	}
	return s.strs(name)
}

// bad notes a value that cannot be used.
func (s *settings) bad(v setting, why, hint string) {
	what := "cannot use " + v.from
	if v.text != "true" && !vault.LooksSecret(v.text) { // not a switch either
		what += fmt.Sprintf(" %q", v.text)
	}
	s.faults = append(s.faults, &fault.Error{Kind: fault.Usage, What: what, Why: why, Hint: hint})
}

// fail notes a failure that some other code found in a value.
func (s *settings) fail(v setting, err error) {
	f := *fault.Of(err)
	if vault.LooksSecret(v.text) { // which err may quote
		f.What, f.Why, f.Hint = "cannot use "+v.from,
			"it is wrong, and not repeated here because it looks like a secret", ""
	}
	if v.from != "" {
		f.Under(v.from)
	}
	s.faults = append(s.faults, &f)
}
