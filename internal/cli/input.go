package cli

import (
	"io"
	"os"
	"path"
)

// maxValue is the most that Vault takes for one string.
const maxValue = 1 << 20

// readUpTo reads the beginning of a file, which may be one without an end.
func readUpTo(file string, most int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, most))
}

func validGlob(g string) bool {
	_, err := path.Match(g, "")
	return err == nil
}
