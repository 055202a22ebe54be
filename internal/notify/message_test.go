package notify

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Message{
		"READY=1":                                  {Ready: true},
		"READY=1\n":                                {Ready: true},
		"READY=1\x00":                              {Ready: true},
		"READY=0":                                  {},
		"READY=1\nREADY=0":                         {Ready: true},
		"X\nREADY=1\nY=\n=1":                       {Ready: true},
		"MAINPID=1\nSTOPPING=1":                    {Stopping: true},
		"STATUS=a\tb\x1b[31m=c":                    {Status: "a b [31m=c"},
		"STATUS=\u202eab":                          {Status: "ab"},
		"STATUS=" + strings.Repeat("ä", 1000):      {Status: strings.Repeat("ä", maxStatus/2)},
		"EXTEND_TIMEOUT_USEC=1500":                 {Extend: 1500 * time.Microsecond},
		"EXTEND_TIMEOUT_USEC=18446744073709551615": {Extend: maxExtend},
		"EXTEND_TIMEOUT_USEC=-1":                   {},
		"RELOADING=1\nMONOTONIC_USEC=7":            {Reloading: true},
		"WATCHDOG=1":                               {Watchdog: true},
		"WATCHDOG=trigger":                         {Trigger: true},
		"FDSTORE=1\nFDNAME=web-1\nFDPOLL=0":        {Store: true, Name: "web-1", NoPoll: true},
		"FDSTOREREMOVE=1\nFDNAME=a:b":              {Remove: true},
		"FDNAME=" + strings.Repeat("x", 256):       {},
		"BARRIER=1":                                {Barrier: true},
		"BARRIER=1\nREADY=1":                       {Ready: true},
	} {
		if want.Name == "" {
			want.Name = storedName
		}
		if got, ok := parse([]byte(text)); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "\x00\x00", "READY=1\x00STOPPING=1", "STATUS=\xff", strings.Repeat("x", maxMessage+1)} {
		if got, ok := parse([]byte(text)); ok {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"READY=1\nSTATUS=a", "EXTEND_TIMEOUT_USEC=99999999999999", "FDSTORE=1\nFDNAME=x", "BARRIER=1"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parse(b)
		if !ok {
			return
		}
		if len(m.Status) > maxStatus || !utf8.ValidString(m.Status) || strings.ContainsAny(m.Status, "\x00\n\x1b") {
			t.Errorf("%q: status %q", b, m.Status)
		}
		if m.Extend < 0 || m.Extend > maxExtend || !isName(m.Name) || m.Barrier && (m.Ready || m.Store) {
			t.Errorf("%q: %+v", b, m)
		}
	})
}
