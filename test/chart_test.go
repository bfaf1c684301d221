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
	Containers []struct {
		SecurityContext struct {
			Privileged               bool
			AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
			Capabilities             struct{ Drop, Add []string }
		} `yaml:"securityContext"`
		Resources struct{ Requests, Limits map[string]string }
	}
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
				if s := try(t, nil, "httpctl", "config", "check", write(t, file, text)); s.code != 0 {
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
	for _, c := range pod.Containers {
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

// TestChartRefuses: wrong values are refused where they are given, and what is wrong is said.
func TestChartRefuses(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"agent.tls.secretName=", "agent.tls.secretName: name the secret"},
		{"aggregator.tls.secretName=", "aggregator.tls.secretName: name the secret"},
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
