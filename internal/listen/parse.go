// Package listen makes the listening sockets that vaultexec holds for the command: `--listen [NAME=]ADDRESS`. Who holds
// the socket can start the next command with the same one, so that a connection that comes in between waits in its
// queue and is not refused.
//
// Parse reads an address and touches nothing. Bind takes it, before Vault is asked, so that one that is in use is found
// at once. Listen opens it, when the first command is started. No descriptor of this package is inherited by any process
// unless somebody passes it on by name.
package listen

import (
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Spec is one address to listen on. Either Path is set, or Port.
type Spec struct {
	Name string // "" for one without a name
	Host string // as it was written, without brackets; "" for every address, of IPv4 and of IPv6
	Port uint16
	Path string      // of a unix socket
	Mode fs.FileMode // of its file; 0 leaves that to the umask
}

// String is the address as it is written, without its name.
func (s Spec) String() string {
	switch {
	case s.Path != "":
		return "unix:" + s.Path
	case strings.Contains(s.Host, ":"):
		return fmt.Sprintf("[%s]:%d", s.Host, s.Port)
	}
	return fmt.Sprintf("%s:%d", s.Host, s.Port)
}

// Variable is the name of the variable that holds the descriptor's number; "" for a socket without a name.
func (s Spec) Variable() string {
	if s.Name == "" {
		return ""
	}
	return "VAULTEXEC_FD_" + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

const (
	unixPrefix = "unix:"
	asTCP      = "write it as 127.0.0.1:8000, [::1]:8000, or :8000 for every address of this machine"
	asUnix     = "write it as unix:/run/app/app.sock, or unix:/run/app/app.sock,mode=0660"
)

// Parse reads [NAME=]HOST:PORT, [NAME=]:PORT, [NAME=][IPV6]:PORT and [NAME=]unix:/PATH[,mode=MODE].
func Parse(text string) (Spec, error) {
	bad := func(why, hint string) (Spec, error) {
		return Spec{}, &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot listen on %q", text), Why: why, Hint: hint}
	}
	var s Spec
	address := text
	// An address may have an = in it (mode=0660), but only behind a character that no name has.
	if name, rest, ok := strings.Cut(text, "="); ok && !strings.ContainsAny(name, ":/,[") {
		if !isName(name) {
			return bad(fmt.Sprintf("%q is not a name for a socket", name),
				"names are [A-Za-z_][A-Za-z0-9_-]*, as in web=:8000")
		}
		s.Name, address = name, rest
	}
	if rest, ok := strings.CutPrefix(address, unixPrefix); ok {
		why, hint := s.unix(rest)
		if why != "" {
			return bad(why, hint)
		}
		return s, nil
	}
	if why, hint := s.tcp(address); why != "" {
		return bad(why, hint)
	}
	return s, nil
}

// unix reads what stands behind unix:.
func (s *Spec) unix(text string) (why, hint string) {
	if rest, mode, ok := cutMode(text); ok {
		n, err := strconv.ParseUint(mode, 8, 32)
		if err != nil || n == 0 || n > 0o777 {
			return fmt.Sprintf("mode=%s is not a file mode", mode), asUnix
		}
		text, s.Mode = rest, fs.FileMode(n)
	}
	switch {
	case strings.HasPrefix(text, "@"), strings.HasPrefix(text, "\x00"):
		return "abstract sockets have no mode: anybody may connect", asUnix
	case !strings.HasPrefix(text, "/"):
		return "its path is not absolute", asUnix
	case strings.HasSuffix(text, "/"), path.Clean(text) == "/":
		return "its path names no file", asUnix
	case strings.ContainsFunc(text, unicode.IsControl):
		return "its path has control characters in it", asUnix
	}
	s.Path = path.Clean(text)
	if len(s.Path) > maxPath {
		return fmt.Sprintf("its path has %d bytes, and may have %d at most", len(s.Path), maxPath),
			"choose a shorter one, such as unix:/run/app.sock"
	}
	return "", ""
}

// cutMode takes ,mode=MODE off the end. A path may have commas in it.
func cutMode(text string) (rest, mode string, ok bool) {
	i := strings.LastIndex(text, ",")
	if i < 0 || !IsOption(text[i+1:]) {
		return text, "", false
	}
	return text[:i], strings.TrimPrefix(text[i+1:], modeOption), true
}

const modeOption = "mode="

// IsOption reports whether an item of a list of addresses is no address, but belongs to the one before it.
func IsOption(item string) bool { return strings.HasPrefix(item, modeOption) }

// tcp reads HOST:PORT.
func (s *Spec) tcp(text string) (why, hint string) {
	i := strings.LastIndex(text, ":")
	host, port := "", text
	if i >= 0 {
		host, port = text[:i], text[i+1:]
	}
	switch _, isAddress := netip.ParseAddr(text); {
	case strings.Contains(text, "://"):
		return "it is a URL, not an address", asTCP
	case strings.HasPrefix(text, "/"), strings.HasPrefix(text, "./"):
		return "it has no port", asUnix
	case isAddress == nil && strings.Contains(text, ":"):
		return "an IPv6 address with a port needs brackets", asTCP
	case i < 0 && portOf(text) != 0:
		return "it has no colon", "write it as :" + text
	case i < 0, port == "":
		return "it has no port", asTCP
	}
	if s.Port = portOf(port); s.Port == 0 {
		return fmt.Sprintf("%q is not a port", port), "ports are the numbers from 1 to 65535, as in :8000"
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if a, err := netip.ParseAddr(inner); !ok || err != nil || !a.Is6() {
			return fmt.Sprintf("%q is not an IPv6 address in brackets", host), asTCP
		}
		s.Host = inner
		return "", ""
	}
	if host == "*" || strings.ContainsAny(host, "[]:/=%,") ||
		strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Sprintf("%q is not a host", host), asTCP
	}
	s.Host = host
	return "", ""
}

// portOf reads the number of a port; 0 for what is none.
func portOf(s string) uint16 {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// isName reports whether a socket may have that name. It is part of a variable's name, and LISTEN_FDNAMES is a list with
// colons (sd_listen_fds_with_names(3)).
func isName(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || !('0' <= c && c <= '9' || c == '-')) {
			return false
		}
	}
	return s != ""
}

// Clash says why one of two sockets cannot be had beside the other; "" for two that can.
func Clash(a, b Spec) string {
	switch {
	case a.Variable() != "" && a.Variable() == b.Variable():
		return "another --listen has that name"
	case a.Path != b.Path || a.Host != b.Host || a.Port != b.Port:
		return ""
	}
	return "another --listen has that address"
}
