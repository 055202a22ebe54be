// Command kubeapiserver is the real API server of Kubernetes, built from its Go module. Of a cluster it is the only part that the tests
// of vaultexec need; its store is an etcd beside it.
//
// It lives in a module of its own so that Kubernetes's dependencies never reach the go.mod of the product. Kubernetes publishes its
// staging modules under versions of their own and replaces them by folders in its go.mod; here they are replaced by those versions.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
