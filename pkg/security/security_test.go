package security

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/httpctl/httpctl/pkg/testkit"
)

func TestSplitAddress(t *testing.T) {
	f := func(in, network, address string) {
		t.Helper()
		n, a, err := SplitAddress(in)
		if n != network || a != address || (err == nil) != (network != "") {
			t.Errorf("SplitAddress(%q) = %q, %q, %v, want %q, %q", in, n, a, err, network, address)
		}
	}
	f("127.0.0.1:7420", "tcp", "127.0.0.1:7420")
	f("[2001:db8::1]:7420", "tcp", "[2001:db8::1]:7420")
	f("unix:/run/httpctl.sock", "unix", "/run/httpctl.sock")
	f("unix:///run/httpctl.sock", "unix", "/run/httpctl.sock")
	f(":7420", "tcp", ":7420")
	f("unix:", "", "")
	f("example.org", "", "")
	f("example.org:", "", "")
	f("example.org:no-such-port", "", "")
	f("example.org:70000", "", "")
	f("2001:db8::1:7420", "", "")
	f("", "", "")
}

func TestPlainTextStaysOnTheHost(t *testing.T) {
	files := TLS{CertFile: "a", KeyFile: "b", CAFile: "c"}
	f := func(address string, local bool) {
		t.Helper()
		if got := IsLocal(address); got != local {
			t.Errorf("IsLocal(%q) = %v, want %v", address, got, local)
		}
		err := CheckAddress("uplink.aggregator", address, "uplink.tls", TLS{})
		if (err == nil) != local {
			t.Errorf("CheckAddress(%q) without TLS = %v", address, err)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), "uplink.aggregator: ") || !strings.Contains(err.Error(), "uplink.tls.cert_file")) {
			t.Errorf("CheckAddress(%q) = %q, want both settings named", address, err)
		}
		if err := CheckAddress("a", address, "t", files); err != nil {
			t.Errorf("CheckAddress(%q) with TLS = %v", address, err)
		}
	}
	f("127.0.0.1:7420", true)
	f("127.8.9.1:7420", true)
	f("[::1]:7420", true)
	f("[::ffff:127.0.0.1]:7420", true)
	f("localhost:7420", true)
	f("unix:/run/x", true)
	f(":7420", false)
	f("0.0.0.0:7420", false)
	f("[::]:7420", false)
	f("192.0.2.1:7420", false)
	f("example.org:7420", false)
	f("localhost.example.org:7420", false)
	if err := CheckAddress("a", "nonsense", "t", files); err == nil {
		t.Error("CheckAddress accepts an address without a port")
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode().Type() != fs.ModeSocket || fi.Mode().Perm() != SocketMode {
		t.Fatalf("socket: %v, %v, want mode 0660", fi.Mode(), err)
	}
	if _, err := Listen(t.Context(), "unix:"+path); err == nil || !strings.Contains(err.Error(), "another program answers") {
		t.Errorf("second Listen: %v, want that another program answers", err)
	}
	// What a killed program leaves behind: a socket that nobody listens on.
	stale := path + "2"
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	u.SetUnlinkOnClose(false)
	u.Close()
	l2, err := Listen(t.Context(), "unix:"+stale)
	if err != nil {
		t.Fatalf("Listen over a stale socket: %v", err)
	}
	c, err := net.Dial("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for range 2 {
		l2.Close()
	}
	l.Close()
	entries, _ := os.ReadDir(filepath.Dir(path))
	if len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}

	file := path + "3"
	os.WriteFile(file, []byte("precious"), 0o600)
	if _, err := Listen(t.Context(), "unix:"+file); err == nil {
		t.Error("Listen replaced a file that is no socket")
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file holds %q now", b)
	}
	for _, bad := range []string{"unix:/no/such/directory/s", "unix:/" + strings.Repeat("x", 120)} {
		if _, err := Listen(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "directory") {
			t.Errorf("Listen(%q) = %v, want an error about the directory", bad, err)
		}
	}
}

func TestPortTaken(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(t.Context(), l.Addr().String()); err == nil || !strings.Contains(err.Error(), "address already in use: stop the program that has it") || strings.Count(err.Error(), l.Addr().String()) != 1 {
		t.Errorf("Listen on a taken port: %v", err)
	}
	if _, err := Listen(t.Context(), "192.0.2.1:0"); err == nil || !strings.Contains(err.Error(), "does not have that address") {
		t.Errorf("Listen on an address of another host: %v", err)
	}
}

func files(dir, name string) TLS {
	return TLS{CertFile: filepath.Join(dir, name+".pem"), KeyFile: filepath.Join(dir, name+".key"), CAFile: filepath.Join(dir, "ca.pem")}
}

// shake makes a handshake and returns both ends' errors and what the server knows of the client.
func shake(t *testing.T, server, client credentials.TransportCredentials, name string) (identity string, serverErr, clientErr error) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Minute))
		var info credentials.AuthInfo
		var sc net.Conn
		if sc, info, serverErr = server.ServerHandshake(c); serverErr == nil {
			identity = PeerIdentity(info.(credentials.TLSInfo).State.PeerCertificates[0])
			_, serverErr = sc.Write([]byte("x"))
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Minute))
	cc, _, clientErr := client.ClientHandshake(context.Background(), name, c)
	if clientErr == nil {
		_, clientErr = io.ReadFull(cc, make([]byte, 1)) // TLS 1.3: a refused certificate shows with the first read
	}
	c.Close()
	<-done
	return identity, serverErr, clientErr
}

func TestMutualTLS(t *testing.T) {
	names := map[string]netip.Addr{"aggregator": netip.MustParseAddr("127.0.0.1"), "agent": {}}
	dir, other := testkit.Certificates(t, names), testkit.Certificates(t, names)
	server, err := ServerCredentials(files(dir, "aggregator"), nil)
	if err != nil {
		t.Fatal(err)
	}
	creds := func(f TLS) credentials.TransportCredentials {
		t.Helper()
		c, err := ClientCredentials(f)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if id, serr, cerr := shake(t, server, creds(files(dir, "agent")), "aggregator:7420"); id != "agent" || serr != nil || cerr != nil {
		t.Errorf("identity %q, %v, %v, want agent and no error", id, serr, cerr)
	}
	if _, _, cerr := shake(t, server, creds(files(dir, "agent")), "elsewhere.example.org:7420"); cerr == nil {
		t.Error("the client takes a certificate of another name")
	}
	f := files(dir, "agent")
	f.ServerName = "aggregator"
	if _, serr, cerr := shake(t, server, creds(f), "aggregator"); serr != nil || cerr != nil {
		t.Errorf("with server_name: %v, %v", serr, cerr)
	}
	if _, serr, cerr := shake(t, server, creds(files(other, "agent")), "aggregator:7420"); serr == nil && cerr == nil {
		t.Error("certificates of another authority are taken")
	}
	f = files(other, "agent")
	f.CAFile = filepath.Join(dir, "ca.pem") // trusts the server, but is not trusted
	if _, serr, _ := shake(t, server, creds(f), "aggregator:7420"); serr == nil {
		t.Error("the server takes a client of another authority")
	}

	// Renewed files are in force at the next connection; half-written ones change nothing.
	f = files(dir, "aggregator")
	copyFile := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		old, _ := os.ReadFile(to)
		if err := os.WriteFile(to, append(b, bytes.Repeat([]byte("\n"), 1+max(0, len(old)-len(b)))...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(filepath.Join(other, "aggregator.pem"), f.CertFile)
	if _, serr, cerr := shake(t, server, creds(files(dir, "agent")), "aggregator:7420"); serr != nil || cerr != nil {
		t.Errorf("with a certificate that does not fit its key yet: %v, %v", serr, cerr)
	}
	copyFile(filepath.Join(other, "aggregator.key"), f.KeyFile)
	copyFile(filepath.Join(other, "ca.pem"), f.CAFile)
	if _, serr, cerr := shake(t, server, creds(files(other, "agent")), "aggregator:7420"); serr != nil || cerr != nil {
		t.Errorf("with renewed files: %v, %v", serr, cerr)
	}
}

func TestTLSMistakes(t *testing.T) {
	dir := testkit.Certificates(t, map[string]netip.Addr{"a": {}})
	good := files(dir, "a")
	f := func(change func(*TLS), want string) {
		t.Helper()
		x := good
		change(&x)
		_, serr := ServerCredentials(x, nil)
		_, cerr := ClientCredentials(x)
		for _, err := range []error{serr, cerr} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want an error with %q", x, err, want)
			}
		}
	}
	f(func(x *TLS) { x.CertFile = "" }, "cert_file is missing")
	f(func(x *TLS) { x.KeyFile = "" }, "key_file is missing")
	f(func(x *TLS) { x.CAFile = "" }, "ca_file is missing")
	f(func(x *TLS) { x.CertFile += "x" }, "no such file")
	f(func(x *TLS) { x.CAFile = x.KeyFile }, "no certificate in PEM")
	if err := (TLS{ServerName: "x"}).Validate(); err == nil {
		t.Error("server_name without files is accepted")
	}
	if got := good.At("unix:/x"); !got.IsZero() {
		t.Errorf("At(unix) = %+v, want plain text", got)
	}
	if got := good.At("192.0.2.1:1"); got != good {
		t.Errorf("At = %+v, want the files", got)
	}
}
