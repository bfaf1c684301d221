package test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/httpctl/httpctl/pkg/testkit"
)

// TestBadInput runs the programs with what people and disks get wrong. Each
// answer must name what is wrong, where, and what to do, with the right exit code.
func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte("only text\n"))
	_ = z.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	go func() { // speaks no gRPC
		for {
			c, err := taken.Accept()
			if err != nil {
				return // closed by the test
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))
			_ = c.Close()
		}
	}()
	port := taken.Addr().String()
	text, empty := put("text", []byte("only text\n")), put("empty", nil)
	textgz, cut := put("text.gz", packed.Bytes()), put("cut", []byte("\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00"))
	config := func(name, yaml string) string { return put(name+".yaml", []byte(yaml)) }
	garbage := bytes.Repeat([]byte("garbage!"), 4096)
	put("corrupt/httpctl.db", garbage)
	put("spool/spool.db", garbage)
	put("host/host-id", []byte("short\n"))
	put("socket/httpctl.sock", nil)
	aggregator := func(data, listen string) string {
		return config("aggregator-"+data, fmt.Sprintf("aggregator: {data: %s, listen: [%q]}\n", filepath.Join(dir, data), listen))
	}
	agent := func(state, more string) string {
		return config("agent-"+state, fmt.Sprintf("agent: {state: %s, aggregator: \"127.0.0.1:1\", capture: {interfaces: [lo]}%s}\n", filepath.Join(dir, state), more))
	}

	for _, c := range []struct {
		name  string
		args  []string
		code  int
		says  []string
		needs string // "root" for those that capture
	}{
		{"no such interface", []string{"httpctl", "up", "-i", "nosuch0", "--data", dir + "/up"}, 1, []string{"capture on nosuch0: no such interface (there are: any, ", "lo"}, ""},
		{"escape codes in an interface", []string{"httpctl", "up", "-i", "a\x1b[31mb", "--data", dir + "/up"}, 1, []string{`capture on a\x1b[31mb: no such interface`}, ""},
		{"no interface", []string{"httpctl", "up"}, 2, []string{"which interface? Name one with -i"}, ""},
		{"text", []string{"httpctl", "read", text}, 1, []string{"open " + text + ": not a capture file (it is text; pcap and pcapng are read, gzip too)"}, ""},
		{"empty file", []string{"httpctl", "read", empty}, 1, []string{"not a capture file (it is empty"}, ""},
		{"packed text", []string{"httpctl", "read", textgz}, 1, []string{"not a capture file (it is gzip with text"}, ""},
		{"cut in the header", []string{"httpctl", "read", cut}, 1, []string{"not a capture file (it is cut within its header"}, ""},
		{"directory", []string{"httpctl", "read", dir}, 1, []string{dir + ": is a directory (name the capture files in it)"}, ""},
		{"missing file", []string{"httpctl", "read", dir + "/missing"}, 1, []string{"no such file or directory (check the name; - is standard input)"}, ""},
		{"empty standard input", []string{"httpctl", "read", "-"}, 1, []string{"open standard input: not a capture file (it is empty"}, ""},
		{"filter without a value", []string{"httpctl", "top", "section", "--filter", "section"}, 2, []string{"--filter section: want KEY=VALUE"}, ""},
		{"replay of text", []string{"httpctl", "up", "--replay", text, "--data", dir + "/up"}, 1, []string{"not a capture file"}, ""},
		{"unknown command", []string{"httpctl", "dashbord"}, 2, []string{`unknown command "dashbord"; did you mean "dashboard"?`, "See httpctl --help."}, ""},
		{"unknown flag", []string{"httpctl", "alerts", "--sinse", "1h"}, 2, []string{"unknown flag: --sinse; did you mean --since?"}, ""},
		{"unknown flag of a daemon", []string{"httpctl-agent", "--nonsense"}, 2, []string{"nonsense"}, ""},
		{"nothing listens", []string{"httpctl", "hosts", "--aggregator", "127.0.0.1:1"}, 3, []string{"cannot reach the aggregator at 127.0.0.1:1: ", "connection refused (nothing listens there)", "Start one (httpctl-aggregator, or sudo httpctl up -i IFACE)"}, ""},
		{"no socket", []string{"httpctl", "hosts", "--aggregator", "unix:" + dir + "/no.sock"}, 3, []string{"no aggregator runs on that data directory"}, ""},
		{"another protocol", []string{"httpctl", "hosts", "--aggregator", port}, 3, []string{"cannot reach the aggregator at " + port, "("}, ""},
		{"plain text over a network", []string{"httpctl", "hosts", "--aggregator", "192.0.2.1:7420"}, 2, []string{"plain text is for loopback addresses and Unix sockets only"}, ""},
		{"half of TLS", []string{"httpctl", "hosts", "--tls-ca", text}, 2, []string{"--tls-cert is missing"}, ""},
		{"port taken", []string{"httpctl-aggregator", "--config", aggregator("port", port)}, 1, []string{"listen on " + port + ": address already in use: stop the program that has it (ss -ltnp shows which), or choose another port"}, ""},
		{"address of another host", []string{"httpctl-aggregator", "--config", aggregator("plain", "192.0.2.1:7420")}, 2, []string{"aggregator-plain.yaml:1: aggregator.listen: 192.0.2.1:7420 is not a loopback address", "set aggregator.tls.cert_file"}, ""},
		{"agent in plain text over a network", []string{"httpctl-agent", "--config", config("net", "agent:\n  aggregator: 192.0.2.1:7420\n  capture: {interfaces: [lo]}\n")}, 2, []string{"net.yaml:2: agent.aggregator: 192.0.2.1:7420 is not a loopback address", "set agent.tls.cert_file"}, ""},
		{"socket's place taken", []string{"httpctl-aggregator", "--config", aggregator("socket", "127.0.0.1:0")}, 1, []string{"there is a file of that name that is no socket; move it away"}, ""},
		{"corrupt database", []string{"httpctl-aggregator", "--config", aggregator("corrupt", "127.0.0.1:0")}, 1, []string{"the store is damaged", "(mv " + dir + "/corrupt/httpctl.db " + dir + "/corrupt/httpctl.db.damaged)"}, ""},
		{"corrupt spool", []string{"httpctl-agent", "--config", agent("spool", "")}, 1, []string{"the spool is damaged", "(mv " + dir + "/spool/spool.db " + dir + "/spool/spool.db.damaged)"}, "root"},
		{"corrupt host id", []string{"httpctl-agent", "--config", agent("host", "")}, 1, []string{"host/host-id: it does not hold 32 hexadecimal digits; restore it, or remove it"}, "root"},
		{"data directory is a file", []string{"httpctl-aggregator", "--config", aggregator("text", "127.0.0.1:0")}, 1, []string{"make the data directory (aggregator.data): mkdir " + dir + "/text: not a directory"}, ""},
		{"unknown key", []string{"httpctl-agent", "--config", config("key", "timeout: 2s\ntimeot: 3s\n")}, 2, []string{`key.yaml:2: timeot: there is no such key; did you mean "timeout"?`}, ""},
		{"wrong type and wrong value", []string{"httpctl", "config", "check", config("many", "timeout: 3\nagent:\n  capture: {interfaces: lo, ports: [x]}\nagregator: {}\n")}, 1,
			[]string{`many.yaml:1: timeout: "3" has no unit`, `many.yaml:3: agent.capture.interfaces: "lo" stands where a list is wanted`, "many.yaml:3: agent.capture.ports[0]", `did you mean "aggregator"?`}, ""},
		{"YAML bomb", []string{"httpctl", "config", "check", config("bomb", "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n")}, 1, []string{"bomb.yaml:1: anchors, aliases, merge keys"}, ""},
		{"deep YAML", []string{"httpctl", "config", "check", config("deep", strings.Repeat("[", 100_000))}, 1, []string{"deep.yaml:1: nested deeper than 64 levels"}, ""},
		{"large YAML", []string{"httpctl", "config", "check", config("large", strings.Repeat("#", 300_000))}, 1, []string{"the file is larger than 256KiB"}, ""},
		{"no text", []string{"httpctl", "config", "check", config("binary", "timeout: \xff\xfe\n")}, 1, []string{"binary.yaml:1: not UTF-8 text"}, ""},
		{"missing configuration", []string{"httpctl-aggregator", "--config", dir + "/none.yaml"}, 2, []string{"open " + dir + "/none.yaml: no such file or directory"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.needs == "root" && os.Geteuid() != 0 {
				t.Skip("needs root, to capture (CAP_NET_RAW)")
			}
			got := try(t, nil, c.args...)
			judgeMessage(t, got, c.code, c.says)
		})
	}
	if left, err := os.ReadDir(dir + "/up"); err == nil {
		t.Errorf("httpctl up that could not capture left %v behind", left)
	}
	for _, name := range []string{"corrupt/httpctl.db", "spool/spool.db"} {
		if now, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(now, garbage) {
			t.Errorf("a damaged %s was changed by the program that refused it", name)
		}
	}
}

// judgeMessage reads what a program said as an operator does.
func judgeMessage(t *testing.T, got said, code int, says []string) {
	t.Helper()
	all := got.stdout + got.stderr
	if got.code != code {
		t.Errorf("exit %d, want %d:\n%s", got.code, code, all)
	}
	for _, part := range says {
		if !strings.Contains(got.stderr, part) {
			t.Errorf("it does not say %q:\n%s", part, got.stderr)
		}
	}
	for _, never := range []string{"goroutine ", "panic:", "runtime error", "0xc0", "strconv.", "*errors.", "rpc error", "desc =", "\x1b", "%!"} {
		if strings.Contains(all, never) {
			t.Errorf("%q has no place in a message:\n%s", never, all)
		}
	}
}

// TestNoPrivilege: who may not capture is told which capability is missing and how to grant it.
func TestNoPrivilege(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become a user without privileges")
	}
	const nobody = 65534
	dir := worldReadable(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	unprivileged := func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	judgeMessage(t, try(t, unprivileged, "httpctl", "up", "-i", "lo", "--data", dir+"/data"), 1,
		[]string{"CAP_NET_RAW", "run it as root", "sudo setcap cap_net_raw+ep " + program(t, "httpctl")})
	foreign := worldReadable(t)
	recording := filepath.Join(foreign, "recording.pcap.gz")
	data, err := os.ReadFile("../demo/recording.pcap.gz")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recording, data, 0o644); err != nil {
		t.Fatal(err)
	}
	judgeMessage(t, try(t, unprivileged, "httpctl", "up", "--replay", recording, "--data", foreign), 1,
		[]string{"open store " + foreign + "/httpctl.db: open: permission denied; the user of this program must be able to write there"})
	judgeMessage(t, try(t, unprivileged, "httpctl", "up", "--replay", recording, "--data", foreign+"/sub"), 1,
		[]string{"make the data directory", "permission denied"})
}

// TestWrongTLS dials a TLS port without, and with certificates of another authority, and the other way round.
func TestWrongTLS(t *testing.T) {
	names := map[string]netip.Addr{"center": netip.MustParseAddr("127.0.0.1"), "web": {}}
	ours, theirs := testkit.Certificates(t, names), testkit.Certificates(t, names)
	files := func(dir, name string) string {
		return fmt.Sprintf("  tls: {cert_file: %[1]s/%[2]s.pem, key_file: %[1]s/%[2]s.key, ca_file: %[1]s/ca.pem}\n", dir, name)
	}
	flags := func(ca, dir string) []string {
		return []string{"--tls-ca", ca + "/ca.pem", "--tls-cert", dir + "/web.pem", "--tls-key", dir + "/web.key"}
	}
	serve := func(tls string) (address string) {
		address = freePort(t)
		b := launch(t, "httpctl-aggregator", "--config", write(t, "a.yaml", "aggregator:\n  data: "+t.TempDir()+"\n  listen: ["+address+"]\n"+tls))
		b.says(t, "address="+address)
		return address
	}
	secure, plain := serve(files(ours, "center")+"  roles: {viewer: [web]}\n"), serve("")
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"right", append([]string{"--aggregator", secure}, flags(ours, ours)...), 0, nil},
		{"plain to TLS", []string{"--aggregator", secure}, 3, []string{"one end may speak TLS and the other not"}},
		{"TLS to plain", append([]string{"--aggregator", plain}, flags(ours, ours)...), 3, []string{"plain text is spoken there"}},
		{"server of another authority", append([]string{"--aggregator", secure}, flags(theirs, ours)...), 3, []string{"its certificate is of an authority that this end does not know"}},
		{"client of another authority", append([]string{"--aggregator", secure}, flags(ours, theirs)...), 3, []string{"this end's certificate|refuses this certificate"}},
		{"another name", append([]string{"--aggregator", secure, "--tls-server-name", "web.example.org"}, flags(ours, ours)...), 3, []string{"its certificate carries another name"}},
		{"missing file", append([]string{"--aggregator", secure, "--tls-server-name", "center"}, flags(ours, "/nonexistent")...), 2, []string{"open /nonexistent/web.pem: no such file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := try(t, nil, append([]string{"httpctl", "hosts"}, c.args...)...)
			if len(c.says) == 1 && strings.Contains(c.says[0], "|") {
				a, b, _ := strings.Cut(c.says[0], "|")
				if !strings.Contains(got.stderr, a) && !strings.Contains(got.stderr, b) {
					t.Errorf("it says neither %q nor %q:\n%s", a, b, got.stderr)
				}
				c.says = nil
			}
			judgeMessage(t, got, c.code, c.says)
		})
	}
}

// TestHostileStrings: what hosts, paths and user agents hold never reaches a terminal or CSV raw, and JSON keeps it.
func TestHostileStrings(t *testing.T) {
	const agentName = "evil\x1b]0;owned\a \u202eright<b>"
	c := testkit.NewConversation("192.0.2.1:40000", "192.0.2.2:80")
	c.Open()
	c.ToServer("GET /a\x1b[2J\xff/b HTTP/1.1\r\nHost: shop.example.org\r\nUser-Agent: " + agentName + "\r\n\r\n")
	c.ToClient("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	c.Close()
	file := testkit.WriteFile(t, c.Frames...)
	for _, args := range [][]string{{}, {"-o", "wide"}, {"-o", "csv"}, {"-o", "json"}, {"--exchanges"}} {
		got := try(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, "FORCE_COLOR=0") }, append([]string{"httpctl", "read", file}, args...)...)
		judgeMessage(t, got, 0, nil)
		if strings.ContainsAny(got.stdout, "\a\u202e") || !utf8.ValidString(got.stdout) {
			t.Errorf("read %v writes what a terminal acts on: %q", args, got.stdout)
		}
	}
	var x struct {
		UserAgent string `json:"user_agent"`
	}
	if got := try(t, nil, "httpctl", "read", "--exchanges", file); json.Unmarshal([]byte(got.stdout), &x) != nil || x.UserAgent != agentName {
		t.Errorf("user_agent = %q, want %q; %s", x.UserAgent, agentName, got.stdout)
	}
}

// TestDiskFull: with a full disk the aggregator stores nothing, says so, and the agent loses nothing.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system and to capture")
	}
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("needs a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
	address := freePort(t)
	const interval = "dashboard_bucket_size: 1s\naverage_bucket_size: 10s\n"
	center := launch(t, "httpctl-aggregator", "--config", write(t, "a.yaml", interval+"aggregator: {data: "+small+", listen: [\""+address+"\"]}\n"))
	center.says(t, "address="+address)
	fill := filepath.Join(small, "fill")
	if err := os.WriteFile(fill, make([]byte, 8<<20), 0o600); err == nil {
		t.Fatal("the small file system takes a large file")
	}
	agent := launch(t, "httpctl-agent", "--config", write(t, "b.yaml", interval+"agent: {state: "+t.TempDir()+", aggregator: \""+address+"\", capture: {interfaces: [lo]}}\n"))
	center.says(t, "the store fails; agents keep their buckets and send them again")
	eventually(t, "readers are told", func() error {
		if got := try(t, nil, "httpctl", "dashboard", "--once", "-o", "json", "--aggregator", address); !strings.Contains(got.stdout, "buckets cannot be stored since") || !strings.Contains(got.stdout, "no space left on device") {
			return fmt.Errorf("%s%s", got.stdout, got.stderr)
		}
		return nil
	})
	time.Sleep(2 * time.Second) // some buckets wait
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	center.says(t, "buckets are stored again")
	if code := agent.stop(t, syscall.SIGTERM); code != 0 || strings.Contains(agent.out.String(), "stay in the spool") {
		t.Errorf("the agent ended with %d and did not deliver all:\n%s\nthe aggregator:\n%s", code, agent.out.String(), center.out.String())
	}
	if code := center.stop(t, syscall.SIGTERM); code != 0 || strings.Count(center.out.String(), "the store fails") != 1 {
		t.Errorf("the aggregator ended with %d, or said more than once that the store fails:\n%s", code, center.out.String())
	}
}
