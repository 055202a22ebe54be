package restartlock

import (
	"encoding/json"
	"strings"
	"testing"
)

// What somebody has written in place of outcomes is none, or a short one: it is printed.
func TestOutcomesOfOthers(t *testing.T) {
	for _, text := range []string{"", "null", "{}", "[1]", `[{"set":1}]`, "\x00", strings.Repeat("[", 10000)} {
		if list := outcomes([]byte(text)); len(list) > 0 {
			t.Errorf("%.20q: %d outcomes", text, len(list))
		}
	}
	long := Outcome{Set: "s", By: strings.Repeat("ä", 1<<19), What: strings.Repeat("x", 1<<20)}
	many := make([]Outcome, 100)
	for i := range many {
		many[i] = long
	}
	b, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	list := outcomes(b)
	if len(list) != MostOutcomes || len(list[0].By) > mostName+len("…") || len(list[0].What) > mostWhat+len("…") || !strings.HasSuffix(list[0].By, "ä…") {
		t.Errorf("%d outcomes, names of %d bytes, versions of %d", len(list), len(list[0].By), len(list[0].What))
	}
	if n := len(added(nil, long)); n > 2*mostWhat+1<<20 {
		t.Errorf("an outcome of %d bytes is left", n)
	}
	if kept := outcomes(added(b, Outcome{Set: "new", What: "a 1 → 2"})); len(kept) != MostOutcomes || kept[0].Set != "new" || kept[0].What != "a 1 → 2" {
		t.Errorf("%d outcomes, the first of %q", len(kept), kept[0].Set)
	}
}

// A set that is tried twice, because the first to try it died, takes no room from those of other fleets.
func TestOutcomesOfOneSet(t *testing.T) {
	list := added(nil, Outcome{Set: "of another fleet", Good: true})
	for i := range 2 * MostOutcomes {
		list = added(list, Outcome{Set: "ours", Good: i%2 == 0})
	}
	kept := outcomes(list)
	if len(kept) != 2 || kept[0].Set != "ours" || kept[0].Good || kept[1].Set != "of another fleet" {
		t.Errorf("kept %+v", kept)
	}
}
