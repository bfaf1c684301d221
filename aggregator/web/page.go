package web

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
)

// failureStyle is all that a page of a failure is drawn with: whoever is refused is given no file.
const failureStyle = `:root{color-scheme:light dark;font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
body{max-width:44em;margin:12vh auto 2em;padding:0 20px;background:light-dark(#f4f5f7,#0e1116);color:light-dark(#1b2028,#e7eaef)}
main{padding:24px 28px;border:1px solid light-dark(#dcdfe5,#2a313b);border-left:4px solid light-dark(#c0271d,#ff8078);border-radius:8px;background:light-dark(#fff,#161b22)}
h1{margin:0 0 12px;font-size:20px}p::first-letter{text-transform:uppercase}p,li{overflow-wrap:anywhere}.faint{color:light-dark(#57606c,#9aa4b2)}
pre{padding:10px 14px;overflow-x:auto;border-radius:6px;background:light-dark(#eef0f3,#20262f);font-size:13px}`

// failurePolicy is the policy of such a page: nothing but its style.
var failurePolicy = func() string {
	sum := sha256.Sum256([]byte(failureStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// uncertified is for people whose browser has shown no certificate.
const uncertified = `<p>Your browser has shown no certificate. On the aggregator's host:</p>
<pre>httpctl ca issue alice --out alice
openssl pkcs12 -export -in alice/alice.pem -inkey alice/alice.key -out alice.p12</pre>
<p>Import <code>alice.p12</code> into the browser, and <code>alice/ca.pem</code> as an authority for web sites; then open this page again. A browser that was asked
before, and was told to show none, asks again once it was restarted.</p>
<p>Without a certificate, forward a port, and open http://127.0.0.1:7480/:</p>
<pre>ssh -L 7480:127.0.0.1:7480 HOST</pre>
<p class="faint">The port is that of a page on loopback, <code>aggregator.web.listen: [127.0.0.1:7480]</code> of an aggregator without certificates.</p>
`

// wantsPage reports whether a person is to read the answer: it is no answer of the API, and a browser opens it.
func wantsPage(r *http.Request) bool {
	return !strings.HasPrefix(r.URL.Path, "/api/") && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// writePage sends the failure for people.
func (f *failure) writePage(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	f.headers(h)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", failurePolicy)
	hint, more := "", ""
	if f.hint != "" {
		hint = "<p>" + html.EscapeString(clean(f.hint)) + "</p>\n"
	}
	if f.code == http.StatusForbidden && r.TLS != nil && len(r.TLS.VerifiedChains) == 0 {
		more = uncertified
	}
	w.WriteHeader(f.code)
	if r.Method == http.MethodHead {
		return
	}
	_, _ = io.WriteString(w, fmt.Sprintf("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"+
		"<title>httpctl: %s</title><style>%s</style></head>\n<body><main><h1>%s</h1>\n<p>%s</p>\n%s%s</main></body></html>\n",
		html.EscapeString(http.StatusText(f.code)), failureStyle, html.EscapeString(http.StatusText(f.code)), html.EscapeString(clean(f.what)), hint, more))
}
