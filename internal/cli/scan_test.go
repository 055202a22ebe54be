package cli

import (
	"encoding/json"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/agenticverz/vaultexec/internal/scan"
)

// The report has what SARIF 2.1.0 requires (sarif-schema-2.1.0.json), and what code hosts ask for beyond that.
func TestSARIF(t *testing.T) {
	commit := strings.Repeat("ab", 20)
	r := &scanned{folder: "sub dir", Result: &scan.Result{
		Findings: []scan.Finding{
			{File: "a/b.env", Line: 3, Offset: 17, Key: "app#K", Form: "plain"},
			{File: "50% #1?\n\x1b", Line: 1, Key: "app#K", Form: "base64", Part: true},
			{File: "core", Offset: 0, Key: "app#K", Form: "plain"},
			{File: "c:", Line: 1, Key: "app#K", Form: "plain"},
			{File: "gone", Line: 1, Key: "app#L", Form: "hex", Commit: commit, Object: commit},
			{File: "(in no commit)", Line: 1, Key: "app#L", Form: "hex", Object: commit},
		},
		Unread: []scan.Unread{{Name: "x", Why: "permission denied"}},
	}}
	b, err := json.Marshal(sarifOf(r))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Schema  string `json:"$schema"`
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct {
					Name  string
					Rules []struct {
						ID               string
						ShortDescription struct{ Text string }
					}
				}
			}
			Invocations []struct {
				ExecutionSuccessful        *bool
				ToolExecutionNotifications []struct {
					Level   string
					Message struct{ Text string }
				}
			}
			Results []struct {
				RuleID, Level string
				Message       struct{ Text string }
				Locations     []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           map[string]int64
					}
				}
			}
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Version != "2.1.0" || !strings.HasSuffix(doc.Schema, "sarif-2.1.0.json") || len(doc.Runs) != 1 {
		t.Fatalf("%s", b)
	}
	run := doc.Runs[0]
	if d := run.Tool.Driver; d.Name == "" || len(d.Rules) != 1 || d.Rules[0].ShortDescription.Text == "" {
		t.Errorf("%+v", d)
	}
	if i := run.Invocations; len(i) != 1 || i[0].ExecutionSuccessful == nil || *i[0].ExecutionSuccessful ||
		len(i[0].ToolExecutionNotifications) != 1 || i[0].ToolExecutionNotifications[0].Message.Text == "" {
		t.Errorf("%+v", i)
	}
	var names []string
	for _, res := range run.Results {
		if res.RuleID != run.Tool.Driver.Rules[0].ID || !slices.Contains([]string{"none", "note", "warning", "error"}, res.Level) ||
			!strings.Contains(res.Message.Text, "app#") || len(res.Locations) != 1 {
			t.Fatalf("%+v", res)
		}
		at := res.Locations[0].PhysicalLocation
		line, hasLine := at.Region["startLine"]
		offset, hasOffset := at.Region["byteOffset"]
		if hasLine == hasOffset || hasLine && line < 1 || offset < 0 {
			t.Errorf("the region %v", at.Region)
		}
		u, err := url.Parse(at.ArtifactLocation.URI)
		if err != nil || u.IsAbs() || path.IsAbs(u.Path) || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(at.ArtifactLocation.URI, " \n\x1b") {
			t.Fatalf("%q is no relative URI: %v", at.ArtifactLocation.URI, err)
		}
		names = append(names, u.Path)
	}
	if want := []string{"sub dir/a/b.env", "sub dir/50% #1?\n\x1b", "sub dir/core", "sub dir/c:", "gone", "(in no commit)"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	for _, key := range []string{"snippet", "contextRegion", "content"} {
		if strings.Contains(string(b), `"`+key+`"`) {
			t.Errorf("it has a %s, which shows the text around", key)
		}
	}
}

// What was found is told in one line each, whatever a file is called.
func TestScanPlaces(t *testing.T) {
	commit := strings.Repeat("ab", 20)
	r := &scanned{folder: "dir"}
	for want, f := range map[string]scan.Finding{
		"dir/a:3:":                       {File: "a", Line: 3},
		"dir/a:@0:":                      {File: "a"},
		"abababababab:a:1:":              {File: "a", Line: 1, Commit: commit, Object: commit},
		"abababababab:(in no commit):1:": {File: "(in no commit)", Line: 1, Object: commit},
	} {
		if got := r.place(f); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	r.folder = ""
	if got := r.place(scan.Finding{File: "-", Line: 1}); got != "-:1:" {
		t.Error(got)
	}
}

// A name that begins like a scheme is a relative URI all the same.
func TestSARIFOfAColon(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(sarifOf(&scanned{Result: &scan.Result{Findings: []scan.Finding{{File: "js:x/f", Line: 1, Key: "app#K", Form: "plain"}}}}))
	if err != nil || !strings.Contains(string(b), `"uri":"./js:x/f"`) {
		t.Errorf("%s %v", b, err)
	}
}
