package cli

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/scan"
)

// mostUnread bounds the lines about what could not be looked into. --json has all.
const mostUnread = 20

// reportScan prints what was found, and says on standard error what that means.
func (a *app) reportScan(s *settings, r *scanned) error {
	switch {
	case s.bool("json"):
		a.ui.reportJSON(scanReport(r))
	case s.bool("sarif"):
		a.ui.reportJSON(sarifOf(r))
	default:
		for _, f := range r.Findings {
			a.ui.printf("%s\n", oneLine(fmt.Sprintf("%s %s  %s", r.place(f), f.Key, formText(f))))
		}
	}
	if len(r.leftOut) > 0 {
		a.ui.log.Info("not looked for, because their values are too short or too common: " + strings.Join(r.leftOut, ", "))
	}
	if len(r.unread) > 0 {
		a.ui.log.Info("not looked for, because reading them makes new ones: " + strings.Join(r.unread, ", "))
	}
	for i, u := range r.Unread {
		if i == mostUnread {
			a.ui.log.Warn(fmt.Sprintf("not looked into: %d more", len(r.Unread)-i))
			break
		}
		a.ui.log.Warn("not looked into: " + r.name(u.Name) + ": " + u.Why)
	}
	if r.More > 0 {
		a.ui.log.Warn(fmt.Sprintf("some files have so many that %d more are not listed", r.More))
	}
	if err := r.verdict(); err != nil {
		return err
	}
	a.ui.log.Info(fmt.Sprintf("%s looked for, none is there in plain text: looked into %s", count(len(r.keys), "key"), r.seen()))
	return nil
}

// seen says how much was looked into.
func (r *scanned) seen() string {
	seen := count(r.Files, "file")
	if r.Objects > 0 {
		seen = count(r.Objects, "object") + " of git"
		if r.Files > 0 {
			seen = count(r.Files, "file") + " and " + seen
		}
	}
	return seen + fmt.Sprintf(", %.1f MB", float64(r.Bytes)/1e6)
}

// verdict is a failure unless everything was looked into and nothing was found.
func (r *scanned) verdict() error {
	var found []string
	for _, f := range r.Findings {
		if !slices.Contains(found, f.Key) {
			found = append(found, f.Key)
		}
	}
	switch {
	case len(found) > 0:
		slices.Sort(found)
		const some = 10
		names := strings.Join(found[:min(len(found), some)], ", ")
		if len(found) > some {
			names += ", …"
		}
		return &fault.Error{Kind: fault.Found,
			What: fmt.Sprintf("found in plain text: %d of %s, in %s", len(found), count(len(r.keys), "key"), count(r.places(), "file")),
			Why:  "looked into " + r.seen(),
			Hint: "whoever can read that has them: write new values (vaultexec rotate) for " + names +
				", then take the old ones out"}
	case len(r.Unread) > 0:
		return &fault.Error{Kind: fault.Usage, What: "not everything was looked into",
			Why:  fmt.Sprintf("%s left out; nothing was found in the rest", count(len(r.Unread), "item")),
			Hint: "the lines before say what they are"}
	}
	return nil
}

func (r *scanned) places() int {
	files := map[string]bool{}
	for _, f := range r.Findings {
		files[f.File] = true
	}
	return len(files)
}

// name is what a file is called from where vaultexec was started.
func (r *scanned) name(file string) string {
	if r.folder == "" || strings.HasPrefix(file, "(") {
		return file
	}
	return path.Join(r.folder, file)
}

// place says where something was found: FILE:LINE:, with the commit in front of what is in one.
func (r *scanned) place(f scan.Finding) string {
	at := fmt.Sprintf("%d", f.Line)
	if f.Line == 0 {
		at = fmt.Sprintf("@%d", f.Offset)
	}
	name := f.File
	if f.Object == "" {
		name = r.name(name)
	}
	const short = 12
	switch {
	case f.Commit != "":
		name = f.Commit[:short] + ":" + name
	case f.Object != "":
		name = f.Object[:short] + ":" + name
	}
	return name + ":" + at + ":"
}

func formText(f scan.Finding) string {
	if f.Part {
		return f.Form + ", a part of it"
	}
	return f.Form
}

// The JSON of scan.
type (
	scanJSON struct {
		Clean    bool          `json:"clean"` // everything was looked into, and nothing found
		Findings []findingJSON `json:"findings"`
		Keys     []string      `json:"keys"`
		LeftOut  []string      `json:"not_looked_for"` // too short or too common
		Leased   []string      `json:"leased"`
		Unread   []unreadJSON  `json:"unread"`
		Files    int           `json:"files"`
		Objects  int           `json:"objects"`
		Bytes    int64         `json:"bytes"`
		More     int           `json:"more,omitempty"` // findings that are not listed
	}
	findingJSON struct {
		File   string `json:"file"`
		Line   int    `json:"line,omitempty"` // not in binary data
		Offset int64  `json:"offset"`
		Key    string `json:"key"`
		Form   string `json:"form"`
		Part   bool   `json:"part,omitempty"`
		Commit string `json:"commit,omitempty"`
		Object string `json:"object,omitempty"`
	}
	unreadJSON struct {
		File string `json:"file"`
		Why  string `json:"why"`
	}
)

func scanReport(r *scanned) scanJSON {
	j := scanJSON{Clean: len(r.Findings)+len(r.Unread) == 0, Findings: []findingJSON{}, Keys: r.keys, LeftOut: r.leftOut,
		Leased: r.unread, Unread: []unreadJSON{}, Files: r.Files, Objects: r.Objects, Bytes: r.Bytes, More: r.More}
	for _, f := range r.Findings {
		file := f.File
		if f.Object == "" {
			file = r.name(file)
		}
		j.Findings = append(j.Findings, findingJSON{file, f.Line, f.Offset, f.Key, f.Form, f.Part, f.Commit, f.Object})
	}
	for _, u := range r.Unread {
		j.Unread = append(j.Unread, unreadJSON{r.name(u.Name), u.Why})
	}
	return j
}

// SARIF 2.1.0, as far as code hosts read it (docs.oasis-open.org/sarif/sarif/v2.1.0).
type (
	sarifJSON struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Invocations []sarifInvocation `json:"invocations"`
		Results     []sarifResult     `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID    string    `json:"id"`
		Short sarifText `json:"shortDescription"`
		Help  sarifText `json:"help"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifInvocation struct {
		Successful    bool          `json:"executionSuccessful"`
		Notifications []sarifNotice `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotice struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
	sarifResult struct {
		Rule      string          `json:"ruleId"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		Line   int    `json:"startLine,omitempty"`
		Offset *int64 `json:"byteOffset,omitempty"`
	}
)

const sarifRuleID = "secret-in-plain-text"

func sarifOf(r *scanned) sarifJSON {
	run := sarifRun{Results: []sarifResult{}, Invocations: []sarifInvocation{{Successful: len(r.Unread) == 0}}}
	run.Tool.Driver = sarifDriver{Name: "vaultexec", Version: version(), Rules: []sarifRule{{sarifRuleID,
		sarifText{"A secret from Vault stands in plain text"},
		sarifText{"Write a new value into Vault (vaultexec rotate), and take the old one out of the file. What was committed once stays in the history."}}}}
	for _, u := range r.Unread {
		run.Invocations[0].Notifications = append(run.Invocations[0].Notifications,
			sarifNotice{"error", sarifText{"not looked into: " + r.name(u.Name) + ": " + u.Why}})
	}
	for _, f := range r.Findings {
		text := fmt.Sprintf("The value of %s stands here (%s)", f.Key, formText(f))
		name := f.File
		switch {
		case f.Commit != "":
			text += ", in commit " + f.Commit
		case f.Object != "":
			text += ", in object " + f.Object
		default:
			name = r.name(name)
		}
		at := sarifLocation{sarifPhysical{Artifact: sarifArtifact{(&url.URL{Path: name}).String()}}}
		if at.Physical.Region.Line = f.Line; f.Line == 0 {
			at.Physical.Region.Offset = &f.Offset
		}
		run.Results = append(run.Results, sarifResult{sarifRuleID, "error", sarifText{text + "."}, []sarifLocation{at}})
	}
	return sarifJSON{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []sarifRun{run}}
}
