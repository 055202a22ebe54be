package environ

import (
	"fmt"
	"slices"
	"strings"
)

// nameGroup is names that have something in common. One that ends in * stands for all that begin so.
type nameGroup struct {
	what  string
	names []string
}

// dangerousNames change which code runs in a program that has them, or what a program takes for its options. Whoever
// may write the secret would own the process. No such list is complete: it is a net. The wall is --names, --only and
// --env, with which a secret gives only what was asked for. The list holds all of glibc's and sudo's own lists, except
// what is judged by its value (see dangerousValue): sysdeps/generic/unsecvars.h, and initial_badenv_table and
// initial_checkenv_table of plugins/sudoers/env.c. The others are from the manuals of the programs.
//
// Names that only point at data, or at whom to trust, are not among them, since that is what secrets are for: proxies
// (HTTP_PROXY), CA files (SSL_CERT_FILE, NODE_EXTRA_CA_CERTS, REQUESTS_CA_BUNDLE, GIT_SSL_CAINFO), KUBECONFIG,
// DOCKER_HOST, AWS_* and GOOGLE_APPLICATION_CREDENTIALS, PGHOST and PGSSLKEY, tokens of registries
// (CARGO_REGISTRY_TOKEN, COMPOSER_AUTH).
var dangerousNames = []nameGroup{
	{"the dynamic linker and the C library", []string{"LD_*", "LDR_*", "_RLD*", "DYLD_*", "LIBPATH", "SHLIB_PATH", "GCONV_PATH", "GETCONF_DIR", "GLIBC_TUNABLES", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH",
		"MALLOC_TRACE", "NIS_PATH", "NLSPATH", "PATH_LOCALE", "RESOLV_HOST_CONF", "RES_OPTIONS", "TMPDIR", "TZDIR", "AUTHSTATE", "KRB5_CONFIG*", "KRB5_KTNAME", "VAR_ACE", "USR_ACE", "DLC_ACE",
		"TERMINFO", "TERMINFO_DIRS", "TERMPATH", "TERMCAP", "OMP_TOOL_LIBRARIES", "ASAN_*", "LSAN_*", "MSAN_*", "TSAN_*", "UBSAN_*"}},
	{"shells", []string{"PATH", "IFS", "HOME", "SHELL", "ENV", "BASH_ENV", "BASHOPTS", "SHELLOPTS", "BASH_FUNC_*", "BASH_LOADABLES_PATH", "EXECIGNORE", "GLOBIGNORE", "PS0", "PS1", "PS2", "PS3", "PS4",
		"PROMPT", "PROMPT2", "PROMPT3", "PROMPT4", "PROMPT_COMMAND", "RPROMPT", "RPROMPT2", "RPS1", "RPS2", "SPROMPT", "CDPATH", "MAILPATH", "FCEDIT", "INPUTRC", "NULLCMD", "READNULLCMD", "TMPPREFIX", "ZDOTDIR", "FPATH",
		"fish_function_path", "fish_complete_path", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME", "XDG_DATA_DIRS", "SUDO_ASKPASS", "SUDO_EDITOR", "SUDO_COMMAND"}},
	{"editors and pagers", []string{"EDITOR", "VISUAL", "SELECTED_EDITOR", "ALTERNATE_EDITOR", "VIMINIT", "EXINIT", "GVIMINIT", "MYVIMRC", "VIM", "VIMRUNTIME", "NVIM_*", "EMACSLOADPATH", "EMACSPATH",
		"PAGER", "MANPAGER", "MANOPT", "MANROFFOPT", "LESS", "LESSOPEN", "LESSCLOSE", "LESSKEY*", "LESSEDIT", "LESSECHO", "LESSMETAESCAPE", "MORE", "BAT_PAGER", "BAT_CONFIG_*", "DELTA_PAGER", "SYSTEMD_PAGER*", "SYSTEMD_EDITOR",
		"SYSTEMD_LESS", "BROWSER", "FZF_DEFAULT_*", "RIPGREP_CONFIG_PATH", "SCREENRC", "SYSSCREENRC", "MAILCAP", "MAILCAPS", "MAILRC"}},
	{"Python", []string{"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONBREAKPOINT", "PYTHONINSPECT", "PYTHONWARNINGS", "PYTHONEXECUTABLE", "PYTHONPLATLIBDIR",
		"PYTHONPYCACHEPREFIX", "PYTHONCASEOK", "PYTHON_PRESITE", "PIP_*", "UV_*", "PIPENV_*", "PYENV_*", "VIRTUALENV_*", "CONDA_EXE", "CONDARC", "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "TOX_*", "NOX*", "COVERAGE_PROCESS_START",
		"COVERAGE_RCFILE", "IPYTHONDIR", "JUPYTER_CONFIG_*", "JUPYTER_PATH", "GUNICORN_CMD_ARGS", "UVICORN_APP", "UVICORN_APP_DIR", "UVICORN_LOG_CONFIG", "CELERY_LOADER", "CELERY_CONFIG_MODULE"}},
	{"JavaScript", []string{"NODE_OPTIONS", "NODE_PATH", "NODE_REPL_*", "NODE_V8_COVERAGE", "NODE_TEST_CONTEXT", "npm_config_*", "npm_execpath", "npm_node_execpath", "YARN_*", "PNPM_*", "COREPACK_*", "NVM_*", "DENO_DIR", "DENO_INSTALL*",
		"BUN_OPTIONS", "BUN_INSTALL*", "BUN_CONFIG_*", "TS_NODE_*", "ELECTRON_RUN_AS_NODE", "ESBUILD_BINARY_PATH", "PUPPETEER_EXECUTABLE_PATH", "CHROME_BIN", "PRISMA_QUERY_ENGINE_*", "PRISMA_SCHEMA_ENGINE_*"}},
	{"Perl, Ruby and PHP", []string{"PERL5LIB", "PERL5OPT", "PERL5DB", "PERL5SHELL", "PERLLIB", "PERLDB_OPTS", "PERLIO*", "PERL_MB_OPT", "PERL_MM_OPT", "PERL_CPANM_*", "PERL_LOCAL_LIB_ROOT", "HARNESS_*", "PROVE_*",
		"RUBYOPT", "RUBYLIB", "RUBYPATH", "RUBYSHELL", "GEM_HOME", "GEM_PATH", "GEM_SPEC_CACHE", "BUNDLE_GEMFILE", "BUNDLE_PATH", "BUNDLE_BIN*", "BUNDLE_APP_CONFIG", "BUNDLE_CONFIG", "BUNDLE_USER_*", "BUNDLER_*", "RAKEOPT", "IRBRC", "RBENV_*",
		"SPEC_OPTS", "TESTOPTS", "RDOCOPT", "PHPRC", "PHP_INI_SCAN_DIR", "COMPOSER", "COMPOSER_HOME", "COMPOSER_VENDOR_DIR", "COMPOSER_BIN_DIR"}},
	{"Java and .NET", []string{"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "JAVA_OPTS", "JAVA_OPTIONS", "JAVA_ARGS", "JVM_OPTS", "CLASSPATH", "JAVA_HOME", "JRE_HOME", "JDK_HOME", "JAVACMD", "CATALINA_*",
		"ES_JAVA_OPTS", "LS_JAVA_OPTS", "KAFKA_OPTS", "MAVEN_*", "M2_HOME", "GRADLE_OPTS", "GRADLE_HOME", "GRADLE_USER_HOME", "ANT_*", "SBT_OPTS",
		"DOTNET_STARTUP_HOOKS", "DOTNET_ADDITIONAL_DEPS", "DOTNET_SHARED_STORE", "DOTNET_ROOT*", "DOTNET_CLI_HOME", "CORECLR_*", "COR_PROFILER*", "COR_ENABLE_PROFILING", "COMPlus_*",
		"ASPNETCORE_HOSTINGSTARTUPASSEMBLIES", "MSBUILD*", "PSModulePath"}},
	{"other languages", []string{"LUA_INIT*", "LUA_PATH*", "LUA_CPATH*", "ERL_FLAGS", "ERL_AFLAGS", "ERL_ZFLAGS", "ERL_LIBS", "ERL_COMPILER_OPTIONS", "ELIXIR_ERL_OPTIONS", "IEX_*", "MIX_HOME", "MIX_ARCHIVES", "MIX_PATH", "MIX_EXS", "REBAR_*",
		"R_PROFILE*", "R_ENVIRON*", "R_LIBS*", "R_HOME", "JULIA_LOAD_PATH", "JULIA_DEPOT_PATH", "JULIA_PROJECT", "GUILE_*", "TCLLIBPATH", "TCL_LIBRARY", "TK_LIBRARY", "OCAMLPATH", "CAML_LD_LIBRARY_PATH", "GHC_PACKAGE_PATH", "GHCRTS", "SBCL_HOME",
		"AWKPATH", "AWKLIBPATH", "GOFLAGS", "GOTOOLCHAIN", "GOROOT", "GOPATH", "GOBIN", "GOENV", "GOCACHEPROG", "GOPROXY", "GONOSUMDB", "GOINSECURE", "CGO_*", "CARGO", "CARGO_HOME", "CARGO_TARGET_*", "CARGO_BUILD_*", "CARGO_ALIAS_*", "CARGO_ENCODED_RUSTFLAGS",
		"RUSTC", "RUSTC_*", "RUSTDOC", "RUSTFLAGS", "RUSTDOCFLAGS", "RUSTUP_*"}},
	{"building and testing", []string{"MAKE", "MAKEFLAGS", "GNUMAKEFLAGS", "MAKEFILES", "MFLAGS", "MAKEOVERRIDES", "CC", "CXX", "CPP", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "GCC_EXEC_PREFIX",
		"COMPILER_PATH", "CCACHE_*", "DISTCC_*", "CMAKE_*", "CTEST_*", "PKG_CONFIG*", "CONFIG_SITE", "CONFIG_SHELL", "ACLOCAL_PATH", "M4PATH", "SCONSFLAGS", "NIX_*", "APT_CONFIG", "RPM_CONFIGDIR", "VALGRIND_*", "DEBUGINFOD_*"}},
	{"version control", []string{"GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", "GIT_ASKPASS", "GIT_EXEC_PATH", "GIT_EXTERNAL_DIFF", "GIT_PROXY_COMMAND", "GIT_EDITOR", "GIT_SEQUENCE_EDITOR", "GIT_PAGER*", "GIT_TEMPLATE_DIR", "GIT_CONFIG*",
		"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_INDEX_FILE", "GIT_ALLOW_PROTOCOL", "GIT_ATTR_*", "GIT_TRACE*", "GIT_REDIRECT_*",
		"SSH_ASKPASS*", "SSH_SK_PROVIDER", "SSH_SK_HELPER", "SSH_PKCS11_HELPER", "GH_PAGER", "GH_EDITOR", "GH_BROWSER", "GH_CONFIG_DIR", "SVN_EDITOR", "SVN_SSH", "SVN_MERGE", "HG", "HGEDITOR", "HGMERGE", "HGRCPATH", "CVS_RSH", "CVSEDITOR",
		"BZR_EDITOR", "BZR_SSH", "BZR_PLUGIN_PATH", "P4EDITOR", "P4CONFIG", "P4DIFF", "P4MERGE", "P4PAGER"}},
	{"archives and copies", []string{"TAR_OPTIONS", "TAPE", "RMT", "RSYNC_RSH", "RSYNC_CONNECT_PROG", "RSYNC_SHELL", "ZIPOPT", "UNZIP", "UNZIPOPT", "ZIPINFO", "GZIP", "BZIP", "BZIP2", "XZ_OPT", "XZ_DEFAULTS", "CURL_HOME", "WGETRC", "SYSTEM_WGETRC", "LYNX_CFG", "GNUPGHOME"}},
	{"database clients", []string{"PSQLRC", "PSQL_*", "PGSYSCONFDIR", "MYSQL_HOME", "MYSQL_TEST_LOGIN_FILE", "LIBMYSQL_PLUGINS", "LIBMYSQL_PLUGIN_DIR", "MARIADB_PLUGIN_DIR", "SQLPATH", "ORACLE_PATH", "ORACLE_HOME", "REDISCLI_RCFILE"}},
	{"libraries that load others", []string{"OPENSSL_CONF", "OPENSSL_CONF_INCLUDE", "OPENSSL_ENGINES", "OPENSSL_MODULES", "SOFTHSM2_CONF", "SASL_PATH", "SASL_CONF_PATH", "GIO_*", "GTK_*", "GDK_PIXBUF_MODULE*", "GST_PLUGIN*", "QT_*", "QML*",
		"LIBGL_DRIVERS_PATH", "LIBVA_DRIVERS_PATH", "VK_*", "OCL_ICD_*", "LADSPA_PATH", "ALSA_CONFIG*", "MAGICK_*", "GS_LIB", "GS_OPTIONS", "TEXMF*", "GROFF_*", "DBUS_SESSION_BUS_ADDRESS", "DBUS_SYSTEM_BUS_ADDRESS"}},
	{"tools of operators", []string{"ANSIBLE_*", "TF_CLI_*", "TF_REATTACH_PROVIDERS", "TF_PLUGIN_CACHE_DIR", "TERRAFORM_CONFIG", "HELM_PLUGINS", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "PACKER_PLUGIN_PATH", "PACKER_CONFIG", "VAGRANT_*"}},
}

// steering are names by which the command, or a vaultexec in it, finds Vault, its own socket or its supervisor. With
// --keep-token they would send the token elsewhere. No secret may set them, and no option allows it.
var steering = nameGroup{"what vaultexec and its supervisor go by", []string{"VAULT_*", "BAO_*", "VAULTEXEC_*", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "LISTEN_PIDFDID", "WATCHDOG_PID", "WATCHDOG_USEC"}}

// foldedPrefix begins the variables that npm reads in any case.
const foldedPrefix = "npm_config_"

// has reports whether the group holds a name, or its beginning.
func (g nameGroup) has(name string) bool {
	return name != "" && slices.ContainsFunc(g.names, func(n string) bool {
		if n[0] != name[0] { // as with most of them
			return false
		}
		if begin, ok := strings.CutSuffix(n, "*"); ok {
			return strings.HasPrefix(name, begin)
		}
		return n == name
	})
}

// DangerousNames lists the groups of names that are refused, for texts: what they belong to, and the names.
func DangerousNames() (groups [][2]string) {
	for _, g := range append(slices.Clone(dangerousNames), steering) {
		groups = append(groups, [2]string{g.what, strings.Join(g.names, " ")})
	}
	return groups
}

// IsDangerous reports whether a variable of that name changes which code runs and is not among the allowed globs.
func IsDangerous(name string, allowed []string) bool {
	begin := strings.ToLower(name[:min(len(name), len(foldedPrefix))])
	held := slices.ContainsFunc(dangerousNames, func(g nameGroup) bool { return g.has(name) })
	return (held || begin == foldedPrefix) && !matchesAny(allowed, name)
}

// Steers reports whether a variable of that name steers vaultexec itself, Vault's tools or the service manager's
// protocol.
func Steers(name string) bool { return steering.has(name) }

// checkedNames are harmless but for what sudo looks for in them: a path, or a format (initial_checkenv_table).
var checkedNames = nameGroup{names: []string{"COLORTERM", "LANG", "LANGUAGE", "LC_*", "LINGUAS", "TERM"}}

// dangerousValue reports whether the value makes a variable dangerous: a path or a format where a plain word belongs, a
// time zone that is a file elsewhere, or a function as shells exported them before 2014 (CVE-2014-6271).
func dangerousValue(name, value string) bool {
	switch {
	case strings.HasPrefix(value, "() {"):
		return true
	case name == "TZ":
		zone := strings.TrimPrefix(value, ":")
		return strings.HasPrefix(zone, "/") || strings.Contains(zone, "..")
	}
	return checkedNames.has(name) && strings.ContainsAny(value, "/%")
}

// refusal says why a secret may not set a variable, and what to do; both are "" when it may.
func refusal(name, value string, allowed []string) (why, hint string) {
	switch {
	case Steers(name):
		return name + " steers vaultexec and Vault's tools, and no secret may",
			"rename it with --env or --prefix, or leave it out with --exclude; to set it for vaultexec itself, set it where vaultexec is started"
	case IsDangerous(name, allowed):
		return name + " changes which code runs",
			fmt.Sprintf(
				"whoever may write the secret would own the process: rename it with --env, leave it out with --exclude, or allow it with --allow-name %s",
				name)
	case dangerousValue(name, value) && !matchesAny(allowed, name):
		return name + " has a value that can change which code runs",
			fmt.Sprintf(
				"a path, a format or a function stands where a word belongs: correct the secret, or allow it with --allow-name %s",
				name)
	}
	return "", ""
}
