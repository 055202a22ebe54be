//go:build race

package vaulttest

const raceBuild = true
