package vaulttest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/pgtest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

// Postgres is a running PostgreSQL of one test, on a port of the loopback interface, with the superuser postgres. Every
// login takes a password.
type Postgres struct {
	Addr     string // host:port
	Password string // the superuser's

	bin  string
	dir  string
	port int
	proc *Process
}

// NewPostgres starts a PostgreSQL with a data folder of its own, and ends it with the test. It does not run as root: if
// the test is root's, the server is nobody's. Ask needs.Program for postgres and initdb first.
func NewPostgres(t TB) *Postgres {
	t.Helper()
	p, err := startPostgres()
	if p != nil {
		t.Cleanup(p.discard)
	}
	if err != nil {
		t.Fatalf("cannot start PostgreSQL: %v", err)
	}
	return p
}

func startPostgres() (*Postgres, error) {
	initdb, err := needs.Find("initdb")
	if err != nil {
		return nil, err
	}
	p := &Postgres{Password: random(12)}
	Secret(p.Password)
	if p.bin, err = needs.Find("postgres"); err != nil {
		return nil, err
	}
	if p.dir, err = TempDir("postgres"); err != nil {
		return nil, err
	}
	if as := nobody(); as != nil {
		// The folder above is root's. What else is in it has modes of its own.
		if err := errors.Join(os.Chmod(filepath.Dir(p.dir), 0o711), os.Chown(p.dir, int(as.Uid), int(as.Gid))); err != nil {
			return p, err
		}
	}
	password := filepath.Join(p.dir, "password")
	if err := os.WriteFile(password, []byte(p.Password+"\n"), 0o644); err != nil {
		return p, err
	}
	cmd := p.command(initdb, "-D", p.data(), "-U", "postgres", "-A", "password", "--pwfile="+password,
		"--no-sync", "--no-instructions", "-E", "UTF8", "--locale", "C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return p, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return p, WithPort(func(port int) error {
		p.port, p.Addr = port, "127.0.0.1:"+strconv.Itoa(port)
		return p.start()
	})
}

// nobody is who runs the server in place of root, or nil.
func nobody() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	return &syscall.Credential{Uid: 65534, Gid: 65534}
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

func (p *Postgres) command(bin string, args ...string) *exec.Cmd {
	cmd := exec.Command(bin, args...)
	cmd.Dir = p.dir
	cmd.Env = []string{"HOME=" + p.dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody()}
	return cmd
}

// start starts the server and waits until it takes connections.
func (p *Postgres) start() error {
	cmd := p.command(p.bin, "-D", p.data(), "-p", strconv.Itoa(p.port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off",
		"-c", "dynamic_shared_memory_type=mmap") // in the data folder, where nothing outlives it
	proc, err := StartServer(cmd, "Address already in use",
		func(p *Process) bool { return p.Printed("database system is ready to accept connections") })
	if err != nil {
		return err
	}
	p.proc = proc
	return nil
}

// Stop ends the server and every session with it. Start brings it back with its data.
func (p *Postgres) Stop() {
	p.proc.Signal(syscall.SIGINT) // a fast shutdown; SIGTERM would wait for the sessions
	p.proc.Stop()
}

// Start starts a server again that Stop has ended.
func (p *Postgres) Start(t TB) {
	t.Helper()
	var err error
	wait.For(startLimit, func() bool {
		err = p.start()
		return !errors.Is(err, ErrPortTaken)
	})
	if err != nil {
		t.Fatalf("cannot start PostgreSQL again: %v", err)
	}
}

func (p *Postgres) discard() {
	if p.proc != nil {
		p.Stop()
	}
	_ = os.RemoveAll(p.dir)
}

// Query asks as the superuser.
func (p *Postgres) Query(t TB, sql string) [][]string {
	t.Helper()
	rows, err := p.TryQuery(sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return rows
}

// TryQuery is Query outside of a test.
func (p *Postgres) TryQuery(sql string) ([][]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return pgtest.Query(ctx, pgtest.Login{Addr: p.Addr, User: "postgres", Password: p.Password, Database: "postgres"}, sql)
}

// RaftWithPlugin starts a server with raft storage, initialised, unsealed, and with this database plugin in its
// catalogue.
func RaftWithPlugin(t TB, name string) *Server {
	t.Helper()
	var o RaftOpts
	var dir string
	if !OpenBao(t) {
		var err error
		if dir, err = pluginDir(name); err != nil {
			t.Fatalf("%v", err)
		}
		o.Extra = fmt.Sprintf("plugin_directory = %q\n", dir)
	}
	s := Raft(t, o)
	s.Init(t, 1, 1)
	s.Unseal(t)
	if dir != "" {
		program, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatalf("%v", err)
		}
		s.Must(t, "PUT", "sys/plugins/catalog/database/"+name,
			map[string]string{"sha256": fmt.Sprintf("%x", sha256.Sum256(program)), "command": name})
	}
	return s
}

// MountPostgres mounts the database engine and connects it with p, as the connection pg. Every role may use that.
func (s *Server) MountPostgres(t TB, mount string, p *Postgres) {
	t.Helper()
	s.Must(t, "POST", "sys/mounts/"+mount, map[string]string{"type": "database"})
	s.Must(t, "POST", mount+"/config/pg", map[string]any{
		"plugin_name": PostgresPlugin, "allowed_roles": "*", "username": "postgres", "password": p.Password,
		"connection_url": "postgresql://{{username}}:{{password}}@" + p.Addr + "/postgres?sslmode=disable",
	})
}

// PostgresRole makes a role that creates a login of PostgreSQL for each lease.
func (s *Server) PostgresRole(t TB, mount, name string, ttl, most time.Duration) {
	t.Helper()
	s.Must(t, "POST", mount+"/roles/"+name, map[string]any{
		"db_name": "pg", "default_ttl": ttl.String(), "max_ttl": most.String(),
		"creation_statements": `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
	})
}
