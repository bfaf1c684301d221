package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/httpctl/httpctl/pkg/config"
)

const chart = "../deploy/helm/httpctl"

// chartTool finds a tool that `make chart` installs; there, the test does not pass without.
func chartTool(t *testing.T, name string) string {
	t.Helper()
	if path, err := filepath.Abs("../bin/tools/" + name); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("HTTPCTL_CHART") == "needed" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skipf("needs %s, which is not installed: make chart does so", name)
	}
	return path
}

// helm runs it with a home of its own.
func helm(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.Command(chartTool(t, "helm"), args...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err = cmd.Run()
	return out.String(), problems.String(), err
}

// object is what the test looks at of an object of Kubernetes.
type object struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Spec     struct {
		Template             struct{ Spec podSpec }
		VolumeClaimTemplates []any `yaml:"volumeClaimTemplates"`
		PolicyTypes          []string
	}
}

type podSpec struct {
	HostNetwork                  bool  `yaml:"hostNetwork"`
	HostPID                      bool  `yaml:"hostPID"`
	AutomountServiceAccountToken *bool `yaml:"automountServiceAccountToken"`
	SecurityContext              struct {
		RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
		RunAsUser      int                   `yaml:"runAsUser"`
		SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Containers     []container
	InitContainers []container `yaml:"initContainers"`
	Volumes        []struct {
		Name   string
		Secret struct {
			SecretName string `yaml:"secretName"`
		}
	}
}

type container struct {
	Command, Args   []string
	SecurityContext struct {
		Privileged               bool
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop, Add []string }
	} `yaml:"securityContext"`
	Resources struct{ Requests, Limits map[string]string }
}

// TestChart renders the chart with each of its example values, has helm and kubectl-validate
// look at it, and the programs at the settings that come of it.
func TestChart(t *testing.T) {
	validate := chartTool(t, "kubectl-validate")
	examples, err := filepath.Glob(chart + "/ci/*-values.yaml")
	if err != nil || len(examples) < 4 {
		t.Fatalf("example values: %v, %v", examples, err)
	}
	valid := func(text, version string) (string, error) {
		t.Helper()
		out, err := exec.Command(validate, "--version", version, write(t, "rendered.yaml", text)).CombinedOutput()
		return string(out), err
	}
	// What init containers have made by the time that the programs read their settings.
	data, state := t.TempDir(), t.TempDir()
	commanded(t, "httpctl", "ca", "init", "--data", data, "--name", "127.0.0.1")
	if err := os.Mkdir(filepath.Join(state, "tls"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "tls", "agent.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := strings.NewReplacer("/var/lib/httpctl-agent", state, "/var/lib/httpctl", data)
	for _, values := range examples {
		name := filepath.Base(values)
		if out, problems, err := helm(t, "lint", "--strict", chart, "--values", values); err != nil {
			t.Errorf("helm lint with %s: %v\n%s%s", name, err, out, problems)
		}
		text, problems, err := helm(t, "template", "watch", chart, "--namespace", "monitoring", "--values", values)
		if err != nil {
			t.Errorf("helm template with %s: %v\n%s", name, err, problems)
			continue
		}
		for _, version := range []string{"1.25", "1.30"} {
			if out, err := valid(text, version); err != nil {
				t.Errorf("kubectl-validate for %s with %s: %v\n%s", version, name, err, out)
			}
		}
		for _, o := range objects(t, text) {
			if o.Metadata.Namespace != "monitoring" {
				t.Errorf("%s: %s %s is in namespace %q", name, o.Kind, o.Metadata.Name, o.Metadata.Namespace)
			}
			for file, text := range o.Data {
				if s := try(t, nil, "httpctl", "config", "check", write(t, file, made.Replace(text))); s.code != 0 {
					t.Errorf("%s: settings %s have faults: %s%s\n%s", name, file, s.stdout, s.stderr, text)
				}
			}
			confined(t, name, o)
		}
		// It can fail: a field of the last object that does not exist.
		if out, err := valid(text+"\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatum: {}\n", "1.30"); err == nil || !strings.Contains(out, "datum") {
			t.Errorf("kubectl-validate finds no fault in an unknown field: %v\n%s", err, out)
		}
	}
}

// confined wants of the pods what docs/operations.md says of them.
func confined(t *testing.T, name string, o object) {
	t.Helper()
	pod := o.Spec.Template.Spec
	var add []string
	switch o.Kind {
	case "DaemonSet":
		add = []string{"NET_RAW"}
		if !pod.HostNetwork {
			t.Errorf("%s: the agent does not see the node's network", name)
		}
	case "StatefulSet":
		ephemeral := strings.HasPrefix(name, "ephemeral")
		if pod.HostNetwork || !pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.RunAsUser == 0 || (len(o.Spec.VolumeClaimTemplates) == 1) == ephemeral {
			t.Errorf("%s: the aggregator is %+v", name, o.Spec)
		}
	default:
		return
	}
	if pod.HostPID || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken || pod.SecurityContext.SeccompProfile.Type != "RuntimeDefault" || len(pod.Containers) != 1 {
		t.Errorf("%s: the pod of %s %s is %+v", name, o.Kind, o.Metadata.Name, pod)
	}
	for i, c := range append(pod.Containers, pod.InitContainers...) {
		if i == len(pod.Containers) {
			add = nil // to let a host in takes no capability
		}
		s := c.SecurityContext
		if s.Privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem ||
			!slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || !slices.Equal(s.Capabilities.Add, add) {
			t.Errorf("%s: the container of %s may %+v", name, o.Metadata.Name, s)
		}
		if c.Resources.Requests["memory"] == "" || c.Resources.Limits["memory"] == "" {
			t.Errorf("%s: the container of %s takes %+v", name, o.Metadata.Name, c.Resources)
		}
	}
}

// TestChartEnrols runs what the pods of a chart without certificates run, but for the paths: the authority is made,
// and a node that has the token comes in, once.
func TestChartEnrols(t *testing.T) {
	text, problems, err := helm(t, "template", "watch", chart, "--namespace", "monitoring")
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, problems)
	}
	dir, listen := t.TempDir(), freePort(t)
	data, state := filepath.Join(dir, "data"), filepath.Join(dir, "state")
	token := filepath.Join(dir, "token")
	settings := map[string]string{}
	var authority, enrol []string
	for _, o := range objects(t, text) {
		for file, text := range o.Data {
			settings[file] = write(t, file, strings.NewReplacer("/var/lib/httpctl-agent", state, "/var/lib/httpctl", data,
				"watch-httpctl-aggregator-pods.monitoring.svc:7420", listen, ":7420", listen).Replace(text))
		}
		for _, c := range o.Spec.Template.Spec.InitContainers {
			switch o.Kind {
			case "StatefulSet":
				authority = append(c.Command, c.Args...)
			case "DaemonSet":
				enrol = append(c.Command, c.Args...)
			}
		}
		for _, v := range o.Spec.Template.Spec.Volumes {
			if v.Name == "token" && v.Secret.SecretName != "watch-httpctl-enroll" {
				t.Errorf("the token is of the secret %q", v.Secret.SecretName)
			}
		}
	}
	if len(authority) == 0 || len(enrol) == 0 {
		t.Fatalf("the pods run %q and %q first", authority, enrol)
	}
	run := func(program string, args []string) string {
		t.Helper()
		var with []string
		for _, a := range args {
			with = append(with, strings.NewReplacer("/var/lib/httpctl", data, "/run/httpctl/enroll/token", token, "/etc/httpctl/agent.yaml", settings["agent.yaml"]).Replace(a))
		}
		return commanded(t, append([]string{program}, with...)...)
	}
	said := run("httpctl", append(authority[1:], "--name", "127.0.0.1")) // where this test reaches it
	if !strings.Contains(said, "watch-httpctl-aggregator-pods.monitoring.svc") || !strings.Contains(said, "watch-httpctl-aggregator.monitoring.svc") {
		t.Errorf("the aggregator has the names\n%s", said)
	}
	center := launch(t, "httpctl-aggregator", "--config", settings["aggregator.yaml"])
	center.says(t, "serving")
	made := commanded(t, "httpctl", "enroll", "create", "--ttl", "365d", "--uses", "1000", "--aggregator", "unix:"+config.SocketPath(data), "--address", listen)
	if err := os.WriteFile(token, []byte(made), 0o400); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"enrolled as", "enrolled already as"} {
		if said := run("httpctl-agent", enrol); !strings.HasPrefix(said, want) {
			t.Errorf("the node says %q, want %q", said, want)
		}
	}
}

// TestChartRefuses: wrong values are refused where they are given, and what is wrong is said.
func TestChartRefuses(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"agent.tls.secretName=", "name both"},
		{"aggregator.tls.secretName=", "name both"},
		{"aggregator.config.roles=null", "aggregator.config.roles: say which"},
		{"aggregator.enabled=false", "agent.aggregator: name the aggregator to deliver to"},
		{"agent.interface=eth0", "interface"},
		{"image.pullPolicy=Sometimes", "pullPolicy"},
		{"agent.config.tls.ca_file=/x", "config"},
		{"aggregator.config.listen=:1", "config"},
		{"settings.agent.memory=1MiB", "settings"},
		{"aggregator.persistence.size=much", "size"},
		{"agent.interfaces=null", "interfaces"},
		{"aggregator.service.type=Pigeon", "type"},
	} {
		_, problems, err := helm(t, "template", "watch", chart, "--values", chart+"/ci/certificates-values.yaml", "--set", c.set)
		if err == nil || !strings.Contains(problems, c.want) {
			t.Errorf("helm template --set %s: %v, %q; want %q", c.set, err, problems, c.want)
		}
	}
}

// objects decodes what helm rendered.
func objects(t *testing.T, text string) (all []object) {
	t.Helper()
	for _, part := range strings.Split("\n"+text, "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(part), &o); err != nil {
			t.Fatalf("rendered: %v\n%s", err, part)
		}
		if !reflect.ValueOf(o).IsZero() {
			all = append(all, o)
		}
	}
	if len(all) == 0 {
		t.Fatalf("nothing is rendered:\n%s", text)
	}
	return all
}
