//go:build !race

package vaulttest

// Race tells whether this test binary was built with the race detector.
const Race = false
