//go:build !linux

package fallback

import (
	"errors"
	"os"
)

func create(dir *os.File, base string) (f *os.File, temp string, err error) { return named(dir, base) }

func link(*os.File, *os.File, string) (string, error) { return "", errors.ErrUnsupported }
