package vault

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Path names one secret, or all that are directly in a folder.
type Path struct {
	Mount   string // mount, several segments possible; "" while it is not known where the mount ends
	Name    string // path below the mount, or from the root where Mount is ""
	Version int    // KV version 2 version, 0 for the latest
	Folder  bool   // every secret in the folder Name, which ends in a slash or is empty for the top of the mount
	Fields  string // what the engine is given to make the secret from (fields.go); "" for none
}

// String returns the path as people write it: mount/name, with @version when one is pinned; mount/name/* for a folder;
// mount/name?name=value&name=value with fields.
func (p Path) String() string {
	s := p.whole()
	if p.Folder {
		s += "*"
	}
	if p.Version > 0 {
		s += "@" + strconv.Itoa(p.Version)
	}
	if p.Fields != "" {
		s += "?" + p.Fields
	}
	return s
}

// ParsePath reads PATH[@VERSION] or PATH?FIELDS. A relative path belongs to mount. A leading slash names the mount
// itself; with more than two segments only the server can tell where the mount ends (Mount stays empty). In the
// segments, %40, %23, %25, %2A, %2C, %3F, %7C and %7D stand for @, #, %, *, the comma, ?, | and }.
func ParsePath(s, mount string) (Path, error) {
	if strings.Contains(s, "#") {
		return Path{}, pathError(s, "a whole secret has no #KEY",
			`take one key with --env NAME=PATH#KEY, or write %23 for a "#" that belongs to the path`)
	}
	return parsePath(s, mount)
}

// ParseKeyRef reads PATH[@VERSION]#KEY or PATH?FIELDS#KEY. The first # ends the path.
func ParseKeyRef(s, mount string) (Path, string, error) {
	path, key, ok := strings.Cut(s, "#")
	if !ok || key == "" {
		return Path{}, "", pathError(s, "no #KEY", `name one key of the secret, as in "database#POSTGRES_PASSWORD"`)
	}
	if i := strings.IndexFunc(key, unicode.IsControl); i >= 0 {
		return Path{}, "", pathError(s, "a control character in the key",
			"write the key as `vaultexec get PATH` shows it")
	}
	p, err := parsePath(path, mount)
	return p, unescape(key), err
}

func parsePath(s, mount string) (Path, error) {
	p := Path{Mount: mount}
	rest, fields, made := strings.Cut(s, "?")
	if made {
		var err error
		if p.Fields, err = parseFields(s, fields); err != nil {
			return Path{}, err
		}
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 && isVersion(rest[i+1:]) {
		n, err := strconv.Atoi(rest[i+1:])
		if err != nil {
			return Path{}, pathError(s, "the version is too large",
				"`vaultexec get --versions PATH` shows those that there are")
		}
		if made {
			return Path{}, pathError(s, "a path with fields has no versions",
				fmt.Sprintf("leave @%d out, or write %%40 for an @ that belongs to the name", n))
		}
		p.Version, rest = n, rest[:i]
	}
	absolute := strings.HasPrefix(rest, "/")
	if absolute {
		rest = rest[1:]
	}
	segments, why := splitPath(rest)
	if why != "" {
		return Path{}, pathError(s, why, `write it as "app-prod", or with its mount as "/agenticverz/app-prod"`)
	}
	switch {
	case !absolute:
	case len(segments) == 1:
		return Path{}, pathError(s, "a leading slash names the mount, and nothing follows",
			fmt.Sprintf("write %q for a secret of the mount %q", segments[0], mount))
	case len(segments) == 2:
		p.Mount = segments[0]
		segments = segments[1:]
	default:
		p.Mount = ""
	}
	p.Name = strings.Join(segments, "/")
	if made && strings.HasSuffix(rest, "/*") || made && rest == "*" {
		return Path{}, pathError(s, "a folder takes no fields", "name one path, or write %2A for an asterisk of a name")
	}
	return p, nil
}

// Reference writes the reference to one key, with the mount, as ParseKeyRef reads it.
func (p Path) Reference(key string) string {
	version := ""
	if p.Version > 0 {
		version = "@" + strconv.Itoa(p.Version)
		p.Version = 0
	}
	if p.Fields != "" {
		version, p.Fields = "?"+p.Fields, ""
	}
	return "/" + EscapePath(p.String()) + version + "#" + strings.ReplaceAll(key, "%", "%25")
}

// ParseDir reads the path of a folder, as ParsePath does. A slash at the end and a mount alone ("/agenticverz") are
// fine, too.
func ParseDir(s, mount string) (Path, error) {
	if strings.Contains(s, "?") {
		return Path{}, pathError(s, "a folder takes no fields", hintQuestion)
	}
	absolute := strings.HasPrefix(s, "/")
	segments, why := splitPath(strings.TrimSuffix(strings.TrimPrefix(s, "/"), "/"))
	switch {
	case why != "":
		return Path{}, pathError(s, why, `write it as "team/", or with its mount as "/agenticverz/team"`)
	case !absolute:
		return Path{Mount: mount, Name: strings.Join(segments, "/")}, nil
	case len(segments) == 1:
		return Path{Mount: segments[0]}, nil
	}
	// The slash lets a mount of several segments be found when nothing follows it.
	return Path{Name: strings.Join(segments, "/") + "/"}, nil
}

// ParseMount reads the name of a mount, of one segment or more.
func ParseMount(s string) (string, error) {
	segments, why := splitPath(strings.Trim(s, "/"))
	if why != "" {
		return "", &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %q as a mount", s), Why: why,
			Hint: `name it as "vault secrets list" does, without the slash at its end`}
	}
	return strings.Join(segments, "/"), nil
}

// splitPath checks and unescapes the segments. vault/api runs path.Join over what it sends, so "..", "." and empty
// segments would silently name something else: "../../sys/raw/x" reaches sys/raw/x.
func splitPath(s string) (segments []string, why string) {
	if s == "" {
		return nil, "it is empty"
	}
	segments = strings.Split(s, "/")
	for i, seg := range segments {
		seg = unescape(seg)
		switch {
		case seg == "":
			return nil, "an empty segment"
		case seg == "." || seg == "..":
			return nil, fmt.Sprintf("a %q segment", seg)
		case strings.IndexFunc(seg, unicode.IsControl) >= 0:
			return nil, "a control character"
		}
		segments[i] = seg
	}
	return segments, ""
}

var unescaper = strings.NewReplacer("%40", "@", "%23", "#", "%25", "%", "%2A", "*", "%2a", "*", "%2C", ",", "%2c", ",",
	"%3F", "?", "%3f", "?", "%7C", "|", "%7c", "|", "%7D", "}", "%7d", "}")

var escaper = strings.NewReplacer("@", "%40", "#", "%23", "%", "%25", "*", "%2A", ",", "%2C", "?", "%3F")

// EscapePath writes a name of Vault's as a part of a path on the command line or in a variable.
func EscapePath(s string) string { return escaper.Replace(s) }

func unescape(s string) string { return unescaper.Replace(s) }

// isVersion reports whether s is [1-9][0-9]*.
func isVersion(s string) bool {
	if s == "" || s[0] == '0' {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// pathError repeats no fields: one of them may be what somebody wrote there by mistake.
func pathError(s, why, hint string) *fault.Error {
	if path, _, made := strings.Cut(s, "?"); made {
		s = path + "?…"
	}
	return &fault.Error{Kind: fault.Usage, What: fmt.Sprintf("cannot use %q as a path", s), Why: why, Hint: hint}
}
