package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// randomText is n bytes in lines of the given width, as a key or a bundle has them.
func randomText(r *rand.Rand, n, width int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/\"\\ "
	var b strings.Builder
	for b.Len() < n {
		for range width {
			b.WriteByte(letters[r.IntN(len(letters))])
		}
		if width < n {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// Of a large value nothing is shown, in no chunks that a program may write it in, as it is, in JSON, and in base64 in one line or
// folded. What comes before and behind it stays.
func TestMaskLargeValues(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 8))
	for _, width := range []int{64, 76, 300, 1 << 20} {
		v := randomText(r, 9<<10, width)
		code := base64.StdEncoding.EncodeToString([]byte(v))
		set := setOf(v)
		for name, form := range map[string]string{"text": v, "JSON": jsonOf(v), "base64": code,
			"base64 of 76": strings.Join(folded(code, 76), "\n"), "base64 of 64": strings.Join(folded(code, 64), "\n"), "lines of a terminal": strings.ReplaceAll(v, "\n", "\r\n")} {
			text := "before\n" + form + "\nbehind\n"
			m := Masker{Set: set, Least: leastMasked}
			var got []byte
			for rest := []byte(text); len(rest) > 0; {
				n := min(1+r.IntN(5000), len(rest))
				got = m.Write(got, rest[:n])
				rest = rest[n:]
			}
			got = m.Flush(got)
			if !bytes.HasPrefix(got, []byte("before\n")) || !bytes.HasSuffix(got, []byte("\nbehind\n")) {
				t.Fatalf("width %d, %s: the text around it is not shown", width, name)
			}
			shown := map[string]bool{}
			for at := 0; at+12 <= len(got); at++ {
				shown[string(got[at:at+12])] = true
			}
			for at := 0; at+12 <= len(form); at++ {
				if shown[form[at:at+12]] {
					t.Fatalf("width %d, %s: twelve bytes at %d of %d are shown", width, name, at, len(form))
				}
			}
		}
	}
}

// A value of a megabyte takes a few times its size, and not a hundred: a container of 128 MB could not hold that.
func TestMaskLargeMemory(t *testing.T) { // not parallel: others allocate, too
	r := rand.New(rand.NewPCG(9, 10))
	for _, width := range []int{64, 1 << 20} {
		v := randomText(r, 950<<10, width)
		var before, made, kept runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		set := setOf(v)
		runtime.ReadMemStats(&made)
		runtime.GC()
		runtime.ReadMemStats(&kept)
		runtime.KeepAlive(set)
		const mb = 1 << 20
		if n := (made.TotalAlloc - before.TotalAlloc) / mb; n > 120 && width < 1<<20 {
			t.Errorf("width %d: %d MB are allocated", width, n)
		}
		if n := (int64(kept.HeapInuse) - int64(before.HeapInuse)) / mb; n > 32 {
			t.Errorf("width %d: %d MB are kept", width, n)
		}
	}
}

// jsonOf is what stands between the quotes of a JSON string.
func jsonOf(v string) string {
	b, _ := json.Marshal(v)
	return string(b[1 : len(b)-1])
}
