package cli

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/launcher"
)

// The JSON of check. A field that is left out is not known.
type (
	checkJSON struct {
		OK        bool           `json:"ok"`
		Exit      int            `json:"exit"` // what a run would exit with; 0 when it would work
		Vault     string         `json:"vault"`
		Version   string         `json:"version,omitempty"`
		Token     *tokenJSON     `json:"token,omitempty"`
		Paths     []pathJSON     `json:"paths"`
		Names     []string       `json:"names,omitempty"` // what --names would list
		Copy      *copyJSON      `json:"fallback,omitempty"`
		Warnings  []string       `json:"warnings"`
		Lock      *lockJSON      `json:"restart_lock,omitempty"`
		Faults    []faultJSON    `json:"faults"`
		Variables []variableJSON `json:"variables,omitempty"`
		Stripped  []string       `json:"stripped,omitempty"`
	}
	tokenJSON struct {
		vault.Info
		EndsIn *int64 `json:"ends_in_seconds,omitempty"` // 0: never
	}
	copyJSON struct {
		File   string `json:"file"`
		Usable bool   `json:"usable"`
		Why    string `json:"why,omitempty"` // it is not
		Age    *int64 `json:"age_seconds,omitempty"`
	}
	pathJSON struct {
		Path         string              `json:"path"`
		State        string              `json:"state"` // ok, absent, leased, failed
		Optional     bool                `json:"optional,omitempty"`
		Engine       string              `json:"engine,omitempty"`
		KV           int                 `json:"kv_version,omitempty"`
		Version      int                 `json:"version,omitempty"`
		Created      string              `json:"created_time,omitempty"`
		Age          *int64              `json:"age_seconds,omitempty"`
		Keys         []string            `json:"keys,omitempty"`
		Secrets      []string            `json:"secrets,omitempty"`      // in a folder; each has an entry of its own
		Capabilities map[string][]string `json:"capabilities,omitempty"` // by path in policies
		Fault        *faultJSON          `json:"fault,omitempty"`
	}
	lockJSON struct {
		Name   string      `json:"name"`
		Places int         `json:"places"`
		OK     bool        `json:"ok"`
		Faults []faultJSON `json:"faults"`
	}
	faultJSON struct {
		Kind string `json:"kind"`
		Text string `json:"text"`
		Hint string `json:"hint,omitempty"`
	}
	variableJSON struct {
		Name   string   `json:"name"`
		Source string   `json:"source"`
		Beat   []string `json:"beat,omitempty"`
		Kept   bool     `json:"kept_existing,omitempty"`
		File   string   `json:"file,omitempty"`   // its path, or "memory"
		Unread bool     `json:"unread,omitempty"` // leased; name is empty for every key of it
	}
)

func faultOf(f *fault.Error) *faultJSON {
	if f == nil {
		return nil
	}
	return &faultJSON{f.Kind.String(), f.Error(), f.Hint}
}

// checkJSON prints the report for a machine, as one line.
func (u *ui) checkJSON(c *checked, variables bool) {
	out := checkJSON{OK: len(c.Faults) == 0, Vault: c.where, Version: c.Server.Version, Paths: []pathJSON{},
		Warnings: append([]string{}, c.warnings...), Faults: []faultJSON{}}
	if c.Token.Method != "" {
		out.Token = &tokenJSON{Info: c.Token}
		if c.Token.Known {
			out.Token.EndsIn = seconds(c.Token.Life)
		}
	}
	if k := c.Copy; k != nil {
		out.Copy = &copyJSON{File: k.File, Usable: k.Flaw == nil}
		if k.Flaw != nil {
			out.Copy.Why = k.Flaw.Error()
		} else {
			out.Copy.Age = seconds(k.Age)
		}
	}
	for _, p := range c.Paths {
		out.Paths = append(out.Paths, pathOf(p))
	}
	for _, f := range c.Faults {
		out.Faults = append(out.Faults, *faultOf(f))
	}
	if err := c.verdict(); err != nil {
		out.OK, out.Exit = false, fault.Of(err).Code()
	}
	if l := c.lock; l != nil {
		out.Lock = &lockJSON{l.name, l.limit, len(l.faults) == 0, []faultJSON{}}
		for _, f := range l.faults {
			out.Lock.Faults = append(out.Lock.Faults, *faultOf(f))
		}
	}
	if variables {
		out.addVariables(c)
	} else {
		out.Names = givenNames(c)
	}
	u.reportJSON(out)
}

func seconds(d time.Duration) *int64 {
	n := int64(d / time.Second)
	return &n
}

// pathOf is the JSON of one path.
func pathOf(p launcher.PathReport) pathJSON {
	j := pathJSON{Path: p.Path.String(), State: strings.ToLower(pathState(p)), Optional: p.Optional,
		Fault: faultOf(p.Fault)}
	if p.Absent != nil {
		j.Fault = faultOf(p.Absent)
	}
	if s := p.Secret; s != nil {
		j.Engine, j.KV, j.Version, j.Created = s.Engine.Type, s.Engine.KV, s.Version, s.CreatedTime
		if !p.Leased {
			j.Keys = slices.Sorted(maps.Keys(s.Values))
		}
		if d, ok := age(s); ok {
			j.Age = seconds(d)
		}
	}
	if f := p.Folder; f != nil {
		j.Engine, j.KV, j.Secrets = f.Engine.Type, f.Engine.KV, f.Names
	}
	for path, caps := range map[string][]string{p.API: p.Caps, p.Metadata: p.MetaCaps} {
		if caps == nil {
			continue
		}
		if j.Capabilities == nil {
			j.Capabilities = map[string][]string{}
		}
		j.Capabilities[path] = caps
	}
	return j
}

// addVariables adds what --dry-run shows.
func (out *checkJSON) addVariables(c *checked) {
	if c.Env == nil {
		return
	}
	for _, v := range c.Env.Vars {
		out.Variables = append(out.Variables, variableJSON{Name: v.Name, Source: v.Origin, Beat: v.Beat, Kept: v.Kept,
			File: fileText(v, "memory")})
	}
	for _, s := range c.Unread {
		source := s.Path.String()
		if s.Key != "" {
			source += "#" + s.Key
		}
		out.Variables = append(out.Variables, variableJSON{Name: s.Name, Source: source, Unread: true})
	}
	out.Stripped = c.Env.Stripped
}
