package browser

import (
	"fmt"
	"net/http"
	"strconv"
)

// page is what a browser shows. Nothing in it comes from a request.
type page struct {
	status int
	title  string
	text   string
}

// The pages.
var (
	donePage     = page{http.StatusOK, "You are logged in", "Vault accepted the login. You can close this window and go back to the terminal."}
	failedPage   = page{http.StatusOK, "You are not logged in", "The login did not succeed. The terminal says why. You can close this window."}
	otherPage    = page{http.StatusBadRequest, "Not for this login", "vaultexec waits for another login, and goes on waiting. Start again from the address that the terminal shows."}
	secondPage   = page{http.StatusConflict, "Too late", "This login has had its answer already. If that was not you, do not go on: the terminal says who is logged in."}
	strangerPage = page{http.StatusForbidden, "Not for you", "This is vaultexec, which waits for a login of another user of this machine."}
	nothingPage  = page{http.StatusNotFound, "Nothing here", "This is vaultexec, which waits for a login."}
	methodPage   = page{http.StatusMethodNotAllowed, "Not like this", "This is vaultexec, which waits for a login."}
)

const frame = `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>vaultexec: %[1]s</title>
<h1>%[1]s</h1>
<p>%[2]s</p>
</html>
`

var headers = [][2]string{
	{"Content-Type", "text/html; charset=utf-8"},
	{"Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
	{"Referrer-Policy", "no-referrer"},
	{"Cache-Control", "no-store"},
	{"X-Content-Type-Options", "nosniff"},
	{"Cross-Origin-Opener-Policy", "same-origin"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
}

// show answers with a page that is static: it runs nothing, loads nothing, is kept nowhere, and tells nobody where it
// was shown.
func show(w http.ResponseWriter, p page) {
	body := fmt.Sprintf(frame, p.title, p.text)
	h := w.Header()
	for _, line := range headers {
		h.Set(line[0], line[1])
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.status)
	_, _ = w.Write([]byte(body))
	_ = http.NewResponseController(w).Flush() // before Close cuts the connection
}
