package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/vault"
)

// configReader collects everything that is wrong with a file.
type configReader struct {
	name   string
	order  int
	faults []lineFault
}

type lineFault struct {
	line int
	*fault.Error
}

// all returns the faults in the order of their lines.
func (r *configReader) all() []*fault.Error {
	sort.SliceStable(r.faults, func(i, j int) bool { return r.faults[i].line < r.faults[j].line })
	var list []*fault.Error
	for _, f := range r.faults {
		list = append(list, f.Error)
	}
	return list
}

// parseConfig reads the whole file with all its profiles, and lists everything that is wrong. No text repeats a value:
// what is in a file by mistake may be a secret.
func parseConfig(name string, src []byte) (*config, []*fault.Error) {
	// The file comes before the variables, whose order is 0, and those before the command line.
	r := &configReader{name: name, order: -maxConfig - 1}
	c := &config{profiles: map[string]section{}}
	root, err := decodeYAML(src)
	if err != nil {
		line, why := yamlError(err)
		r.fail(line, "it is not valid YAML", why, "")
		return nil, r.all()
	}
	if root == nil { // nothing but comments
		c.top = section{}
		return c, nil
	}
	c.top = r.section(root, func(key, value *yaml.Node) {
		for _, p := range r.mapping(value, "profiles") {
			if c.profiles[p.key.Value] == nil {
				c.profiles[p.key.Value] = section{}
			}
			if p.value.ShortTag() != "!!null" {
				c.profiles[p.key.Value] = r.section(p.value, nil)
			}
		}
	})
	return c, r.all()
}

// decodeYAML returns the one document of src, nil for an empty one. The parser panics where it meets what cannot be. No
// panic may end a container's first process with a trace.
func decodeYAML(src []byte) (root *yaml.Node, err error) {
	defer func() {
		if recover() != nil {
			root, err = nil, errors.New("the parser cannot take it")
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		return nil, fmt.Errorf("yaml: line %d: there is a second document", more.Line)
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].ShortTag() == "!!null" {
		return nil, nil
	}
	return doc.Content[0], nil
}

// yamlError takes the line out of the parser's text. The parser tells it nowhere else, and not at all for the first
// line. Only the text about an unknown anchor quotes the file.
func yamlError(err error) (line int, why string) {
	why = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(why, "line "); ok {
		if n, text, ok := strings.Cut(rest, ": "); ok {
			line, _ = strconv.Atoi(n)
			why = text
		}
	}
	switch {
	case strings.HasPrefix(why, "unknown anchor"):
		why = "there are no anchors and aliases here"
	case line == 0 && !strings.Contains(why, "UTF-") && !strings.Contains(why, "invalid Unicode") &&
		!strings.Contains(why, "control characters"):
		line = 1
	}
	return line, why
}

func (r *configReader) at(line int) string {
	if line == 0 {
		return r.name
	}
	return fmt.Sprintf("%s:%d", r.name, line)
}

func (r *configReader) fail(line int, what, why, hint string) {
	r.faults = append(r.faults, lineFault{line,
		&fault.Error{Kind: fault.Usage, What: r.at(line) + ": " + what, Why: why, Hint: hint}})
}

// keyName is a key as a text shows it, if the key is a word as options are. A file that was named by mistake
// (/etc/shadow) may have anything before a colon.
func keyName(s string) string {
	word := strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
	if !word || s == "" || len(s) > 40 || vault.LooksSecret(s) {
		return "a key"
	}
	return s
}

type pair struct{ key, value *yaml.Node }

// mapping returns the pairs of a map, each key once.
func (r *configReader) mapping(n *yaml.Node, what string) []pair {
	if !r.plain(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.fail(n.Line, fmt.Sprintf("%s is not a map", what), "", "write it as KEY: VALUE lines")
		return nil
	}
	var pairs []pair
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind == yaml.ScalarNode && k.Value == "<<" && k.Style == 0:
			r.fail(k.Line, "there are no merges here", "",
				"a profile has what the top level has, and says only what differs")
			continue
		case k.Kind != yaml.ScalarNode:
			r.fail(k.Line, "a key is not a word", "", "")
			continue
		case !r.plain(k):
			continue
		}
		if first := lines[k.Value]; first > 0 {
			r.fail(k.Line, keyName(k.Value)+" appears twice", fmt.Sprintf("first in line %d", first), "")
			continue
		}
		lines[k.Value] = k.Line
		pairs = append(pairs, pair{k, v})
	}
	return pairs
}

// plain refuses what makes a short file long.
func (r *configReader) plain(n *yaml.Node) bool {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		r.fail(n.Line, "there are no anchors and aliases here", "",
			"a profile has what the top level has, and says only what differs")
		return false
	}
	return true
}

// singular is the option that a plural means.
func singular(name string) string {
	switch name {
	case "paths", "optional-paths", "files", "env-files":
		return strings.TrimSuffix(name, "s")
	}
	return name
}

// section reads a map of options. profiles reads the one key that is none, where there may be profiles.
func (r *configReader) section(n *yaml.Node, profiles func(key, value *yaml.Node)) section {
	sec := section{}
	for _, p := range r.mapping(n, "this") {
		name := singular(p.key.Value)
		o, known := configOption(name)
		switch {
		case name == "profiles" && profiles != nil:
			profiles(p.key, p.value)
			continue
		case name == commandKey:
			o = option{name: commandKey, arg: "WORD", list: true}
		case !known:
			r.unknown(p.key)
			continue
		}
		if sec[name] != nil {
			r.fail(p.key.Line, fmt.Sprintf("%s and %s are the same", p.key.Value, name), "", "write them as one list")
			continue
		}
		sec[name] = r.values(p, o)
	}
	return sec
}

// configOption finds an option that may stand in a file: what has a variable may, but not what chooses the file.
func configOption(name string) (option, bool) {
	for _, o := range configOptions() {
		if o.name == name {
			return o, true
		}
	}
	return option{}, false
}

func configOptions() []option {
	opts := slices.Clone(options)
	for _, c := range adminCommands {
		opts = append(opts, c.own...)
	}
	return slices.DeleteFunc(opts, func(o option) bool { return len(o.env) == 0 || o.group == groupConfig })
}

// fileFor is the option that names the file with a secret, which somebody would put into this one.
func fileFor(name string) string {
	switch name {
	case "token", "wrapped-token", "secret-id", "wrapped-secret-id", "jwt", "password", "keys", "gcp-credentials":
		return name + "-file"
	}
	return ""
}

func (r *configReader) unknown(key *yaml.Node) {
	name := strings.ReplaceAll(strings.ToLower(key.Value), "_", "-")
	for _, prefix := range []string{"vaultexec-", "vault-", "bao-"} {
		name = strings.TrimPrefix(name, prefix)
	}
	what, hint := fmt.Sprintf("%s is no option", keyName(key.Value)), "vaultexec --help lists them"
	var names []string
	for _, o := range configOptions() {
		names = append(names, o.name)
		if slices.Contains(o.env, strings.ToUpper(key.Value)) {
			name = o.name
		}
	}
	own := slices.ContainsFunc(options, func(o option) bool { return o.name == name })
	switch near := vault.Nearest(name, append(names, "profiles", commandKey)); {
	case fileFor(name) != "":
		hint = fmt.Sprintf("a secret does not stand in this file: name the file that holds it with %s", fileFor(name))
	case name == "profiles":
		what, hint = "a profile has no profiles", ""
	case own && !slices.Contains(names, name):
		what, hint = keyName(key.Value)+" does not stand in a file", fmt.Sprintf("give it as --%s", name)
	case near != "":
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	r.fail(key.Line, what, "", hint)
}

// values reads the value of an option, or the items of a list.
func (r *configReader) values(p pair, o option) []setting {
	list := []setting{}
	add := func(n *yaml.Node, prefix string) {
		if text, ok := r.scalar(n, o); ok {
			r.order++
			text = prefix + text
			place := r.at(n.Line)
			list = append(list, setting{text: r.fromHere(o, text), from: fmt.Sprintf("%s (%s)", p.key.Value, place),
				origin: fromFile, order: r.order, place: place})
		}
	}
	switch {
	case !r.plain(p.value):
	case o.name == commandKey && p.value.Kind != yaml.SequenceNode:
		r.fail(p.key.Line, "command is not a list", "",
			`no shell takes it apart: write each word by itself, as in ["uvicorn", "app:app"]`)
	case o.list && p.value.Kind == yaml.SequenceNode:
		for _, n := range p.value.Content {
			add(n, "")
		}
		if o.name == commandKey && len(p.value.Content) == 0 {
			r.fail(p.key.Line, "command is empty", "", "")
		}
	case o.name == "env" && p.value.Kind == yaml.MappingNode:
		for _, e := range r.mapping(p.value, "env") {
			add(e.value, e.key.Value+"=")
		}
	case p.value.Kind == yaml.SequenceNode:
		r.fail(p.key.Line, o.name+" is not a list", "", "it has one value")
	default:
		add(p.value, "")
	}
	return list
}

// scalar returns a single value as it is written: 010 and 1.10 are what they look like.
func (r *configReader) scalar(n *yaml.Node, o option) (string, bool) {
	bad := func(why, hint string) (string, bool) {
		r.fail(n.Line, "cannot use the value of "+o.name, why, hint)
		return "", false
	}
	if !r.plain(n) {
		return "", false
	}
	if n.Kind != yaml.ScalarNode {
		return bad("it is not a single value", "")
	}
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp":
	case "!!null":
		return bad("there is none", `an empty one is ""`)
	default:
		return bad("it has a tag", "leave the tag out")
	}
	if strings.IndexByte(n.Value, 0) >= 0 {
		return bad("it holds a NUL byte", "")
	}
	if o.name == commandKey {
		return n.Value, true
	}
	if vault.IsToken(n.Value) {
		return bad("it is a token, which no option takes",
			"a secret does not stand in this file: name the file that holds it with token-file")
	}
	if why := o.mismatch(n.Value); why != "" {
		return bad("it is "+why, "")
	}
	return n.Value, true
}

// fromHere makes a value that names a file relative to the folder of the configuration file. What it means must not
// depend on the folder that vaultexec is started in.
func (r *configReader) fromHere(o option, text string) string {
	head, name := "", text
	switch {
	case o.name == "file":
		var ok bool
		// NAME,mode=0444 is a file in memory.
		if head, name, ok = strings.Cut(text, "="); !ok || strings.Contains(head, ",") {
			return text
		}
		head += "="
	case o.name == "on-change-hook" && strings.Contains(text, "/"): // others are looked up in PATH
	case o.arg != "FILE" && o.arg != "DIR":
		return text
	}
	if name == "" || filepath.IsAbs(name) {
		return text
	}
	return head + filepath.Join(filepath.Dir(r.name), name)
}
