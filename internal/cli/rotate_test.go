package cli

import (
	"math"
	"testing"
)

// Characters are drawn with equal probability: a chi-square test for each alphabet, whose limit chance exceeds once in a
// billion runs.
func TestRandomIsNotBiased(t *testing.T) {
	for name, alphabet := range charsets {
		const perCharacter = 2000
		n := perCharacter * len(alphabet)
		counts := map[rune]int{}
		for _, r := range randomText(alphabet, n) {
			counts[r]++
		}
		chi := 0.0
		for _, r := range alphabet {
			d := float64(counts[r] - perCharacter)
			chi += d * d / perCharacter
		}
		k := float64(len(alphabet) - 1)
		// Wilson and Hilferty: the cube root of chi²/k is nearly normal; six standard deviations.
		limit := k * math.Pow(1-2/(9*k)+6*math.Sqrt(2/(9*k)), 3)
		if len(counts) != len(alphabet) || chi > limit {
			t.Errorf("%s: chi² is %.0f, more than %.0f", name, chi, limit)
		}
	}
}
