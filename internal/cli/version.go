package cli

import (
	"runtime/debug"
	"strings"
)

// lastRelease is the version that these sources are, or come after. The newest section of CHANGELOG.md has the same.
const lastRelease = "v0.1.0"

// version is what this program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return versionOf("")
	}
	return versionOf(info.Main.Version)
}

// versionOf makes a version of what go build has stamped. That is the tag of a release, or a pseudo-version: the
// release after the last tag, with the time and the hash of a commit. Where the checkout has no tags, a pseudo-version
// begins with v0.0.0 and does not tell the release. A build without version control has no stamp: of an archive, in an
// image, by go run.
func versionOf(stamp string) string {
	switch {
	case stamp == "", stamp == "(devel)":
		return lastRelease + "+unknown"
	case !strings.HasPrefix(stamp, "v0.0.0-"):
		return stamp
	case strings.Contains(stamp, "+"): // +dirty: not all of it is committed
		return stamp + ".after." + lastRelease
	}
	return stamp + "+after." + lastRelease
}
