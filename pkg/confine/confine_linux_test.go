//go:build linux && (amd64 || arm64)

package confine

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const childVariable = "HTTPCTL_TEST_CONFINED"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVariable); dir != "" {
		tryAll(dir, os.Args[1], os.Args[2])
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// tryAll confines this process and then tries what is allowed, and what is not: a line for each, with the error.
func tryAll(dir, good, bad string) {
	_, text, _ := net.SplitHostPort(good)
	port, _ := strconv.Atoi(text)
	r, err := Apply(Needs{Write: []string{dir}, Read: []string{"/proc/self", "/not/there"}, Ports: []uint16{uint16(port)}})
	fmt.Println("apply:", err)
	fmt.Println("landlock:", r.Landlock)
	fmt.Println("missing:", r.Missing())
	connect := func(address string) error {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	socket := func(family, kind, protocol int) error {
		fd, err := unix.Socket(family, kind, protocol)
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	}
	open := func(path string) error {
		f, err := os.Open(path)
		if err == nil {
			err = f.Close()
		}
		return err
	}
	for _, try := range []struct {
		name string
		do   func() error
	}{
		{"write", func() error { return os.WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o600) }},
		{"rename", func() error { return os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")) }},
		{"remove", func() error { return os.Remove(filepath.Join(dir, "b")) }},
		{"own process", func() error { return open("/proc/self/stat") }},
		{"connect", func() error { return connect(good) }},
		{"addresses", func() error { _, err := net.InterfaceAddrs(); return err }},
		{"interface", func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			request, err := unix.NewIfreq("lo")
			if err != nil {
				return err
			}
			return unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
		}},
		{"threads", func() error { // of which the system makes new ones
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() { _ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil) })
			}
			wg.Wait()
			return nil
		}},
		{"no other file", func() error { return open("/etc/passwd") }},
		{"no other directory", func() error { return os.WriteFile(filepath.Join(filepath.Dir(dir), "c"), nil, 0o600) }},
		{"no other port", func() error { return connect(bad) }},
		{"no service", func() error { // a port of its choice
			l, err := net.Listen("tcp", bad[:strings.LastIndex(bad, ":")]+":1")
			if err == nil {
				err = l.Close()
			}
			return err
		}},
		{"no packets", func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }},
		{"no raw packets", func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP) }},
		{"no program", func() error { return exec.Command("/proc/self/exe").Run() }},
		{"no execve", func() error { return unix.Exec("/bin/true", []string{"true"}, nil) }},
		{"no ptrace", func() error { return unix.PtraceAttach(os.Getppid()) }},
		{"no namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"no signal", func() error { return unix.Kill(os.Getppid(), 0) }},
		{"no code", func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
			return err
		}},
	} {
		err := try.do()
		answer := "nil"
		switch {
		case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
			answer = "refused"
		case err != nil:
			answer = err.Error()
		}
		fmt.Printf("%s: %s\n", try.name, answer)
	}
	status, _ := os.ReadFile("/proc/self/status")
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks { // every thread
		of, _ := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
		status = append(status, of...)
	}
	for line := range strings.Lines(string(status)) {
		for _, name := range []string{"CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp"} {
			if value, ok := strings.CutPrefix(line, name+":"); ok {
				fmt.Printf("%s: %s\n", name, strings.TrimSpace(value))
			}
		}
	}
}

func TestApply(t *testing.T) {
	listen := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.Addr().String()
	}
	dir := filepath.Join(t.TempDir(), "own")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], listen(), listen())
	child.Env = append(os.Environ(), childVariable+"="+dir)
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "build it with CGO_ENABLED=0") {
		t.Skipf("needs a program without cgo:\n%s", out)
	}
	if strings.Contains(string(out), "apply: seccomp") {
		t.Skipf("needs a kernel that lets seccomp filters be set:\n%s", out)
	}
	landlock := 0
	for line := range strings.Lines(string(out)) {
		name, got, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		want := "nil"
		switch {
		case name == "landlock":
			landlock, _ = strconv.Atoi(got)
			continue
		case name == "missing":
			if landlock >= 4 && got != "" {
				t.Errorf("missing: %s, want nothing", got)
			}
			continue
		case name == "apply":
			want = "<nil>"
		case (name == "no other file" || name == "no other directory") && landlock < 1,
			(name == "no other port" || name == "no service") && landlock < 4:
			t.Logf("%s is not tried: this kernel's Landlock is %d", name, landlock)
			continue
		case strings.HasPrefix(name, "Cap"):
			want = "0000000000000000"
		case name == "NoNewPrivs":
			want = "1"
		case name == "Seccomp":
			want = "2" // SECCOMP_MODE_FILTER
		case strings.HasPrefix(name, "no "):
			want = "refused"
		}
		if got != want {
			t.Errorf("confined, %s = %s, want %s", name, got, want)
		}
	}
	if n := strings.Count(string(out), "\n"); n < 28 {
		t.Errorf("the child says %d lines, want at least 28:\n%s", n, out)
	}
	t.Logf("%s", out)
}
