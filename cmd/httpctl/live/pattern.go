package live

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// pattern keeps rows: those that have the text, or a match of it as a regular expression; behind ! those
// that have not. Without a capital letter, case does not matter.
type pattern struct {
	text string // as it was typed
	not  bool
	re   *regexp.Regexp
	// plain says that the text is no regular expression and is looked for as it is.
	plain bool
}

func newPattern(text string) pattern {
	p := pattern{text: text}
	want, not := strings.CutPrefix(text, "!")
	if p.not = not; want == "" {
		return pattern{}
	}
	flags := "(?i)"
	if strings.IndexFunc(want, unicode.IsUpper) >= 0 {
		flags = ""
	}
	re, err := regexp.Compile(flags + want)
	if err != nil {
		p.plain = true
		re = regexp.MustCompile(flags + regexp.QuoteMeta(want))
	}
	p.re = re
	return p
}

// keeps reports whether a row of the text stays. There must be a pattern.
func (p pattern) keeps(text string) bool { return p.re.MatchString(text) != p.not }

// maxInput bounds what is typed or pasted: a pattern of more letters is a mistake.
const maxInput = 256

// input is a line that is being typed.
type input struct {
	prompt string
	text   string
	before string // what stood there, for Esc
	why    string // it could not be done
}

func (i *input) add(text string) {
	for _, r := range text {
		if unicode.IsPrint(r) && len(i.text)+utf8.RuneLen(r) <= maxInput {
			i.text += string(r)
		}
	}
}

func (i *input) back() {
	_, n := utf8.DecodeLastRuneInString(i.text)
	i.text = i.text[:len(i.text)-n]
}
