package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/httpctl/httpctl/pkg/ask"
	"github.com/httpctl/httpctl/pkg/security"
	"github.com/httpctl/httpctl/pkg/view"
)

// failure is an answer that is none.
type failure struct {
	code              int
	what, where, hint string
}

func (f *failure) Error() string { return f.what }

func fail(code int, where, hint, format string, args ...any) *failure {
	return &failure{code, fmt.Sprintf(format, args...), where, hint}
}

// failureOf turns any error around.
func failureOf(err error) *failure {
	var f *failure
	var fault *ask.Fault
	var column *view.ColumnError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &fault):
		what := fault.What
		switch {
		case what == "":
			what = fmt.Sprintf("the parameter %s cannot be %q", fault.Where, fault.Value)
		case fault.Value != "":
			what = fmt.Sprintf("%s=%s: %s", fault.Where, fault.Value, what)
		}
		return &failure{http.StatusBadRequest, words(what), fault.Where, words(fault.Hint)}
	case errors.As(err, &column):
		return &failure{http.StatusBadRequest, fmt.Sprintf("there is no column %q", column.Column), "columns", "there are: " + strings.Join(column.There, ", ")}
	}
	s := status.FromContextError(err)
	if s.Code() == codes.Unknown {
		s = status.Convert(err)
	}
	f = &failure{code: http.StatusInternalServerError, what: s.Message()}
	switch s.Code() {
	case codes.InvalidArgument:
		f.code = http.StatusBadRequest
	case codes.NotFound:
		f.code = http.StatusNotFound
	case codes.PermissionDenied, codes.Unauthenticated:
		f.code = http.StatusForbidden
	case codes.Unavailable, codes.ResourceExhausted:
		f.code, f.hint = http.StatusServiceUnavailable, "try again in a moment"
	case codes.DeadlineExceeded, codes.Canceled:
		f.code, f.hint = http.StatusGatewayTimeout, "ask for less time, or again when fewer ask"
		f.what = fmt.Sprintf("there was no answer within %s", answerWait)
	}
	return f
}

// words leaves out the dashes of the command line's flags.
func words(text string) string {
	out := strings.ReplaceAll(" "+text, " --", " ")
	return out[1:]
}

// body is the JSON of a failure, in one line.
func (f *failure) body() []byte {
	type inner struct {
		What  string `json:"what"`
		Where string `json:"where"`
		Hint  string `json:"hint"`
	}
	b, err := json.Marshal(struct { // which escapes < > &
		Error inner `json:"error"`
	}{inner{clean(f.what), clean(f.where), clean(f.hint)}})
	if err != nil {
		panic(err) // strings always encode
	}
	return b
}

// clean keeps an error readable, whatever names of hosts, lists or parameters it speaks of.
func clean(text string) string {
	const most = 2000
	if len(text) > most {
		for text = text[:most]; len(text) > 0 && !utf8.ValidString(text[max(0, len(text)-3):]); {
			text = text[:len(text)-1]
		}
		text += "..."
	}
	return security.CleanText(text)
}

// headers sets what every failure is sent with.
func (f *failure) headers(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Encoding")
	if f.code == http.StatusServiceUnavailable {
		h.Set("Retry-After", "2")
	}
}

// write sends the failure.
func (f *failure) write(w http.ResponseWriter) {
	h := w.Header()
	f.headers(h)
	h.Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(f.code)
	_, _ = io.WriteString(w, string(f.body())+"\n")
}
