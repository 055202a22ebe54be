package browser

import (
	"os"
	"runtime"
	"syscall"
)

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }

// hasNoDesktop is whether Open finds nothing where no variable names a screen.
var hasNoDesktop = runtime.GOOS != "darwin" && os.Getenv("BROWSER") == ""
