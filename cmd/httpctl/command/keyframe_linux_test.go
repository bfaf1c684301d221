package command

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/httpctl/httpctl/cmd/httpctl/live"
	"github.com/httpctl/httpctl/pkg/view"
)

// openPTY opens a terminal of the size: master is what a terminal emulator holds, slave what the program does.
func openPTY(t testing.TB, width, height uint16) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

// manyRows is a dashboard whose one list has so many rows.
func manyRows(n int) *view.Dashboard {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	top := view.Top{Dimension: view.Dimension{Name: "section", Title: "Sections", Keys: []string{"section"}, Filters: []string{"section"},
		Columns: []view.Measure{{Name: "hits", Unit: "{request}"}, {Name: "last_seen", Unit: "ns", Kind: view.Max}}}}
	for i := range n {
		hits := int64(n - i)
		top.Rows = append(top.Rows, view.TopRow{Keys: []string{fmt.Sprintf("example.org/section-%05d", i*7919%n)},
			Values: []view.Value{{Number: hits}, {Number: now.Add(-time.Duration(i*31%n) * time.Millisecond).UnixNano()}}})
		top.Total += hits
	}
	return &view.Dashboard{Tops: []view.Top{top}, Status: view.Status{Time: now, Interval: 10 * time.Second, Window: 2 * time.Minute, Refresh: 2 * time.Second,
		Alert: view.AlertStatus{Scope: "fleet", State: view.Normal}}}
}

// emulator is the terminal's side: it says yes to marks around frames (mode 2026), reads all that comes, as a terminal that is fast enough
// does, and tells when the last byte of each frame came.
type emulator struct {
	*os.File
	ended chan time.Time
}

func (f *emulator) read() {
	defer close(f.ended)
	const question, yes, end = "\x1b[?2026$p", "\x1b[?2026;2$y", "\x1b[?2026l"
	buffer, text := make([]byte, 64<<10), []byte(nil)
	for {
		n, err := f.Read(buffer)
		if err != nil {
			return
		}
		now := time.Now()
		text = append(text, buffer[:n]...)
		if bytes.Contains(text, []byte(question)) {
			text = bytes.Replace(text, []byte(question), nil, 1)
			_, _ = f.WriteString(yes)
		}
		if i := bytes.LastIndex(text, []byte(end)); i >= 0 {
			text = text[i+len(end):]
			f.ended <- now
		}
		text = text[max(0, len(text)-len(question)):] // what may be the begin of either
	}
}

// after writes keys, and returns when the frame that follows was read.
func (f *emulator) after(b *testing.B, keys string) time.Duration {
	time.Sleep(time.Duration(20+rand.IntN(20)) * time.Millisecond) // at another moment of the program's clocks each time
	for len(f.ended) > 0 {
		<-f.ended
	}
	start := time.Now()
	if _, err := f.WriteString(keys); err != nil {
		b.Fatal(err)
	}
	select {
	case at := <-f.ended:
		return at.Sub(start)
	case <-time.After(10 * time.Second):
		b.Fatalf("no frame after %q", keys)
		return 0
	}
}

// BenchmarkKeyToFrame is the time from the bytes of a key, written to a terminal, to the last byte of the frame that follows,
// read from it: the terminal's driver, reading the key, the list of 10,000 rows, the picture, what changed of it, and writing that.
func BenchmarkKeyToFrame(b *testing.B) {
	b.Setenv("TERM", "xterm-256color")
	for _, name := range []string{"TERM_PROGRAM", "SSH_TTY"} { // with these the program does not ask for marks
		b.Setenv(name, "")
		_ = os.Unsetenv(name)
	}
	d := manyRows(10_000)
	for _, c := range []struct{ name, before, key, undo string }{
		{"down", "", "j", ""}, {"page", "", "\x1b[6~", "\x1b[5~"}, {"sort", "", "s", ""}, {"filter", "/", "9", "\x7f"},
	} {
		b.Run("rows=10000/"+c.name, func(b *testing.B) {
			master, slave := openPTY(b, 200, 60)
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			f := &emulator{master, make(chan time.Time, 64)}
			go f.read()
			go func() {
				ended <- explore(ctx, Live{Out: slave, Keys: slave, Terminal: true, Format: view.FormatTable, Now: time.Now,
					Style: func() view.Style { return view.Style{Width: 200, Height: 60, Color: true} }},
					func(context.Context, live.Request) (*view.Dashboard, error) { return d, nil })
			}()
			time.Sleep(500 * time.Millisecond) // until the marks are agreed on
			f.after(b, "\t")                   // to the list, from the hosts
			if c.before != "" {
				f.after(b, c.before)
			}
			var times []time.Duration
			for b.Loop() {
				times = append(times, f.after(b, c.key))
				if c.undo != "" {
					f.after(b, c.undo)
				}
			}
			cancel()
			if err := <-ended; err != nil {
				b.Error(err)
			}
			slices.Sort(times)
			for _, p := range []int{50, 99} {
				b.ReportMetric(float64(times[(len(times)-1)*p/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
			}
			b.ReportMetric(0, "ns/op") // which would be the pauses
		})
	}
}
