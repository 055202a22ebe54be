package vault_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/agenticverz/vaultexec/internal/fault"
	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vault"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
	"github.com/agenticverz/vaultexec/internal/wait"
)

const (
	ldapBase  = "dc=shop,dc=example"
	ldapAdmin = "cn=admin," + ldapBase
)

// directory is a slapd of the test's own.
type directory struct {
	url  string
	cmd  *exec.Cmd
	done chan struct{}
}

func (d *directory) stop() {
	_ = d.cmd.Process.Kill()
	<-d.done
}

// startDirectory runs Debian's slapd as a child on a free loopback port, with a configuration and data of its own.
func startDirectory(t *testing.T, admin, password string) *directory {
	t.Helper()
	slapd, slapadd := needs.Program(t, "slapd"), needs.Program(t, "slapadd")
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "slapd.conf")
	rewrite(t, conf, fmt.Sprintf(`
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile %[1]s/slapd.pid
database mdb
maxsize 10485760
suffix %[2]q
rootdn %[3]q
rootpw %[4]s
directory %[1]s/data
`, dir, ldapBase, ldapAdmin, admin))
	entries := filepath.Join(dir, "entries.ldif")
	rewrite(t, entries, fmt.Sprintf(`dn: %[1]s
objectClass: dcObject
objectClass: organization
dc: shop
o: shop

dn: ou=people,%[1]s
objectClass: organizationalUnit
ou: people

dn: ou=groups,%[1]s
objectClass: organizationalUnit
ou: groups

dn: uid=ann,ou=people,%[1]s
objectClass: inetOrgPerson
uid: ann
cn: Ann
sn: Ann
userPassword: %[2]s

dn: cn=ops,ou=groups,%[1]s
objectClass: groupOfNames
cn: ops
member: uid=ann,ou=people,%[1]s
`, ldapBase, password))
	if out, err := exec.Command(slapadd, "-f", conf, "-l", entries).CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, vaulttest.Redact(string(out)))
	}
	for range 5 {
		if d := tryDirectory(t, slapd, conf); d != nil {
			return d
		}
	}
	t.Fatal("slapd found no free port")
	return nil
}

// tryDirectory gives up when somebody else was faster at the port.
func tryDirectory(t *testing.T, slapd, conf string) *directory {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(addr)
	if _, err := strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	d := &directory{url: "ldap://" + addr, cmd: exec.Command(slapd, "-f", conf, "-h", "ldap://"+addr, "-d", "0"), done: make(chan struct{})}
	if err := vaulttest.StartTied(d.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.done)
	}()
	t.Cleanup(d.stop)
	ended := func() bool {
		select {
		case <-d.done:
			return true
		default:
			return false
		}
	}
	wait.Until(t, 30*time.Second, "slapd to listen", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil || ended()
	})
	if ended() {
		return nil
	}
	return d
}

func TestLDAP(t *testing.T) {
	admin, password := vaulttest.Canary("admin"), vaulttest.Canary("password")
	dir := startDirectory(t, admin, password)
	srv := vaulttest.NewDevWithPlugin(t, "ldap")
	srv.Must(t, "POST", "sys/auth/ldap", map[string]any{"type": "ldap"})
	srv.Must(t, "POST", "auth/ldap/config", map[string]any{
		"url": dir.url, "userdn": "ou=people," + ldapBase, "userattr": "uid", "groupdn": "ou=groups," + ldapBase,
		"binddn": ldapAdmin, "bindpass": admin, "request_timeout": 5,
	})
	srv.Must(t, "POST", "auth/ldap/groups/ops", map[string]any{"policies": "ops"})
	conf := vault.LoginConfig{Method: vault.AuthLDAP, Username: "ann", Password: text(password)}
	s := newSession(t, srv.Addr, conf)
	login(t, s)
	info, err := s.Info(t.Context())
	if err != nil || fmt.Sprint(info.Policies) != "[default ops]" {
		t.Errorf("got %+v, %v", info, err)
	}
	wrong := conf
	wrong.Password = text("wrong")
	refused(t, newSession(t, srv.Addr, wrong).Login(t.Context()), fault.Refused, "ldap at auth/ldap", "--username", "the password")
	wrong = conf
	wrong.Username = "bob"
	refused(t, newSession(t, srv.Addr, wrong).Login(t.Context()), fault.Refused, "--username")
	dir.stop()
	refused(t, newSession(t, srv.Addr, conf).Login(t.Context()), fault.Away)
}
