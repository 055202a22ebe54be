//go:build !linux

// Package nodump does nothing here.
package nodump
