// Command screens draws what a terminal has shown, as `tmux capture-pane -e -p` prints it, as SVG: one screen as a
// picture, several as a film. scripts/screens uses it for those of the README. The files hold no script and ask
// for nothing; blocks and lines are shapes, so that they meet whatever the font.
//
//	go run ./docs/screens -o live.svg -title 'httpctl dashboard' SCREEN
//	go run ./docs/screens -o surge.svg -still 2 SCREEN=2s SCREEN=2s ...
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	out := flag.String("o", "", "the `FILE` to write")
	title := flag.String("title", "httpctl", "what stands in the frame, and is read out")
	still := flag.Int("still", 0, "of several, the `NUMBER` of the screen to show who wants no motion, from 1 on")
	flag.Parse()
	if err := run(*out, *title, *still, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "screens: %v\n", err)
		os.Exit(1)
	}
}

// run draws the screens of the files, each of which may say behind = how long it is shown.
func run(out, title string, still int, files []string) error {
	var film []screen
	for _, f := range files {
		s := screen{shown: 2 * time.Second}
		name, length, ok := strings.Cut(f, "=")
		if ok {
			var err error
			if s.shown, err = time.ParseDuration(length); err != nil || s.shown <= 0 {
				return fmt.Errorf("%s: want FILE=TIME, such as a.txt=2s", f)
			}
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		s.lines = parse(string(text))
		film = append(film, s)
	}
	if out == "" || len(film) == 0 || still < 0 || still > len(film) {
		return fmt.Errorf("want -o FILE and at least one screen, and -still one of them")
	}
	return os.WriteFile(out, []byte(draw(title, film, still)), 0o644)
}
