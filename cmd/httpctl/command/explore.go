package command

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/httpctl/httpctl/cmd/httpctl/client"
	"github.com/httpctl/httpctl/cmd/httpctl/live"
	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/view"
)

// frames bounds how often a second the terminal is drawn, where paced cannot choose: a key then waits 14 ms for
// its picture at most.
const frames = 70

// narrow adds to a question of the command line what was gone into on the screen.
func narrow(q client.Question, r live.Request) client.Question {
	for _, f := range r.Filters {
		q.Filters = append(q.Filters, client.Filter{Column: f.Column, Values: []string{f.Value}})
	}
	q.Limit = r.Rows
	if !r.Since.IsZero() {
		q.Since, q.Until = r.Since, r.Until
		q.Live = q.Until.IsZero()
	}
	return q
}

// hourOf asks for the rate by the minute. Of the filters only hosts count, as for the rate of a dashboard.
func hourOf(c *client.Client, q client.Question) func(context.Context, live.Request) (*view.Series, error) {
	q.Filters = slices.Clip(slices.DeleteFunc(slices.Clone(q.Filters), func(f client.Filter) bool { return f.Column != "host" }))
	q.Until = time.Time{}
	return func(ctx context.Context, r live.Request) (*view.Series, error) {
		return c.Series(ctx, "minute", narrow(q, r))
	}
}

// explore runs the interactive view until ctx is done, which is no error, or somebody ends it. The terminal
// is restored whatever ends it, a panic in the view or in a fetch too; a panic is an error.
func explore(ctx context.Context, o Live, fetch func(context.Context, live.Request) (*view.Dashboard, error)) error {
	d, err := fetch(ctx, live.Request{})
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	style := o.Style()
	one := latest{ctx: ctx}
	defer one.stop()
	var hour func(live.Request) (*view.Series, error)
	if o.Hour != nil {
		hour = func(r live.Request) (*view.Series, error) { return o.Hour(ctx, r) }
	}
	model := live.New(live.Options{
		Ask: func(r live.Request) (*view.Dashboard, error) {
			if r.Beside {
				return fetch(ctx, r)
			}
			return fetch(one.begin(), r)
		},
		Hour: hour,
		Why:  why,
		When: func(text string, now time.Time) (time.Time, error) {
			t, err := ask.Moment("since", text, now, style.Location)
			if err != nil { // there is no flag here
				err = errors.New(strings.TrimPrefix(err.Error(), "--since "))
			}
			return t, err
		},
		Style:   style,
		Filters: o.Filters,
		Suspend: tea.Exec(stopped{}, func(error) tea.Msg { return live.Resumed{} }),
	}, d, o.Now())
	var p *tea.Program
	p = tea.NewProgram(&paced{Model: model, now: time.Now, ticker: func() resetter { return tickerOf(p) }}, tea.WithInput(o.Keys), tea.WithOutput(o.Out), tea.WithFPS(frames), tea.WithWindowSize(style.Width, style.Height),
		tea.WithoutSignalHandler(), // Main's cancels ctx
		tea.WithFilter(narrowLetters))
	defer context.AfterFunc(ctx, p.Quit)()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTSTP) // kill -TSTP is as Ctrl-Z, which is a key here
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				p.Send(tea.KeyPressMsg{Code: 'z', Mod: tea.ModCtrl})
			case <-ended:
				return
			}
		}
	})
	_, err = p.Run()
	signal.Stop(stop)
	close(ended)
	watch.Wait()
	if errors.Is(err, tea.ErrProgramPanic) {
		return errors.New("the view failed, and its stack is above: please report it. httpctl dashboard --once shows the same numbers")
	}
	return err
}

// narrowLetters keeps the program from measuring letters as some terminals can be told to (mode 2027): the
// view measures them as most do.
func narrowLetters(_ tea.Model, msg tea.Msg) tea.Msg {
	if m, ok := msg.(tea.ModeReportMsg); ok && m.Mode == ansi.ModeUnicodeCore {
		return nil
	}
	return msg
}

// latest is a context for the newest of several questions, of which only that one's answer is waited for.
type latest struct {
	ctx    context.Context
	mu     sync.Mutex
	cancel context.CancelFunc
}

func (l *latest) begin() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
	var ctx context.Context
	ctx, l.cancel = context.WithCancel(l.ctx)
	return ctx
}

func (l *latest) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
}

// stopped stops this process until it continues. The program has given the terminal back before.
type stopped struct{}

// Run implements tea.ExecCommand.
func (stopped) Run() error {
	goesOn := make(chan os.Signal, 1)
	signal.Notify(goesOn, syscall.SIGCONT)
	defer signal.Stop(goesOn)
	if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
		return err
	}
	<-goesOn // the process may run on for a moment
	return nil
}

func (stopped) SetStdin(io.Reader)  {}
func (stopped) SetStdout(io.Writer) {}
func (stopped) SetStderr(io.Writer) {}
