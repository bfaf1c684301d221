package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/cmd/httpctl/live"
	"github.com/httpctl/httpctl/pkg/view"
)

// Live says how RunDashboard and --watch show what they fetch.
type Live struct {
	Out io.Writer
	// Err is told, on a pipe, when the aggregator goes away and comes back.
	Err    io.Writer
	Format view.Format
	// Once shows one picture.
	Once bool
	// Terminal redraws in place. It applies to the form table only.
	Terminal bool
	// Style is asked before each picture, as a terminal may change its size.
	Style func() view.Style
	// Resized receives when it has; nil never does.
	Resized <-chan os.Signal
	// Now is the wall clock, for how long the aggregator has been away.
	Now func() time.Time
	// Filters are the columns that the question is filtered by.
	Filters []string
	// Hour answers with the rate by the minute, of the hosts that a request names, for the chart of the view with keys; nil
	// leaves it with what the dashboards hold.
	Hour func(context.Context, live.Request) (*view.Series, error)
	// Keys is the terminal whose keys are read; nil if there is none.
	Keys *os.File
}

// live is how this process shows dashboards.
func (w *world) live(format view.Format, once bool) Live {
	_, _, terminal := w.size()
	dumb := w.getenv("TERM") == "dumb"
	l := Live{
		Out: w.out, Err: w.err, Format: format, Once: once, Now: w.now, Resized: w.resized,
		Terminal: terminal && !dumb && !once && format == view.FormatTable,
		Style: func() view.Style {
			s := w.style()
			if !terminal {
				s.Width = pipeWidth
			}
			return s
		},
	}
	if l.Terminal && w.keys != nil && term.IsTerminal(int(w.keys.Fd())) {
		l.Keys = w.keys
	}
	return l
}

const (
	// pipeWidth is the width of a dashboard on a pipe: one list below the other,
	// in the width of a mail.
	pipeWidth = 100
	// leastRefresh bounds how often an aggregator can make a reader ask.
	leastRefresh = 100 * time.Millisecond
)

// Escape codes (xterm's control sequences). Lines are cut, so wrapping is off
// while the alternate screen is shown.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	endOfLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// picture is what is shown live: a dashboard, or a list that is watched.
type picture interface {
	// frame draws at most style.Height lines; trouble, if any, above it says why the picture is old.
	frame(style view.Style, trouble string) []string
	write(w io.Writer, f view.Format, style view.Style) error
	// every is how long until the next is asked for, on a terminal or a pipe.
	every(terminal bool) time.Duration
}

// dashboard is a picture.
type dashboard struct{ *view.Dashboard }

func (d dashboard) frame(s view.Style, trouble string) []string {
	return view.Frame(d.Dashboard, s, trouble)
}

func (d dashboard) write(w io.Writer, f view.Format, s view.Style) error {
	return view.WriteDashboard(w, f, s, d.Dashboard)
}

func (d dashboard) every(terminal bool) time.Duration {
	if terminal {
		return d.Status.Refresh
	}
	return d.Status.Interval
}

// RunDashboard shows the dashboards that fetch returns: where there are keys to explore them with, in the
// interactive view, else as show does. A first fetch that fails is returned.
func RunDashboard(ctx context.Context, o Live, fetch func(context.Context, live.Request) (*view.Dashboard, error)) error {
	if o.Terminal && o.Keys != nil {
		return explore(ctx, o, fetch)
	}
	return show(ctx, o, func(ctx context.Context) (picture, error) {
		d, err := fetch(ctx, live.Request{})
		if err != nil {
			return nil, err
		}
		return dashboard{d}, nil
	})
}

// show shows what fetch returns until ctx is done, which is no error.
// A first fetch that fails is returned; later ones leave the last picture with
// a line that says since when and why, and are tried again. Whatever ends it,
// a panic too, the terminal is restored. On a terminal q ends it too.
func show(ctx context.Context, o Live, fetch func(context.Context) (picture, error)) (err error) {
	d, err := fetch(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	if o.Once {
		return d.write(o.Out, o.Format, o.Style())
	}
	l := &loop{Live: o, last: d, at: o.Now()}
	var keys *terminal
	var quit <-chan struct{}
	var stop <-chan os.Signal
	if o.Terminal {
		if o.Keys != nil {
			keys = openTerminal(o.Keys)
		}
		if keys != nil {
			keys.Take()
			defer keys.Give()
			quit, stop = keys.Quit(), keys.Stop()
		}
		if _, err := io.WriteString(o.Out, enterScreen); err != nil {
			return err
		}
		defer func() {
			if _, e := io.WriteString(o.Out, leaveScreen); err == nil {
				err = e
			}
		}()
	}
	if err := l.show(); err != nil {
		return err
	}
	timer := time.NewTimer(l.wait())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-quit:
			return nil
		case <-stop:
			if _, err := io.WriteString(o.Out, leaveScreen); err != nil {
				return err
			}
			keys.Suspend()
			if _, err := io.WriteString(o.Out, enterScreen); err != nil {
				return err
			}
			if err := l.show(); err != nil {
				return err
			}
			timer.Reset(0) // the picture is as old as the pause was long
		case <-o.Resized:
			if o.Terminal {
				if err := l.show(); err != nil {
					return err
				}
			}
		case <-timer.C:
			d, err := fetch(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err := l.update(d, err); err != nil {
				return err
			}
			timer.Reset(l.wait())
		}
	}
}

// loop is the state of what is shown live.
type loop struct {
	Live
	last picture
	at   time.Time // when last came
	lost time.Time // since when there is no answer; zero: there is
	why  string
}

// update takes the outcome of a fetch and shows it.
func (l *loop) update(d picture, err error) error {
	switch {
	case err == nil:
		if !l.lost.IsZero() && !l.Terminal {
			fmt.Fprintf(l.Err, "httpctl: the aggregator answers again after %s\n", l.Now().Sub(l.lost).Round(time.Second))
		}
		l.last, l.at, l.lost = d, l.Now(), time.Time{}
	case l.lost.IsZero():
		l.lost, l.why = l.Now(), why(err)
		if !l.Terminal {
			fmt.Fprintf(l.Err, "httpctl: %s\n", errorText(errors.New(l.trouble())))
		}
	default:
		l.why = why(err)
	}
	if l.Terminal || err == nil {
		return l.show()
	}
	return nil
}

func why(err error) string {
	var away *client.UnreachableError
	if errors.As(err, &away) {
		return away.Address + ": " + away.Reason
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

// trouble says that, since when and why there is no answer, "" if there is.
func (l *loop) trouble() string {
	if l.lost.IsZero() {
		return ""
	}
	location := l.Style().Location
	if location == nil {
		location = time.UTC
	}
	return fmt.Sprintf("NO ANSWER since %s (%s); this was seen at %s\n%s", l.lost.In(location).Format("15:04:05"),
		l.Now().Sub(l.lost).Round(time.Second), l.at.In(location).Format("15:04:05"), l.why)
}

// show draws the last picture: in place on a terminal, else below the one before.
func (l *loop) show() error {
	if !l.Terminal {
		if err := l.last.write(l.Out, l.Format, l.Style()); err != nil {
			return err
		}
		if l.Format == view.FormatTable || l.Format == view.FormatWide {
			_, err := io.WriteString(l.Out, "\n")
			return err
		}
		return nil
	}
	style := l.Style()
	lines := l.last.frame(style, l.trouble())
	// One write, over the old picture: nothing is cleared before it is drawn anew.
	var b strings.Builder
	b.WriteString(home)
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line)
		// After a full line the cursor stands on its last column, and would clear that.
		if style.Width == 0 || view.Columns(line) < style.Width {
			b.WriteString(endOfLine)
		}
	}
	if len(lines) < style.Height {
		b.WriteString("\r\n" + clearBelow)
	}
	_, err := io.WriteString(l.Out, b.String())
	return err
}

// wait is how long until the next question.
func (l *loop) wait() time.Duration {
	return max(l.last.every(l.Terminal), leastRefresh)
}
