package command

import (
	"context"
	"fmt"
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

// quietAfter is how long nothing comes from the program before its picture counts as whole.
const quietAfter = 40 * time.Millisecond

// BenchmarkKeyToFrame is the time from the bytes of a key, written to a terminal, to the last byte of the picture that follows,
// read from it: the terminal's driver, reading the key, the list of 10,000 rows, the picture, what changed of it, and writing that.
func BenchmarkKeyToFrame(b *testing.B) {
	b.Setenv("TERM", "xterm-256color")
	d := manyRows(10_000)
	for _, c := range []struct{ name, before, key string }{
		{"down", "", "j"}, {"page", "", "\x1b[6~"}, {"sort", "", "s"}, {"filter", "/", "9"},
	} {
		b.Run("rows=10000/"+c.name, func(b *testing.B) {
			master, slave := openPTY(b, 200, 60)
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- explore(ctx, Live{Out: slave, Keys: slave, Terminal: true, Format: view.FormatTable, Now: time.Now,
					Style: func() view.Style { return view.Style{Width: 200, Height: 60, Color: true} }},
					func(context.Context, live.Request) (*view.Dashboard, error) { return d, nil })
			}()
			// What comes is only counted, as a terminal that is fast enough does. Who reads says when.
			came := make(chan time.Time, 1024)
			go func() {
				defer close(came)
				buffer := make([]byte, 64<<10)
				for {
					if _, err := master.Read(buffer); err != nil {
						return
					}
					came <- time.Now()
				}
			}()
			last := func(patience time.Duration) (at time.Time) {
				timer := time.NewTimer(patience)
				defer timer.Stop()
				for {
					select {
					case at = <-came:
						timer.Reset(quietAfter)
					case <-timer.C:
						return at
					}
				}
			}
			press := func(key string) time.Duration {
				start := time.Now()
				if _, err := master.WriteString(key); err != nil {
					b.Fatal(err)
				}
				at := last(5 * time.Second)
				if at.IsZero() {
					b.Fatalf("no picture after %q", key)
				}
				return at.Sub(start)
			}
			last(5 * time.Second)
			press("\t") // to the list, from the hosts
			if c.before != "" {
				press(c.before)
			}
			var times []time.Duration
			for b.Loop() {
				times = append(times, press(c.key))
				if c.before != "" {
					press("\x7f")
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
			b.ReportMetric(0, "ns/op") // which would be the pause
		})
	}
}
