package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// What deploy/monitoring/ gives to Prometheus and Grafana is what they understand, and asks for what vaultexec exports.

// exported is every metric of --status with its own labels. Prometheus adds job and instance. Each that is a histogram has
// the suffixes of one.
var exported = map[string][]string{
	"vaultexec_info":                           {"version"},
	"vaultexec_secret_version":                 {"path"},
	"vaultexec_secret_newest_version":          {"path"},
	"vaultexec_secret_age_seconds":             {"path"},
	"vaultexec_last_look_timestamp_seconds":    {"path"},
	"vaultexec_look_failures_total":            {"kind"},
	"vaultexec_command_restarts_total":         {"reason"},
	"vaultexec_command_ready":                  nil,
	"vaultexec_rollbacks_total":                nil,
	"vaultexec_change_pending":                 nil,
	"vaultexec_token_expiry_timestamp_seconds": nil,
	"vaultexec_lease_expiry_timestamp_seconds": {"path"},
	"vaultexec_handover_seconds_bucket":        {"le"},
	"vaultexec_handover_seconds_sum":           nil,
	"vaultexec_handover_seconds_count":         nil,
	"vaultexec_requests_total":                 {"status"},
}

var (
	metricName  = regexp.MustCompile(`\bvaultexec_\w+`)
	metricLabel = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
	byLabels    = regexp.MustCompile(`\b(?:by|on|without|ignoring)\s*\(([^()]*)\)`)
	valuesLabel = regexp.MustCompile(`^label_values\(.*,\s*(\w+)\)$`)
	legendLabel = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
	variable    = regexp.MustCompile(`\$\{?(\w+)\}?`)
)

// unknown lists what an expression, or a legend beside it, names that is not exported; and notes in used what is.
func unknown(expr, legend string, used map[string]bool) (wrong []string) {
	labels := []string{"job", "instance"}
	names := metricName.FindAllString(expr, -1)
	if len(names) == 0 {
		return []string{"no metric in " + expr}
	}
	for _, name := range names {
		own, ok := exported[name]
		if !ok {
			wrong = append(wrong, "no metric "+name)
		}
		labels = append(labels, own...)
		used[name] = true
	}
	asked := []string{}
	for _, m := range metricLabel.FindAllStringSubmatch(expr, -1) {
		asked = append(asked, m[1])
	}
	for _, m := range byLabels.FindAllStringSubmatch(expr, -1) {
		asked = append(asked, strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' })...)
	}
	if m := valuesLabel.FindStringSubmatch(expr); m != nil {
		asked = append(asked, m[1])
	}
	for _, m := range legendLabel.FindAllStringSubmatch(legend, -1) {
		asked = append(asked, m[1])
	}
	for _, label := range asked {
		if !slices.Contains(labels, label) {
			wrong = append(wrong, fmt.Sprintf("no label %s in %s", label, expr))
		}
	}
	return wrong
}

// alerts is what this test reads of a file of rules.
type alerts struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr string
			Labels      map[string]string
			Annotations map[string]string
		}
	}
}

// dashboard is what this test reads of one.
type dashboard struct {
	SchemaVersion int
	UID, Title    string
	Templating    struct {
		List []struct {
			Name, Type string
			Query      any
			Datasource source
		}
	}
	Panels []struct {
		ID                       int
		Title, Type, Description string
		Datasource               source
		GridPos                  struct{ X, Y, W, H int }
		Targets                  []struct {
			Expr, LegendFormat, RefID string
			Datasource                source
		}
	}
}

type source struct{ Type, UID string }

// chosen is the data source that the dashboard's reader chooses.
var chosen = source{"prometheus", "${datasource}"}

// judgeDashboard lists what is wrong with one, and returns its queries as Prometheus would get them.
func judgeDashboard(text string, used map[string]bool) (queries, wrong []string) {
	var d dashboard
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return nil, []string{err.Error()}
	}
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	// 39 is Grafana 11's first; a later one, and Grafana 12, bring it up to date by themselves.
	if d.SchemaVersion < 39 || d.UID == "" || d.Title == "" {
		bad("schema %d, uid %q, title %q", d.SchemaVersion, d.UID, d.Title)
	}
	variables := []string{"__rate_interval", "__range"}
	for i, v := range d.Templating.List {
		switch {
		case i == 0 && (v.Name != "datasource" || v.Type != "datasource" || v.Query != "prometheus"):
			bad("the first variable is not the data source")
		case i > 0:
			query, _ := v.Query.(map[string]any)
			expr, _ := query["query"].(string)
			wrong = append(wrong, unknown(expr, "", used)...)
			if v.Datasource != chosen {
				bad("%s has the data source %v", v.Name, v.Datasource)
			}
		}
		variables = append(variables, v.Name)
	}
	ids := map[int]bool{}
	cells := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 || p.Title == "" {
			bad("%q has the number %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					bad("%q is above %q at %d, %d", p.Title, other, x, y)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || len(p.Targets) == 0 || p.Datasource != chosen {
			bad("%q lacks a description, a query or the data source", p.Title)
		}
		for _, t := range p.Targets {
			wrong = append(wrong, unknown(t.Expr, t.LegendFormat, used)...)
			if t.Datasource != chosen || t.RefID == "" {
				bad("%q: %s has the data source %v", p.Title, t.Expr, t.Datasource)
			}
			query := variable.ReplaceAllStringFunc(t.Expr, func(v string) string {
				name := strings.Trim(v, "${}")
				if !slices.Contains(variables, name) {
					bad("no variable %s", v)
				}
				if strings.HasPrefix(name, "__") {
					return "5m"
				}
				return ".*"
			})
			queries = append(queries, query)
		}
	}
	return queries, wrong
}

// Rules and dashboard name what is exported, and everything that is exported is shown or watched.
func TestMonitoringNamesWhatIsExported(t *testing.T) {
	used := map[string]bool{}
	var rules alerts
	if err := yaml.Unmarshal([]byte(read(t, "deploy/monitoring/alerts.yaml")), &rules); err != nil {
		t.Fatal(err)
	}
	all := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			all++
			for _, wrong := range unknown(r.Expr, "", used) {
				t.Errorf("%s: %s", r.Alert, wrong)
			}
			if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s lacks a severity or a text", r.Alert)
			}
		}
	}
	if all == 0 {
		t.Error("no rules")
	}
	text := read(t, "deploy/monitoring/dashboard.json")
	queries, wrong := judgeDashboard(text, used)
	for _, w := range wrong {
		t.Errorf("dashboard.json: %s", w)
	}
	for name := range exported {
		if !used[name] {
			t.Errorf("nothing uses %s", name)
		}
	}
	for name := range used {
		if _, ok := exported[name]; !ok {
			t.Errorf("no metric %s", name)
		}
	}
	if len(queries) < 15 {
		t.Errorf("%d queries: this test does not read them", len(queries))
	}
	// The same dashboard with something else in the place of one thing.
	for _, change := range [][2]string{
		{"vaultexec_rollbacks_total", "vaultexec_rollback_total"}, {"sum by (status)", "sum by (code)"}, {"{{reason}}", "{{why}}"},
		{`"${datasource}"`, `"prometheus-1"`}, {"$instance", "$host"}, {`"schemaVersion": 39`, `"schemaVersion": 16`},
		{", path)", ", secret)"}, {`"id": 2,`, `"id": 3,`},
	} {
		if !strings.Contains(text, change[0]) {
			t.Errorf("the dashboard has no %s", change[0])
		}
		if _, wrong := judgeDashboard(strings.Replace(text, change[0], change[1], 1), map[string]bool{}); len(wrong) == 0 {
			t.Errorf("%s in the place of %s is not noticed", change[1], change[0])
		}
	}
}

// Prometheus understands every query of the dashboard.
func TestDashboardQueries(t *testing.T) {
	promtool := needs.Program(t, "promtool")
	queries, _ := judgeDashboard(read(t, "deploy/monitoring/dashboard.json"), map[string]bool{})
	check := func(queries []string) (string, error) {
		type rule struct {
			Record string `yaml:"record"`
			Expr   string `yaml:"expr"`
		}
		var rules []rule
		for i, q := range queries {
			rules = append(rules, rule{fmt.Sprintf("query:%d", i), q})
		}
		b, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "queries", "rules": rules}}})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "rules.yaml")
		vaulttest.WriteFile(t, file, string(b), 0o600)
		out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput()
		return string(out), err
	}
	if out, err := check(queries); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := check(append(queries, "sum by (path) vaultexec_info")); err == nil {
		t.Errorf("it understands everything: %s", out)
	}
}

// Each alert fires when it should, and keeps quiet otherwise: alerts_test.yaml. And a rule that says something else does not
// pass those cases.
func TestAlerts(t *testing.T) {
	promtool := needs.Program(t, "promtool")
	rules := read(t, "deploy/monitoring/alerts.yaml")
	test := func(t *testing.T, rules string) (string, error) {
		dir := t.TempDir()
		vaulttest.WriteFile(t, filepath.Join(dir, "alerts.yaml"), rules, 0o600)
		vaulttest.WriteFile(t, filepath.Join(dir, "alerts_test.yaml"), read(t, "deploy/monitoring/alerts_test.yaml"), 0o600)
		out, err := exec.Command(promtool, "test", "rules", filepath.Join(dir, "alerts_test.yaml")).CombinedOutput()
		return string(out), err
	}
	if out, err := exec.Command(promtool, "check", "rules", "deploy/monitoring/alerts.yaml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := test(t, rules); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, change := range [][2]string{
		{"vaultexec_secret_version <", "vaultexec_secret_version !="}, {"for: 10m", "for: 9m"}, {"for: 10m", "for: 11m"},
		{"> 900", "> 840"}, {"> 900\n", "> 900\n        for: 1m\n"}, {"time() - vaultexec_last_look_timestamp_seconds > 900", "increase(vaultexec_look_failures_total[15m]) > 0"},
		{"vaultexec_rollbacks_total[15m]", "vaultexec_rollbacks_total[30m]"}, {"vaultexec_rollbacks_total[", "vaultexec_command_restarts_total["},
		{"(vaultexec_token_expiry_timestamp_seconds > 0)", "vaultexec_token_expiry_timestamp_seconds"}, {"< 600", "< 660"}, {"< 600", "< 540"},
		{"< 120", "< 180"}, {"< 120", "< 60"},
	} {
		t.Run(change[1], func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(rules, change[0]) {
				t.Fatalf("the rules do not say %q", change[0])
			}
			if out, err := test(t, strings.Replace(rules, change[0], change[1], 1)); err == nil {
				t.Errorf("%q in the place of %q passes\n%s", change[1], change[0], out)
			}
		})
	}
}

// The piece of configuration in the README is one that Prometheus takes.
func TestMonitoringReadme(t *testing.T) {
	promtool := needs.Program(t, "promtool")
	var config []string
	for line := range strings.Lines(read(t, "deploy/monitoring/README.md")) {
		if rest, ok := strings.CutPrefix(line, "    "); ok && (len(config) > 0 || strings.HasPrefix(rest, "rule_files:")) {
			config = append(config, rest)
		} else if len(config) > 0 {
			break
		}
	}
	rules, err := filepath.Abs("deploy/monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(config, "")
	const there = "/etc/prometheus/vaultexec.yaml"
	if !strings.Contains(text, there) || !strings.Contains(text, "job_name: vaultexec") {
		t.Fatalf("the README has no configuration for Prometheus: %q", text)
	}
	file := filepath.Join(t.TempDir(), "prometheus.yaml")
	vaulttest.WriteFile(t, file, strings.ReplaceAll(text, there, rules), 0o600)
	out, err := exec.Command(promtool, "check", "config", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "5 rules found") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, name := range []string{"alerts.yaml", "alerts_test.yaml", "dashboard.json"} {
		if _, err := os.Stat("deploy/monitoring/" + name); err != nil || !strings.Contains(read(t, "deploy/monitoring/README.md"), name) {
			t.Errorf("the README does not name %s: %v", name, err)
		}
	}
}
