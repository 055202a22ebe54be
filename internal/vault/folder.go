package vault

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
)

// Folder is what a list of a folder gave.
type Folder struct {
	Path    Path // with the real mount
	Engine  Engine
	Names   []string // of the secrets directly in it, sorted
	Folders int      // how many folders are in it, which nobody enters
}

// ParsePathOrFolder reads what --path takes: a secret, as ParsePath does, or all secrets directly in a folder, written
// as its path and "/*", or "*" for the top of the mount. %2A is an asterisk that stands for itself.
func ParsePathOrFolder(s, mount string) (Path, error) {
	if strings.Contains(s, "?") {
		return ParsePath(s, mount)
	}
	head, version := s, ""
	if i := strings.LastIndexByte(s, '@'); i >= 0 && isVersion(s[i+1:]) {
		head, version = s[:i], s[i:]
	}
	dir := strings.TrimSuffix(head, "*")
	switch {
	case dir == head, dir != "" && !strings.HasSuffix(dir, "/"), strings.Contains(s, "#"):
		return ParsePath(s, mount)
	case version != "":
		return Path{}, pathError(s, "a folder has no versions",
			fmt.Sprintf("leave %s out, or pin single secrets of it", version))
	case dir == "":
		return Path{Mount: mount, Folder: true}, nil
	case dir == "/":
		return Path{}, pathError(s, "a leading slash names the mount, and none follows",
			`write "*" for everything at the top of --mount, or name the mount, as in "/agenticverz/*"`)
	}
	p, err := ParseDir(dir, mount)
	if err != nil {
		return Path{}, pathError(s, fault.Of(err).Why,
			`write it as "team/*", or with its mount as "/agenticverz/team/*"`)
	}
	p.Folder = true
	if p.Name != "" && !strings.HasSuffix(p.Name, "/") {
		p.Name += "/"
	}
	return p, nil
}

// ListFolder lists the secrets directly in a folder of a KV mount. One in which there are none is missing.
func (c *Client) ListFolder(ctx context.Context, p Path, kvVersion int) (*Folder, error) {
	if inReserved(p) {
		return nil, &fault.Error{Kind: fault.Usage, What: cannotList(p), Why: "it is not in a secrets engine",
			Hint: mountsHint}
	}
	engine, err := c.folderEngine(ctx, p, kvVersion)
	if err != nil {
		return nil, err
	}
	p = p.within(engine.Mount)
	if engine.KV == 0 {
		return nil, &fault.Error{Kind: fault.Usage, What: cannotList(p),
			Why:  fmt.Sprintf("the mount %s (type %s) has no folders of secrets", engine.Mount, engine),
			Hint: "name each path that is to be read"}
	}
	keys, err := c.List(ctx, engine, p.Name)
	if err != nil {
		f := *fault.Of(err)
		f.What = cannotList(p)
		if f.Cause == fault.NoSecret {
			f.Why = "no such folder, or nothing in it"
		}
		return nil, &f
	}
	folder := &Folder{Path: p, Engine: engine}
	for _, k := range keys {
		switch {
		case k == "":
		case strings.HasSuffix(k, "/"):
			folder.Folders++
		default:
			folder.Names = append(folder.Names, k)
		}
	}
	slices.Sort(folder.Names)
	if len(folder.Names) == 0 {
		return nil, &fault.Error{Kind: fault.Missing, What: cannotList(p),
			Why:  "there are only folders in it, and they are not entered",
			Hint: "name one of them, or several: " + p.below(keys)}
	}
	return folder, nil
}

// below writes the first of the folders in p as --path takes them.
func (p Path) below(folders []string) string {
	names := make([]string, 0, 4)
	for _, k := range folders[:min(len(folders), 3)] {
		names = append(names, fmt.Sprintf("%q", EscapePath(p.Name+k)+"*"))
	}
	if len(folders) > 3 {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

func cannotList(p Path) string { return "cannot list " + p.String() }

// folderEngine finds the engine of a folder: a list proves nothing about the version, so that Vault is asked.
func (c *Client) folderEngine(ctx context.Context, p Path, kvVersion int) (Engine, error) {
	if e, ok := c.mounts.find(p); ok {
		return e, nil
	}
	if p.Mount != "" && kvVersion != 0 {
		return Engine{Mount: p.Mount, Type: "kv", KV: kvVersion}, nil
	}
	e, err := c.ask(ctx, p)
	if err != nil {
		return Engine{}, err
	}
	if kvVersion != 0 && e.Type == "kv" {
		e.KV = kvVersion
	}
	return e, nil
}

// Secrets are the paths of the secrets in the folder.
func (f *Folder) Secrets() []Path {
	paths := make([]Path, len(f.Names))
	for i, n := range f.Names {
		paths[i] = Path{Mount: f.Path.Mount, Name: f.Path.Name + n}
	}
	return paths
}

// nearestFolder says what may have been meant by a folder in which there is nothing.
func (c *Client) nearestFolder(ctx context.Context, engine Engine, p Path) string {
	dir, base := "", strings.TrimSuffix(p.Name, "/")
	if base == "" {
		return ""
	}
	if i := strings.LastIndexByte(base, '/'); i >= 0 {
		dir, base = base[:i+1], base[i+1:]
	}
	names, err := c.List(ctx, engine, dir)
	if err != nil {
		return ""
	}
	if slices.Contains(names, base) {
		return fmt.Sprintf("it is a secret, not a folder: write %q", EscapePath(dir+base))
	}
	folders := slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, "/") })
	if near := Nearest(base, folders); near != "" {
		return fmt.Sprintf("did you mean %q?", EscapePath(dir+near)+"*")
	}
	return ""
}

// FolderMarker returns the state that a list saw: which secrets there are, whatever is in them.
func (d Digester) FolderMarker(f *Folder) Marker {
	mac := hmac.New(sha256.New, d.key)
	for _, n := range f.Names {
		fmt.Fprintf(mac, "%d:%s", len(n), n)
	}
	var m Marker
	mac.Sum(m.Digest[:0])
	return m
}
