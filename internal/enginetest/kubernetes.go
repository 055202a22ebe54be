package enginetest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/agenticverz/vaultexec/internal/needs"
	"github.com/agenticverz/vaultexec/internal/vaulttest"
)

// Kubernetes is an API server with its etcd. There are no nodes, no controllers and no pods. Freeze, Thaw, Kill and Restart are about the
// API server; etcd goes on.
type Kubernetes struct {
	program
	caller
	CA   *vaulttest.CA
	Port int

	etcd  program
	admin string
}

var sharedKubernetes shared[*Kubernetes]

// SharedKubernetes is the server that all tests of this binary share, each with a Namespace of its own. It ends with vaulttest.Shutdown.
func SharedKubernetes(t TB) *Kubernetes {
	t.Helper()
	needs.Program(t, "etcd")
	return sharedKubernetes.get(func() *Kubernetes { return startKubernetes(t) })
}

// NewKubernetes starts a server for this test alone.
func NewKubernetes(t TB) *Kubernetes {
	t.Helper()
	needs.Program(t, "etcd")
	k := startKubernetes(t)
	t.Cleanup(k.discard)
	return k
}

func (k *Kubernetes) discard() {
	k.program.discard()
	k.etcd.discard()
}

// PIDs are the API server and its etcd.
func (k *Kubernetes) PIDs() []int { return append(k.program.PIDs(), k.etcd.PIDs()...) }

// Host is the address of the API server, as KUBERNETES_SERVICE_HOST says it.
const Host = "127.0.0.1"

func startKubernetes(t TB) *Kubernetes {
	t.Helper()
	bin, err := apiServerTool.Path(context.Background())
	if err != nil {
		t.Fatalf("%v", err)
	}
	k := &Kubernetes{admin: vaulttest.Canary("kubernetes-admin")}
	if err := k.boot(t, bin); err != nil {
		k.discard()
		t.Fatalf("cannot start Kubernetes: %v", err)
	}
	return k
}

func (k *Kubernetes) boot(t TB, bin string) (err error) {
	if k.dir, err = vaulttest.TempDir("kubernetes"); err != nil {
		return err
	}
	if k.etcd.dir, err = vaulttest.TempDir("etcd"); err != nil {
		return err
	}
	store, err := k.bootEtcd()
	if err != nil {
		return err
	}
	k.CA = vaulttest.NewCA(t, "kubernetes CA")
	pair := k.CA.Server(t, vaulttest.CertOpts{})
	k.CA.File = filepath.Join(k.dir, "ca.pem")
	files := map[string][]byte{"ca.pem": k.CA.PEM, "tokens.csv": []byte(k.admin + ",admin,admin,system:masters\n"), "account.pem": rsaKey()}
	for _, name := range []string{"cert.pem", "key.pem"} { // the pair's own files end with the test that began
		from := map[string]string{"cert.pem": pair.CertFile, "key.pem": pair.KeyFile}[name]
		if files[name], err = os.ReadFile(from); err != nil {
			return err
		}
	}
	for name, b := range files {
		if _, err := write(k.dir, name, b); err != nil {
			return err
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(k.CA.PEM)
	return vaulttest.WithPort(func(port int) error {
		k.Port = port
		k.caller = newCaller("https://"+Host+":"+strconv.Itoa(port), &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			func(h http.Header) { h.Set("Authorization", "Bearer "+k.admin) })
		k.start = func() (*vaulttest.Process, error) {
			cmd := k.command(bin,
				"--etcd-servers="+store, "--bind-address="+Host, "--secure-port="+strconv.Itoa(port),
				"--tls-cert-file=cert.pem", "--tls-private-key-file=key.pem", "--cert-dir="+k.dir,
				"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=account.pem",
				"--service-account-signing-key-file=account.pem", "--token-auth-file=tokens.csv", "--authorization-mode=RBAC",
				"--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none", "--profiling=false")
			return vaulttest.StartServer(cmd, "address already in use", func(*vaulttest.Process) bool {
				status, _, err := k.Do("GET", "/readyz", nil)
				return err == nil && status == http.StatusOK
			})
		}
		k.proc, err = k.start()
		return err
	})
}

// bootEtcd starts etcd and returns its address.
func (k *Kubernetes) bootEtcd() (address string, err error) {
	bin, err := needs.Find("etcd")
	if err != nil {
		return "", err
	}
	return address, vaulttest.WithPort(func(port int) error {
		address = "http://127.0.0.1:" + strconv.Itoa(port)
		peer := "http://127.0.0.1:" + strconv.Itoa(port+1)
		k.etcd.start = func() (*vaulttest.Process, error) {
			cmd := k.etcd.command(bin, "--name=test", "--data-dir=data", "--listen-client-urls="+address, "--advertise-client-urls="+address,
				"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=test="+peer)
			return vaulttest.StartServer(cmd, "address already in use", func(p *vaulttest.Process) bool {
				return p.Printed("ready to serve client requests") || p.Printed("serving insecure client requests")
			})
		}
		k.etcd.proc, err = k.etcd.start()
		return err
	})
}

// rsaKey makes what service account tokens are signed with.
func rsaKey() []byte {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // never, says its documentation
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

// Namespace makes a namespace.
func (k *Kubernetes) Namespace(t TB) string {
	t.Helper()
	b := make([]byte, 5)
	_, _ = rand.Read(b)
	name := "t" + hex.EncodeToString(b)
	k.Must(t, "POST", "/api/v1/namespaces", object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": name}})
	return name
}

type object = map[string]any

// leasesPath is where the Leases of a namespace are.
func leasesPath(namespace string) string {
	return "/apis/coordination.k8s.io/v1/namespaces/" + namespace + "/leases"
}

// Leases makes the Leases NAME-0 … NAME-(n-1), as the manifest does.
func (k *Kubernetes) Leases(t TB, namespace, name string, n int) {
	t.Helper()
	for i := range n {
		k.Must(t, "POST", leasesPath(namespace), object{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
			"metadata": object{"name": leaseName(name, i)}})
	}
}

func leaseName(name string, place int) string { return name + "-" + strconv.Itoa(place) }

// Lease reads one.
func (k *Kubernetes) Lease(t TB, namespace, name string, place int) map[string]any {
	t.Helper()
	return k.Must(t, "GET", leasesPath(namespace)+"/"+leaseName(name, place), nil)
}

// Holders are the holders of the places 0 … n-1 by what the API server says, "" for a place that nobody holds. It is for several
// goroutines, too. A place whose holder has been silent for too long still has its name in it.
func (k *Kubernetes) Holders(namespace, name string, n int) ([]string, error) {
	holders := make([]string, n)
	for i := range holders {
		status, b, err := k.Do("GET", leasesPath(namespace)+"/"+leaseName(name, i), nil)
		if err != nil || status != http.StatusOK {
			return nil, fmt.Errorf("status %d: %w", status, errors.Join(err, errors.New("no Lease")))
		}
		var l struct {
			Spec struct{ HolderIdentity string }
		}
		if err := json.Unmarshal(b, &l); err != nil {
			return nil, err
		}
		holders[i] = l.Spec.HolderIdentity
	}
	return holders, nil
}

// Rule is the rule of a Role: the documented one for the places 0 … n-1, with these verbs in place of get and update.
func Rule(name string, n int, verbs ...string) map[string]any {
	if verbs == nil {
		verbs = []string{"get", "update"}
	}
	names := make([]string, n)
	for i := range names {
		names[i] = leaseName(name, i)
	}
	return object{"apiGroups": []string{"coordination.k8s.io"}, "resources": []string{"leases"}, "resourceNames": names, "verbs": verbs}
}

// Account is what a pod has of its service account.
type Account struct {
	Dir string   // as /var/run/secrets/kubernetes.io/serviceaccount
	Env []string // KUBERNETES_SERVICE_HOST and _PORT
}

// Account makes a service account with a Role of these rules, and the folder of a pod that has it.
func (k *Kubernetes) Account(t TB, namespace string, rules ...map[string]any) *Account {
	t.Helper()
	made := k.Must(t, "POST", "/api/v1/namespaces/"+namespace+"/serviceaccounts", object{"apiVersion": "v1", "kind": "ServiceAccount",
		"metadata": object{"generateName": "app-"}})
	name := made["metadata"].(object)["name"].(string)
	if len(rules) > 0 {
		rbac := "/apis/rbac.authorization.k8s.io/v1/namespaces/" + namespace
		k.Must(t, "POST", rbac+"/roles", object{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
			"metadata": object{"name": name}, "rules": rules})
		k.Must(t, "POST", rbac+"/rolebindings", object{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
			"metadata": object{"name": name}, "roleRef": object{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
			"subjects": []object{{"kind": "ServiceAccount", "name": name, "namespace": namespace}}})
	}
	return k.Pod(t, namespace, name)
}

// Pod makes the folder of a pod that has the service account.
func (k *Kubernetes) Pod(t TB, namespace, account string) *Account {
	t.Helper()
	dir, err := vaulttest.TempDir("serviceaccount")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a := &Account{Dir: dir, Env: []string{"KUBERNETES_SERVICE_HOST=" + Host, "KUBERNETES_SERVICE_PORT=" + strconv.Itoa(k.Port)}}
	for name, text := range map[string]string{"ca.crt": string(k.CA.PEM), "namespace": namespace, "token": k.Token(t, namespace, account)} {
		if _, err := write(dir, name, []byte(text)); err != nil {
			t.Fatalf("%v", err)
		}
	}
	return a
}

// Token has the API server issue a token for a service account, as kubelet does.
func (k *Kubernetes) Token(t TB, namespace, account string) string {
	t.Helper()
	made := k.Must(t, "POST", "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+account+"/token",
		object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": object{"expirationSeconds": 3600}})
	token := made["status"].(object)["token"].(string)
	vaulttest.Secret(token)
	return token
}

// Getenv looks a variable up in Env.
func (a *Account) Getenv(name string) string { return lookup(a.Env, name) }

// SetToken replaces the token, as kubelet does: at once and as a whole.
func (a *Account) SetToken(t TB, token string) {
	t.Helper()
	next, err := write(a.Dir, "token.new", []byte(token))
	if err == nil {
		err = os.Rename(next, filepath.Join(a.Dir, "token"))
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
}

func lookup(env []string, name string) string {
	for _, v := range env {
		if value, found := strings.CutPrefix(v, name+"="); found {
			return value
		}
	}
	return ""
}
