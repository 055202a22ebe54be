package cloud

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// awsFiles are the files of AWS' tools: profiles, and what each has.
type awsFiles struct {
	profiles map[string]map[string]string
	paths    []string // of those that were looked for
	missing  map[string]bool
	homeless bool // HOME is not set, so that nobody knows where they are
}

// awsProfile is one profile, perhaps an empty one.
type awsProfile struct {
	name   string
	values map[string]string
	files  *awsFiles
	again  bool // it was come across before, and counts only for its own keys
}

//go:noinline
func (p *awsProfile) get(key string) string {
	if p.again && (key == "role_arn" || key == "source_profile" || key == "credential_source" || key == "web_identity_token_file") {
		return ""
	}
	return p.values[key]
}

// title names the profile in errors.
func (p *awsProfile) title() string { return "profile " + strconv.Quote(shortName(p.name)) }

// looked says where the profile was looked for.
func (p *awsProfile) looked() string {
	if p.files.homeless {
		return "no file (HOME is not set)"
	}
	var list []string
	for _, path := range p.files.paths {
		if p.files.missing[path] {
			path += " (missing)"
		}
		list = append(list, path)
	}
	return p.title() + " in " + strings.Join(list, " and ")
}

// shortName is a name as it fits into a message.
func shortName(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// check refuses what vaultexec does not do: it runs no program that a file names, and opens no browser.
func (p *awsProfile) check() error {
	const export = "give it keys that last, or those that `aws configure export-credentials --format env` prints"
	source := p.get("aws_access_key_id")
	for _, key := range []string{"source_profile", "credential_source", "web_identity_token_file"} {
		switch {
		case p.get(key) != "" && p.get("role_arn") == "":
			return awsFailure(fault.Usage, p.title()+" has "+key+", and no role_arn", "name the role with role_arn")
		case p.get(key) != "" && p.get("role_arn") != "" && source != "" && source != p.get("aws_access_key_id"):
			return awsFailure(fault.Usage, p.title()+" has several sources of credentials", "keep one of source_profile, credential_source and web_identity_token_file")
		case p.get(key) != "":
			source = key
		}
	}
	refused := []string{"sso_session", "sso_start_url", "sso_account_id", "login_session", "credential_process"}
	switch {
	case p.get("mfa_serial") != "" && p.get("role_arn") != "":
		refused = []string{"mfa_serial"}
	case source != "":
		return nil
	}
	for _, key := range refused {
		if p.get(key) != "" {
			return awsFailure(fault.Usage, p.title()+" has "+key+", which is not supported", export)
		}
	}
	return nil
}

// profile is the one that AWS_PROFILE names, or "default". The files are read once in a login. One that does not exist is an
// empty one; a profile that was named has to be there.
func (p *awsProver) profile(ctx context.Context) (*awsProfile, error) {
	if p.files == nil {
		files, err := p.readFiles(ctx)
		if err != nil {
			return nil, err
		}
		p.files = files
	}
	name, from := p.first("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
	if name == "" {
		return &awsProfile{name: "default", values: p.files.profiles["default"], files: p.files}, nil
	}
	profile := &awsProfile{name: name, values: p.files.profiles[name], files: p.files}
	if profile.values == nil {
		return nil, awsFailure(fault.Usage, "there is no "+profile.title(),
			from+" names it; looked at: "+profile.looked())
	}
	return profile, nil
}

// sourceOf is source_profile of a profile.
func (p *awsProver) sourceOf(ctx context.Context, profile *awsProfile) (*awsProfile, error) {
	if _, err := p.profile(ctx); err != nil { // the files are read
		return nil, err
	}
	name := profile.get("source_profile")
	source := &awsProfile{name: name, values: p.files.profiles[name], files: p.files}
	if source.values == nil {
		return nil, awsFailure(fault.Usage, profile.title()+" has a source_profile that is missing: "+strconv.Quote(shortName(name)),
			"looked at: "+source.looked())
	}
	return source, nil
}

// expand replaces a ~ by the home folder, as AWS' own tools do.
func (p *awsProver) expand(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok && p.Getenv("HOME") != "" {
		return filepath.Join(p.Getenv("HOME"), rest)
	}
	return path
}

func (p *awsProver) readFiles(ctx context.Context) (*awsFiles, error) {
	f := &awsFiles{profiles: map[string]map[string]string{}, missing: map[string]bool{}}
	for i, what := range []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} {
		path := p.expand(p.Getenv(what))
		if path == "" {
			home := p.Getenv("HOME")
			if home == "" {
				f.homeless = len(f.paths) == 0
				continue
			}
			what, path = "AWS' file", filepath.Join(home, ".aws", []string{"config", "credentials"}[i])
		}
		f.homeless = false
		f.paths = append(f.paths, path)
		if path == os.DevNull { // says that there is none
			continue
		}
		text, err := p.Read(ctx, what, path)
		if errors.Is(err, fs.ErrNotExist) {
			f.missing[path] = true
			continue
		}
		if err != nil {
			return nil, err
		}
		for name, values := range parseProfiles(text, i == 0) {
			half := (values["aws_access_key_id"] == "") != (values["aws_secret_access_key"] == "")
			if half {
				return nil, awsFailure(fault.Usage, (&awsProfile{name: name}).title()+" has one half of a key in "+path,
					"aws_access_key_id and aws_secret_access_key belong together: give both, or neither")
			}
			if f.profiles[name] == nil {
				f.profiles[name] = map[string]string{}
			}
			if values["aws_access_key_id"] != "" {
				delete(f.profiles[name], "aws_session_token") // of another key
			}
			maps.Copy(f.profiles[name], values)
		}
	}
	return f, nil
}

// parseProfiles reads a file as AWS' SDK does. In the configuration file a profile is called [profile NAME], and [default] may be
// called so, too, which then wins; in the file of credentials it is [NAME]. Lines may be indented. Below a setting without a value
// that means that they are its own (s3 = …), and none of ours.
func parseProfiles(text string, config bool) map[string]map[string]string {
	found := map[string]map[string]string{}
	var section map[string]string
	titled := false // there is a [profile default]
	nested := false
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		trimmed := strings.Trim(line, " \t\r\n")
		indented := line[0] == ' ' || line[0] == '\t'
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		if name, ok := sectionName(trimmed); ok {
			section, nested = nil, false
			name, isProfile := profileName(name)
			switch {
			case config && isProfile:
				if name == "default" && !titled {
					titled = true
					delete(found, name)
				}
			case config && (name != "default" || titled), !config && isProfile:
				continue
			}
			if found[name] == nil {
				found[name] = map[string]string{}
			}
			section = found[name]
			continue
		}
		key, value, ok := setting(trimmed)
		if section == nil || !ok || indented && nested {
			continue
		}
		section[key] = value
		nested = value == ""
	}
	return found
}

// profileName takes "profile NAME" apart. The name may be in quotes.
func profileName(section string) (name string, isProfile bool) {
	if i := strings.IndexAny(section, " \t"); i > 0 && section[:i] == "profile" {
		section, isProfile = strings.TrimSpace(section[i:]), true
	}
	return unquoted(section), isProfile
}

func unquoted(s string) string {
	if n := len(s); n > 1 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}

// sectionName is the name in [NAME], a comment behind it left out.
func sectionName(line string) (string, bool) {
	if line[0] != '[' {
		return "", false
	}
	if i := strings.IndexAny(line, "#;"); i >= 0 {
		line = strings.TrimSpace(line[:i])
	}
	if line[len(line)-1] != ']' {
		return "", false
	}
	return strings.TrimSpace(line[1 : len(line)-1]), true
}

// setting is KEY = VALUE. A comment begins behind a blank; a value may be in quotes.
func setting(line string) (key, value string, ok bool) {
	for _, mark := range []string{" #", " ;", "\t#", "\t;"} {
		line, _, _ = strings.Cut(line, mark)
	}
	i := strings.IndexAny(line, "=:")
	if i <= 0 {
		return "", "", false
	}
	return strings.ToLower(strings.TrimSpace(line[:i])), unquoted(strings.TrimSpace(line[i+1:])), true
}
