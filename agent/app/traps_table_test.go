package app

import (
	"fmt"
	"strings"

	"github.com/httpctl/httpctl/pkg/exchange"
)

func get(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: example.org\r\n\r\n"
}

func post(path, fields, body string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: example.org\r\n" + fields + "\r\n" + body
}

func answer(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

func inChunks(status int, parts ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n", status)
	for _, p := range append(parts, "") {
		fmt.Fprintf(&b, "%x\r\n%s", len(p), p)
		if p != "" {
			b.WriteString("\r\n")
		}
	}
	b.WriteString("\r\n")
	return b.String()
}

// likeRequest and likeResponse are body text that looks like a message.
var likeRequest, likeResponse = get("/inside"), answer(299, "")

type counts = map[exchange.Counter]uint64

// traps are read by TestTraps. In each, every status occurs once, so that a shifted pair shows.
var traps = []trap{
	// 1: loss, in bodies that look like messages.
	{name: "keep-alive", of: 1, what: "three exchanges, for gaps of every kind between and within them", want: []string{
		"GET /1 example.org 0/38 = 201 3/40 complete",
		"GET /2 example.org 0/38 = 202 0/37 complete",
		"GET /3 example.org 0/38 = 203 5/42 complete",
	}, say: []message{
		up(get("/1")), down(answer(201, "one")), up(get("/2")), down(answer(202, "")), up(get("/3")), down(answer(203, "three")),
	}},
	{name: "messages in bodies of known length", of: 1, what: "bodies that look like messages: a gap in one costs its bytes only, and none of them is a message", want: []string{
		"GET /2 example.org 0/38 = 202 37/75 complete",
		"GET /3 example.org 0/38 = 203 0/37 complete",
		"POST /1 example.org 86/145 = 201 74/112 complete",
	}, say: []message{
		up(post("/1", "Content-Length: 86\r\n", likeRequest+likeRequest)), down(answer(201, likeResponse+likeResponse)),
		up(get("/2")), down(answer(202, likeResponse)), up(get("/3")), down(answer(203, "")),
	}},
	{name: "messages in chunks", of: 1, what: "chunks that look like messages: after a gap in the framing the next message is not sought in them", want: []string{
		"GET /2 example.org 0/38 = 202 38/100 complete",
		"GET /3 example.org 0/38 = 203 0/37 complete",
		"POST /1 example.org 43/121 = 201 74/137 complete",
	}, say: []message{
		up(post("/1", "Transfer-Encoding: chunked\r\n", "2b\r\n"+likeRequest+"\r\n0\r\n\r\n")), down(inChunks(201, likeResponse, likeResponse)),
		up(get("/2")), down(inChunks(202, "x", likeResponse)), up(get("/3")), down(answer(203, "")),
	}},
	{name: "a message until the end", of: 1, what: "a body without length that looks like a message, up to the end of the connection", want: []string{
		"GET /1 example.org 0/38 = 201 0/37 complete",
		"GET /2 example.org 0/38 = 202 46/64 complete",
	}, say: []message{
		up(get("/1")), down(answer(201, "")), up(get("/2")), down("HTTP/1.0 202 X\r\n\r\n" + likeResponse + "and so on"),
	}},
	// 3: body rules that need the request.
	{name: "HEAD, 204, 304", of: 3, what: "responses whose body is announced and absent", want: []string{
		"GET /m example.org 0/38 = 304 0/40 complete",
		"GET /n example.org 0/38 = 204 0/19 complete",
		"GET /x example.org 0/38 = 201 3/40 complete",
		"HEAD /c example.org 0/39 = 206 0/49 complete",
		"HEAD /h example.org 0/39 = 200 0/39 complete",
	}, say: []message{
		up("HEAD /h HTTP/1.1\r\nHost: example.org\r\n\r\n"), down("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
		up(get("/n")), down("HTTP/1.1 204 No\r\n\r\n"),
		up(get("/m")), down("HTTP/1.1 304 Not\r\nContent-Length: 77\r\n\r\n"),
		up("HEAD /c HTTP/1.1\r\nHost: example.org\r\n\r\n"), down("HTTP/1.1 206 Part\r\nTransfer-Encoding: chunked\r\n\r\n"),
		up(get("/x")), down(answer(201, "end")),
	}},
	{name: "interim responses", of: 3, what: "100, 102 and 103 before the final response, of one exchange and of the next", want: []string{
		"GET /2 example.org 0/38 = 202 0/77 after 1 complete",
		"POST /1 example.org 4/84 = 201 4/146 after 3 complete",
	}, say: []message{
		up(post("/1", "Expect: 100-continue\r\nContent-Length: 4\r\n", "")), down("HTTP/1.1 100 Continue\r\n\r\n"), up("body").on(),
		down("HTTP/1.1 102 Processing\r\n\r\n"), down("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"), down(answer(201, "made")),
		up(get("/2")), down("HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n"), down(answer(202, "")),
	}},
	{name: "response before the request ends", of: 3, what: "413 while the body is still sent, the rest of it after the response", want: []string{
		"GET /2 example.org 0/38 = 202 0/37 complete",
		"POST /1 example.org 20/79 = 413 8/45 complete",
	}, say: []message{
		up(post("/1", "Content-Length: 20\r\n", "0123456789")), down(answer(413, "too much")), up("0123456789").on(),
		up(get("/2")), down(answer(202, "")),
	}, count: counts{exchange.EarlyResponses: 1}},
	{name: "101", of: 3, what: "an upgrade; what follows looks like messages", want: []string{
		"GET /1 example.org 0/38 = 201 0/37 complete",
		"GET /ws example.org 0/80 = 101 0/67 upgraded",
	}, say: []message{
		up(get("/1")), down(answer(201, "")),
		up("GET /ws HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
		down("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"),
		up("\x81\x85abcd" + likeRequest), down("\x81\x05" + likeResponse),
	}, count: counts{exchange.Upgrades: 1, exchange.OtherUpgraded: 1}},
	{name: "CONNECT, requests in the clear", of: 7, what: "a tunnel by CONNECT in which HTTP is spoken", want: []string{
		"CONNECT example.org:80 example.org:80 0/57 = 200 0/28 upgraded",
		"GET /1 example.org 0/38 = 201 3/40 complete",
		"GET /2 example.org 0/38 = 202 3/40 complete",
	}, say: []message{
		up("CONNECT example.org:80 HTTP/1.1\r\nHost: example.org:80\r\n\r\n"), down("HTTP/1.1 200 Established\r\n\r\n"),
		up(get("/1")), down(answer(201, "one")), up(get("/2")), down(answer(202, "two")),
	}, count: counts{exchange.Upgrades: 1}},
	{name: "CONNECT refused", of: 3, what: "407 with a body, then 200 with a Content-Length that means nothing, then TLS", want: []string{
		"CONNECT example.org:443 example.org:443 0/59 = 407 4/41 complete",
		"CONNECT example.org:443 example.org:443 0/83 = 200 0/47 upgraded",
	}, say: []message{
		up("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"), down(answer(407, "who?")),
		up("CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\nProxy-Authorization: x\r\n\r\n"), down("HTTP/1.1 200 Established\r\nContent-Length: 7\r\n\r\n"),
		up("\x16\x03\x01\x00\x05hello"), down("\x16\x03\x03\x00\x05hello"),
	}, count: counts{exchange.Upgrades: 1, exchange.OtherUpgraded: 1}},
	// 4: pairing.
	{name: "pipelined", of: 4, what: "four requests before the first answer, one of them HEAD", want: []string{
		"GET /0 example.org 0/38 = 200 0/37 complete",
		"GET /1 example.org 0/38 = 201 3/40 complete",
		"GET /2 example.org 0/38 = 202 3/59 complete",
		"GET /4 example.org 0/38 = 205 4/41 complete",
		"HEAD /3 example.org 0/39 = 203 0/37 complete",
	}, say: []message{
		up(get("/0")), down(answer(200, "")),
		up(get("/1")), up(get("/2")), up("HEAD /3 HTTP/1.1\r\nHost: example.org\r\n\r\n"), up(get("/4")),
		down(answer(201, "one")), down(inChunks(202, "two")), down("HTTP/1.1 203 X\r\nContent-Length: 5\r\n\r\n"), down(answer(205, "four")),
	}},
	{name: "pipelined, then not", of: 4, what: "two requests at once, later ones one by one", want: []string{
		"GET /1 example.org 0/38 = 201 3/40 complete",
		"GET /2 example.org 0/38 = 202 3/40 complete",
		"GET /3 example.org 0/38 = 203 5/42 complete",
		"GET /4 example.org 0/38 = 205 4/41 complete",
	}, say: []message{
		up(get("/1")), up(get("/2")), down(answer(201, "one")), down(answer(202, "two")),
		up(get("/3")), down(answer(203, "three")), up(get("/4")), down(answer(205, "four")),
	}},
	// 5: grammar.
	{name: "chunks of all kinds", of: 5, what: "chunk extensions, trailers, leading zeros, `gzip, chunked` in one field and in two", want: []string{
		"GET /2 example.org 0/38 = 202 0/37 complete",
		"POST /1 example.org 13/129 = 201 3/117 complete",
	}, say: []message{
		up(post("/1", "Transfer-Encoding: gzip, chunked\r\n", "3;a=b;c=\"d\"\r\nabc\r\n0A \r\n0123456789\r\n000;x\r\nT: 1\r\nU: 2\r\n\r\n")),
		down("HTTP/1.1 201 X\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n0000000000000003\r\nabc\r\n0\r\nT: x\r\n\r\n"),
		up(get("/2")), down(answer(202, "")),
	}},
	{name: "forms of target", of: 5, what: "absolute-form, asterisk-form, an IPv6 literal, two Hosts, HTTP/1.0 without one, an unknown method, octets above ASCII", want: []string{
		"BREW /pot\xff café.example 0/44 = 418 0/37 complete",
		"GET / [2001:db8::1]:8080 0/44 = 203 0/37 complete",
		"GET /old  0/34 = 205 0/37 complete",
		"GET /two a.example 0/55 = 206 0/37 complete",
		"GET http://user@Example.NET:8080/1 other 0/60 = 201 0/37 complete",
		"OPTIONS * example.org 0/41 = 202 0/37 complete",
	}, say: []message{
		up("GET http://user@Example.NET:8080/1 HTTP/1.1\r\nHost: other\r\n\r\n"), down(answer(201, "")),
		up("OPTIONS * HTTP/1.1\r\nHost: example.org\r\n\r\n"), down(answer(202, "")),
		up("GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n"), down(answer(203, "")),
		up("GET /old HTTP/1.0\r\nAccept: */*\r\n\r\n"), down(answer(205, "")),
		up("GET /two HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n"), down(answer(206, "")),
		up("BREW /pot\xff HTTP/1.1\r\nHost: caf\xc3\xa9.example\r\n\r\n"), down(answer(418, "")),
	}},
	{name: "line ends", of: 5, what: "empty lines before a request, bare LF, folded fields", want: []string{
		"GET /1 example.org 0/38 = 201 0/37 complete",
		"GET /2 example.org 0/35 = 202 3/37 complete",
		"GET /3 example.org 0/61 = 203 0/37 complete",
	}, say: []message{
		up("\r\n\n" + get("/1")), down(answer(201, "")),
		up("GET /2 HTTP/1.1\nHost: example.org\n\n"), down("HTTP/1.1 202 X\nContent-Length: 3\n\ntwo"),
		up("GET /3 HTTP/1.1\r\nX: a\r\n folded\r\n\tagain\r\nHost: example.org\r\n\r\n"), down(answer(203, "")),
	}},
	{name: "equal lengths", of: 5, what: "Content-Length repeated and listed, with equal values", want: []string{
		"GET /2 example.org 0/38 = 202 0/37 complete",
		"POST /1 example.org 4/85 = 201 3/59 complete",
	}, say: []message{
		up(post("/1", "Content-Length: 4, 4\r\nContent-Length: 04\r\n", "body")), down("HTTP/1.1 201 X\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\none"),
		up(get("/2")), down(answer(202, "")),
	}},
	{name: "length of nearly 2^64", of: 5, what: "Content-Length: 18446744073709551615", want: []string{
		"POST /1 example.org 3/80 = 413 0/37 complete",
	}, say: []message{
		up(post("/1", "Content-Length: 18446744073709551615\r\n", "abc")), down(answer(413, "")),
	}, count: counts{exchange.EarlyResponses: 1}},
	{name: "chunk of nearly 2^64", of: 5, what: "a chunk of 18446744073709551615 bytes that looks like a message", want: []string{
		"GET /1 example.org 0/38 = 201 40/104 closed",
	}, say: []message{
		up(get("/1")), down("HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc" + likeResponse),
	}},
	{name: "smuggling", of: 5, what: "requests that two servers frame differently, a reason each", want: []string{
		"GET /smuggled example.org 0/45 = 202 0/37 complete",
		"POST /1 example.org 0/91 = 201 0/37 complete",
		"POST /10 example.org 1/75 = 211 0/37 complete",
		"POST /3 example.org 0/73 = 203 0/37 complete",
		"POST /4 example.org 0/74 = 205 0/37 complete",
		"POST /5  0/53 = 206 0/37 complete",
		"POST /6 example.org 0/100 = 207 0/37 complete",
		"POST /7 example.org 3/90 = 208 0/37 complete",
		"POST /8 example.org 0/63 = 209 0/37 complete",
		"POST /9 example.org 0/57 = 210 0/37 complete",
	}, say: []message{
		up(post("/1", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")), up(get("/smuggled")), down(answer(201, "")), down(answer(202, "")),
		up(post("/3", "Transfer-Encoding : chunked\r\n", "0\r\n\r\n")).bad(), down(answer(203, "")),
		up(post("/4", "Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")), down(answer(205, "")),
		up("POST /5 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), down(answer(206, "")),
		up(post("/6", "Transfer-Encoding: chunked\r\nTransfer-encoding: chunked\r\n", "0\r\n\r\n")), down(answer(207, "")),
		up(post("/7", "Transfer-Encoding\x0b: chunked\r\nContent-Length: 3\r\n", "abc")).bad(), down(answer(208, "")),
		up(post("/8", "X: a\rContent-Length: 5\r\n", "")).bad(), down(answer(209, "")),
		up("POST /9 HTTP/1.1\r\nHost: example.org\nContent-Length: 0\r\n\r\n"), down(answer(210, "")),
		up(post("/10", "Transfer-Encoding: chunked\r\n", "1\na\n0\n\n")), down(answer(211, "")),
	}, count: counts{
		exchange.SmugglingSuspects: 9, exchange.SuspectLengthAndCoding: 1, exchange.SuspectSpaceBeforeColon: 1, exchange.SuspectFoldedFraming: 1,
		exchange.SuspectCodingInOld: 1, exchange.SuspectChunkedTwice: 1, exchange.SuspectDisguisedName: 1, exchange.SuspectBareCR: 1,
		exchange.SuspectMixedLineEnds: 1, exchange.SuspectChunkFraming: 1,
	}},
	{name: "unframed: differing lengths", of: 5, what: "two Content-Lengths: the body, which looks like a request, has no known end", want: []string{
		"POST /1 example.org 0/77 = 400 0/37 lost",
	}, say: []message{up(post("/1", "Content-Length: 4\r\nContent-Length: 5\r\n", "body"+likeRequest)), down(answer(400, ""))},
		count: counts{exchange.SmugglingSuspects: 1, exchange.SuspectDifferingLengths: 1, exchange.Malformed: 1, exchange.SkippedBytes: 47}},
	{name: "unframed: listed lengths", of: 5, what: "`Content-Length: 4, 5`", want: []string{
		"POST /1 example.org 0/61 = 400 0/37 lost",
	}, say: []message{up(post("/1", "Content-Length: 4, 5\r\n", "body"+likeRequest)), down(answer(400, ""))},
		count: counts{exchange.SmugglingSuspects: 1, exchange.SuspectDifferingLengths: 1, exchange.Malformed: 1, exchange.SkippedBytes: 47}},
	{name: "unframed: negative length", of: 5, what: "`Content-Length: -4`", want: []string{
		"POST /1 example.org 0/59 = 400 0/37 lost",
	}, say: []message{up(post("/1", "Content-Length: -4\r\n", "body"+likeRequest)), down(answer(400, ""))},
		count: counts{exchange.SmugglingSuspects: 1, exchange.SuspectInvalidLength: 1, exchange.Malformed: 1, exchange.SkippedBytes: 47}},
	{name: "unframed: length of 2^64", of: 5, what: "a Content-Length of more than 64 bits", want: []string{
		"POST /1 example.org 0/77 = 400 0/37 lost",
	}, say: []message{up(post("/1", "Content-Length: 18446744073709551616\r\n", "body")), down(answer(400, ""))},
		count: counts{exchange.SmugglingSuspects: 1, exchange.SuspectInvalidLength: 1, exchange.Malformed: 1, exchange.SkippedBytes: 4}},
	{name: "unframed: coding", of: 5, what: "a transfer coding that nobody knows", want: []string{
		"POST /1 example.org 0/68 = 501 0/37 lost",
	}, say: []message{up(post("/1", "Transfer-Encoding: xchunked\r\n", "body")), down(answer(501, ""))},
		count: counts{exchange.SmugglingSuspects: 1, exchange.SuspectUnknownCoding: 1, exchange.SuspectChunkedNotLast: 1, exchange.Malformed: 1, exchange.SkippedBytes: 4}},
	{name: "unframed: signed length", of: 5, what: "`Content-Length: +4`", want: []string{
		"POST /1 example.org 0/59 = 400 0/37 lost",
	}, say: []message{up(post("/1", "Content-Length: +4\r\n", "body"+likeRequest)), down(answer(400, ""))},
		count: counts{exchange.SmugglingSuspects: 1, exchange.SuspectInvalidLength: 1, exchange.Malformed: 1, exchange.SkippedBytes: 47}},
	{name: "unframed: chunk of 2^64", of: 5, what: "a chunk size of more than 64 bits", want: []string{
		"POST /1 example.org 0/83 = 400 0/37 lost",
	}, say: []message{up(post("/1", "Transfer-Encoding: chunked\r\n", "10000000000000000\r\n"+likeRequest)), down(answer(400, ""))},
		count: counts{exchange.SmugglingSuspects: 1, exchange.SuspectChunkFraming: 1, exchange.Malformed: 1, exchange.SkippedBytes: 46}},
	{name: "unframed: negative chunk", of: 5, what: "a chunk size of -1", want: []string{
		"POST /1 example.org 0/67 = 400 0/37 lost",
	}, say: []message{up(post("/1", "Transfer-Encoding: chunked\r\n", "-1\r\n"+likeRequest)), down(answer(400, ""))},
		count: counts{exchange.SmugglingSuspects: 1, exchange.SuspectChunkFraming: 1, exchange.Malformed: 1, exchange.SkippedBytes: 47}},
	{name: "lengths and codings of responses", of: 5, what: "Content-Length beside Transfer-Encoding, a coding that is not chunked", want: []string{
		"GET /1 example.org 0/38 = 201 3/79 complete",
		"GET /2 example.org 0/38 = 202 43/86 complete",
	}, say: []message{
		up(get("/1")), down("HTTP/1.1 201 X\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"),
		up(get("/2")), down("HTTP/1.1 202 X\r\nTransfer-Encoding: gzip\r\n\r\n" + likeResponse + "and so"),
	}},
	{name: "hosts", of: 5, what: "Host missing, empty, with port, an IPv6 literal, in other letters, with user", want: []string{
		"GET /1  0/19 = 201 0/37 complete",
		"GET /2  0/26 = 202 0/37 complete",
		"GET /3 EXAMPLE.org.:8080 0/43 = 203 0/37 complete",
		"GET /4 [2001:db8::1] 0/40 = 205 0/37 complete",
		"GET /5 user@example.org 0/43 = 206 0/37 complete",
		"GET http://[2001:db8::2]/6 [2001:db8::1]:8080 0/65 = 207 0/37 complete",
	}, say: []message{
		up("GET /1 HTTP/1.1\r\n\r\n").bad(), down(answer(201, "")), up("GET /2 HTTP/1.1\r\nHost:\r\n\r\n"), down(answer(202, "")),
		up("GET /3 HTTP/1.1\r\nHost:EXAMPLE.org.:8080\r\n\r\n"), down(answer(203, "")), up("GET /4 HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n"), down(answer(205, "")),
		up("GET /5 HTTP/1.1\r\nHost: user@example.org\r\n\r\n"), down(answer(206, "")),
		up("GET http://[2001:db8::2]/6 HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n"), down(answer(207, "")),
	}},
	{name: "control bytes", of: 5, what: "control bytes and NUL in targets, fields and reasons", want: []string{
		"GET /1\x01\x7f example.org 0/40 = 201 0/39 complete",
		"GET /2 example.org 0/45 = 202 0/37 complete",
		"GET /3 ex\x02ample.org 0/39 = 203 0/37 complete",
	}, say: []message{
		up("GET /1\x01\x7f HTTP/1.1\r\nHost: example.org\r\n\r\n").bad(), down("HTTP/1.1 201 X\x1b\x07\r\nContent-Length: 0\r\n\r\n"),
		up("GET /2 HTTP/1.1\r\nX: \x00\x08\r\nHost: example.org\r\n\r\n").bad(), down(answer(202, "")),
		up("GET /3 HTTP/1.1\r\nHost: ex\x02ample.org\r\n\r\n").bad(), down(answer(203, "")),
	}},
	{name: "methods", of: 5, what: "methods that are rare, unknown, long, in small letters", want: []string{
		"!#$%&'*+-.^_`|~ /4 example.org 0/50 = 205 0/37 complete",
		"PROPFIND /1 example.org 0/43 = 201 0/37 complete",
		"QUERY /2 example.org 4/63 = 202 0/37 complete",
		"UPDATEREDIRECTREF /5 example.org 0/52 = 206 0/37 complete",
		"get /3 example.org 0/38 = 203 0/37 complete",
	}, say: []message{
		up("PROPFIND /1 HTTP/1.1\r\nHost: example.org\r\n\r\n"), down(answer(201, "")),
		up("QUERY /2 HTTP/1.1\r\nHost: example.org\r\nContent-Length: 4\r\n\r\nwhat"), down(answer(202, "")),
		up("get /3 HTTP/1.1\r\nHost: example.org\r\n\r\n"), down(answer(203, "")),
		up("!#$%&'*+-.^_`|~ /4 HTTP/1.1\r\nHost: example.org\r\n\r\n"), down(answer(205, "")),
		up("UPDATEREDIRECTREF /5 HTTP/1.1\r\nHost: example.org\r\n\r\n"), down(answer(206, "")),
	}},
	{name: "HTTP/0.9", of: 5, what: "a request without version, a response without head", not: map[mutation]string{split: "believed in one piece only", swapped: "believed from a connection's first byte only, in its place", delayed: "as swapped"}, want: []string{
		"GET /old  0/10 = - 43/43 complete",
	}, say: []message{up("GET /old\r\n"), down("<html>" + likeResponse)}},
	// 6: what only resembles HTTP.
	{name: "RTSP", of: 6, what: "RTSP, whose bodies look like HTTP", say: []message{
		up("DESCRIBE rtsp://a/ RTSP/1.0\r\nCSeq: 1\r\n\r\n" + likeRequest), down("RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n" + likeResponse),
		up("SETUP rtsp://a/ RTSP/1.0\r\nCSeq: 2\r\n\r\n"), down("RTSP/1.0 200 OK\r\nCSeq: 2\r\n\r\n"),
	}, count: counts{exchange.OtherRTSP: 1}},
	{name: "SIP", of: 6, what: "SIP, whose bodies look like HTTP", say: []message{
		up("INVITE sip:a@b SIP/2.0\r\nVia: x\r\n\r\n" + likeRequest), down("SIP/2.0 100 Trying\r\nVia: x\r\n\r\n"),
		down("SIP/2.0 200 OK\r\nVia: x\r\n\r\n" + likeResponse), up("ACK sip:a@b SIP/2.0\r\nVia: x\r\n\r\n"),
	}, count: counts{exchange.OtherSIP: 1}},
	{name: "ICAP", of: 6, what: "ICAP, which carries HTTP heads", say: []message{
		up("REQMOD icap://a/ ICAP/1.0\r\nHost: a\r\nEncapsulated: req-hdr=0, null-body=43\r\n\r\n" + likeRequest),
		down("ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, null-body=37\r\n\r\n" + likeResponse),
	}, count: counts{exchange.OtherICAP: 1}},
	{name: "SSH on port 80", of: 6, what: "SSH where HTTP is expected", say: []message{
		down("SSH-2.0-OpenSSH_9.2\r\n"), up("SSH-2.0-OpenSSH_9.9\r\n"), up("\x00\x00\x05\xdc\x07\x14" + likeRequest), down("\x00\x00\x05\xdc\x07\x14" + likeResponse),
	}, count: counts{exchange.OtherSSH: 1}},
	{name: "TLS", of: 6, what: "TLS records with HTTP's letters in them", say: []message{
		up("\x16\x03\x01\x00\x05hello"), down("\x16\x03\x03\x00\x05hello"), up("\x17\x03\x03\x00\x2b" + likeRequest), down("\x17\x03\x03\x00\x25" + likeResponse),
	}, count: counts{exchange.OtherTLS: 1}},
	{name: "HTTP/2 preface", of: 6, what: "HTTP/2 with prior knowledge", say: []message{
		up("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"), down("\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
		up("\x00\x00\x2b\x00\x00\x00\x00\x00\x01" + likeRequest), down("\x00\x00\x25\x00\x00\x00\x00\x00\x01" + likeResponse),
	}, count: counts{exchange.OtherHTTP2: 1}},
	{name: "binary", of: 6, what: "no text at all", say: []message{
		up("\x00\x01\x02\x03" + strings.Repeat("\xfe", 70)), down("\x00\x01\x02\x03" + strings.Repeat("\xfd", 70)),
	}, count: counts{exchange.OtherUnknown: 1}},
	{name: "SMTP", of: 6, what: "SMTP in which a client says `GET / HTTP/1.1`", say: []message{
		down("220 example.org ESMTP\r\n"), up("EHLO example.org\r\n"), down("250 HELP\r\n"), up("GET / HTTP/1.1\r\n"), down("502 what?\r\n"),
	}, count: counts{exchange.OtherUnknown: 1}},
}
