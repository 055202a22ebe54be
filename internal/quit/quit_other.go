//go:build !linux

// Package quit does nothing here.
package quit
