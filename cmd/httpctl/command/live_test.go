package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httpctl/httpctl/cmd/httpctl/live"
	"github.com/httpctl/httpctl/pkg/view"
)

// paper is a buffer that the dashboard writes while a test reads.
type paper struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *paper) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

// take returns what was written since the last call.
func (p *paper) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.b.Reset()
	return p.b.String()
}

// screen runs RunDashboard in a bubble. mu guards what both sides use.
type screen struct {
	out, err      paper
	resized       chan os.Signal
	mu            sync.Mutex
	width, height int
	answers       int
	away          error
}

// set changes the screen while the dashboard runs.
func (s *screen) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *screen) live(terminal bool) Live {
	return Live{Out: &s.out, Err: &s.err, Format: view.FormatTable, Terminal: terminal, Resized: s.resized, Now: time.Now,
		Style: func() view.Style {
			s.mu.Lock()
			defer s.mu.Unlock()
			return view.Style{Width: s.width, Height: s.height}
		}}
}

func (s *screen) fetch(context.Context, live.Request) (*view.Dashboard, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return nil, s.away
	}
	s.answers++
	return &view.Dashboard{Status: view.Status{Time: time.Now(), Interval: 10 * time.Second, Refresh: 2 * time.Second, RateNow: float64(s.answers)}}, nil
}

func TestDashboardRedrawsInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{width: 80, height: 24, resized: make(chan os.Signal)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- RunDashboard(ctx, s.live(true), s.fetch) }()
		synctest.Wait()
		if got := s.out.take(); !strings.HasPrefix(got, enterScreen+home+"httpctl") || !strings.Contains(got, "now 1.00/s") || !strings.HasSuffix(got, endOfLine+"\r\n"+clearBelow) {
			t.Errorf("first picture = %q", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		got := s.out.take()
		if !strings.HasPrefix(got, home+"httpctl") || !strings.Contains(got, "now 2.00/s") || strings.Contains(got, "\x1b[2J") {
			t.Errorf("second picture = %q", got)
		}
		if rows := strings.Count(got, "\n"); rows >= 24 {
			t.Errorf("%d line ends scroll a terminal of 24", rows)
		}
		s.set(func() { s.width, s.height = 40, 5 })
		s.resized <- syscall.SIGWINCH
		synctest.Wait()
		if got := s.out.take(); strings.Count(got, "\r\n") != 4 || s.answers != 2 {
			t.Errorf("picture after resizing = %q, %d answers", got, s.answers)
		}
		s.set(func() { s.width, s.height = 200, 24 })
		s.set(func() { s.away = errors.New("connection\x1b refused\nand more") })
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if got := s.out.take(); !strings.Contains(got, "✖ NO ANSWER since 00:00:04 (4s); this was seen at 00:00:02"+endOfLine+"\r\n  connection\\x1b refused and more") || !strings.Contains(got, "now 2.00/s") {
			t.Errorf("picture while away = %q", got)
		}
		s.set(func() { s.away = nil })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := s.out.take(); strings.Contains(got, "NO ANSWER") || !strings.Contains(got, "now 3.00/s") {
			t.Errorf("picture after recovery = %q", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("RunDashboard = %v, want nil after Ctrl-C", err)
		}
		if got := s.out.take(); got != leaveScreen {
			t.Errorf("last = %q, want the terminal restored", got)
		}
	})
}

func TestDashboardRestoresTheTerminalOnPanic(t *testing.T) {
	s := &screen{width: 80, height: 24}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic came through")
			}
		}()
		live := s.live(true)
		live.Style = func() view.Style { panic("drawing") }
		_ = RunDashboard(t.Context(), live, s.fetch)
	}()
	if got := s.out.String(); !strings.HasSuffix(got, leaveScreen) {
		t.Errorf("after a panic the screen has %q", got)
	}
}

func TestDashboardOnAPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{width: 80}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- RunDashboard(ctx, s.live(false), s.fetch) }()
		time.Sleep(25 * time.Second)
		synctest.Wait()
		got := s.out.take()
		if strings.Count(got, "httpctl  ") != 3 || strings.Contains(got, "\x1b") {
			t.Errorf("25 s at 10 s = %q, want three plain dashboards", got)
		}
		s.set(func() { s.away = errors.New("gone") })
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := s.out.take(); got != "" {
			t.Errorf("while away stdout has %q", got)
		}
		s.set(func() { s.away = nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got, want := s.err.take(), "httpctl: NO ANSWER since 00:00:30 (0s); this was seen at 00:00:20\ngone\nhttpctl: the aggregator answers again after 20s\n"; got != want {
			t.Errorf("stderr = %q, want %q", got, want)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("RunDashboard = %v", err)
		}
	})
}

func TestDashboardFirstErrorIsReturned(t *testing.T) {
	s := &screen{away: errors.New("gone")}
	if err := RunDashboard(t.Context(), s.live(true), s.fetch); err != s.away || s.out.String() != "" {
		t.Errorf("RunDashboard = %v with %q, want the error and nothing drawn", err, s.out.String())
	}
}

func TestLiveOfAWorld(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		terminal bool
		term     string
		format   view.Format
		once     bool
		want     bool
	}{
		{true, "xterm", view.FormatTable, false, true}, {false, "xterm", view.FormatTable, false, false},
		{true, "dumb", view.FormatTable, false, false}, {true, "xterm", view.FormatJSON, false, false}, {true, "xterm", view.FormatTable, true, false},
	} {
		b.world.size = func() (int, int, bool) { return 80, 24, c.terminal }
		b.env["TERM"] = c.term
		if got := b.world.live(c.format, c.once).Terminal; got != c.want {
			t.Errorf("live(%+v).Terminal = %v, want %v", c, got, c.want)
		}
	}
}

// TestFullLinesKeepTheirEnd: with wrapping off the cursor stays on the last column, which clearing to the end of the line would wipe.
func TestFullLinesKeepTheirEnd(t *testing.T) {
	s := &screen{width: 30, height: 24}
	ctx, cancel := context.WithCancel(t.Context())
	d, _ := s.fetch(ctx, live.Request{})
	l := &loop{Live: s.live(true), last: dashboard{d}}
	cancel()
	if err := l.show(); err != nil {
		t.Fatal(err)
	}
	full := 0
	for _, line := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(s.out.String(), home), "\r\n"+clearBelow), "\r\n") {
		text, cleared := strings.CutSuffix(line, endOfLine)
		if width := view.Columns(text); width == 30 {
			full++
			if cleared {
				t.Errorf("a full line is cleared at its end: %q", line)
			}
		}
	}
	if full == 0 {
		t.Errorf("no line is full: %q", s.out.String())
	}
}

// TestWatch: a list is drawn again in place under a line of its own, or printed again below on a pipe.
func TestWatch(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := &screen{width: 50, height: 6}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() {
				done <- show(ctx, s.live(terminal), func(context.Context) (picture, error) {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.answers++
					return &watched{text: fmt.Sprintf("HOST\nanswer %d\nb\nc\nd\ne\n", s.answers), at: time.Now(), again: 5 * time.Second}, s.away
				})
			}()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			want := enterScreen
			for i := 1; i <= 2; i++ {
				if terminal {
					text := fmt.Sprintf("every 5s   2000-01-01 00:00:%02d UTC   q ends\n\nHOST\nanswer %d\nb\nand 3 lines in a taller terminal\n", i*5-5, i)
					want += home + strings.TrimSuffix(strings.ReplaceAll(text, "\n", endOfLine+"\r\n"), "\r\n")
				} else {
					want = strings.TrimPrefix(want, enterScreen) + fmt.Sprintf("HOST\nanswer %d\nb\nc\nd\ne\n\n", i)
				}
			}
			got := s.out.take()
			if got != want {
				t.Errorf("terminal %v: wrote\n%q\nwant\n%q", terminal, got, want)
			}
			s.set(func() { s.away = errors.New("gone") })
			time.Sleep(5 * time.Second)
			synctest.Wait()
			if got := s.out.take(); terminal != strings.Contains(got, "NO ANSWER since 00:00:10") {
				t.Errorf("terminal %v: while away %q", terminal, got)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
