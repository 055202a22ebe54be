package process

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/agenticverz/vaultexec/internal/needs"
)

// webServer is a server that answers with $GENERATION: on the socket that it is given, or, for the control, on a port of its
// own. One is made for a folder and a port.
type webServer struct {
	name    string
	options []string // of vaultexec
	write   func(t *testing.T, dir, port string)
	argv    func(t *testing.T, dir, port string, held bool) []string
	abrupt  bool // it closes every connection after an answer and does not announce it: no load of kept ones
}

// file writes a file that a server is to read.
func file(t *testing.T, dir, name, text string, args ...any) {
	t.Helper()
	if len(args) > 0 {
		text = fmt.Sprintf(text, args...)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// pick is what to write with --listen, or without it.
func pick(held bool, with, without []string) []string {
	if held {
		return with
	}
	return without
}

func pythonApp(t *testing.T, dir, _ string) {
	file(t, dir, "app.py", `import os
N = os.environ["GENERATION"].encode()

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(N)))])
    return [N]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": event + ".complete"})
            if event == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(N)).encode())]})
    await send({"type": "http.response.body", "body": N})
`)
}

// gunicorn is gunicorn with options.
func gunicorn(options ...string) func(t *testing.T, dir, port string, held bool) []string {
	return func(t *testing.T, _, port string, held bool) []string {
		argv := append([]string{needs.Program(t, "gunicorn")}, options...)
		return append(append(argv, pick(held, nil, []string{"--bind", "127.0.0.1:" + port})...), "app:wsgi")
	}
}

var webServers = []webServer{
	{name: "go", argv: func(t *testing.T, _, port string, held bool) []string {
		return append([]string{probe(t), "serve"}, pick(held, nil, []string{"127.0.0.1:" + port})...)
	}},
	{name: "uvicorn", write: pythonApp, argv: func(t *testing.T, _, port string, held bool) []string {
		argv := []string{needs.Program(t, "uvicorn"), "--log-level", "warning"}
		return append(append(argv, pick(held, []string{"--fd", "3"}, []string{"--port", port})...), "app:asgi")
	}},
	{name: "hypercorn", abrupt: true, write: pythonApp, argv: func(t *testing.T, _, port string, held bool) []string {
		argv := []string{needs.Program(t, "hypercorn"), "--log-level", "warning", "--bind"}
		return append(append(argv, pick(held, []string{"fd://3"}, []string{"127.0.0.1:" + port})...), "app:asgi")
	}},
	{name: "gunicorn", write: pythonApp, argv: gunicorn("--log-level", "warning")},
	{name: "gunicorn threads", write: pythonApp, argv: gunicorn("--log-level", "warning", "--threads", "4")},
	{name: "node", write: func(t *testing.T, dir, port string) {
		// Without closeIdleConnections a client that asks on and on keeps its connection, and node, for ever.
		file(t, dir, "server.js", `let ends = false
const server = require('http').createServer((request, answer) => {
  if (ends) answer.setHeader('Connection', 'close')
  answer.end(process.env.GENERATION + '\n')
})
server.listen(process.env.LISTEN_FDS ? { fd: 3 } : { port: %s, host: '127.0.0.1' })
process.on('SIGTERM', () => {
  ends = true
  server.close(() => process.exit(0))
  setInterval(() => server.closeIdleConnections(), 50)
})
`, port)
	}, argv: func(t *testing.T, _, _ string, _ bool) []string {
		return []string{needs.Program(t, "node"), "server.js"}
	}},
	{name: "puma", write: func(t *testing.T, dir, _ string) {
		file(t, dir, "puma.rb", `app { |env| [200, {'Content-Type' => 'text/plain'}, [ENV['GENERATION'] + "\n"]] }`+"\nquiet\nthreads 16, 16\n") // one for each client, or kept connections starve fresh ones
	}, argv: func(t *testing.T, _, port string, held bool) []string {
		argv := []string{needs.Program(t, "puma"), "--config", "puma.rb", "--environment", "production"}
		return append(argv, pick(held, []string{"--bind-to-activated-sockets", "only"}, []string{"--bind", "tcp://127.0.0.1:" + port})...)
	}},
	{name: "nginx", options: []string{"--stop-signal", "QUIT"}, write: func(t *testing.T, dir, port string) {
		file(t, dir, "template", `daemon off; error_log stderr; pid %[1]s/pid.GENERATION;
events {}
http { access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
 server { listen 127.0.0.1:%[2]s; location / { return 200 "GENERATION\n"; } } }
`, dir, port)
	}, argv: func(t *testing.T, dir, _ string, held bool) []string {
		inherit, user := "", ""
		if held {
			inherit = "NGINX='3;' "
		}
		if os.Getuid() == 0 {
			user = "echo 'user root;' >conf.$GENERATION; "
		}
		return []string{"sh", "-c", user + `sed "s/GENERATION/$GENERATION/" template >>conf.$GENERATION; exec env ` + inherit +
			needs.Program(t, "nginx") + " -p " + dir + " -c " + dir + "/conf.$GENERATION -e stderr"}
	}},
	{name: "haproxy", options: []string{"--stop-signal", "USR1"}, write: func(t *testing.T, dir, port string) {
		const text = `defaults
 mode http
 timeout client 30s
frontend web
 bind %s
 http-request return status 200 content-type text/plain lf-string "%%[env(GENERATION)]\n"
`
		file(t, dir, "held", text, "fd@3")
		file(t, dir, "bare", text, "127.0.0.1:"+port)
	}, argv: func(t *testing.T, _, _ string, held bool) []string {
		return []string{needs.Program(t, "haproxy"), "-db", "-f", pick(held, []string{"held"}, []string{"bare"})[0]}
	}},
}
