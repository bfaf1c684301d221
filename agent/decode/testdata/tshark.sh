#!/bin/sh
# Makes testdata/segments.tsv: for each capture of a directory the number of
# frames with a TCP payload, and the bytes of all payloads, as tshark decodes them.
# usage: tshark.sh DIRECTORY >segments.tsv    (made with tshark 4.0.17)
set -eu
export HOME=/nonexistent
for f in "$1"/*.pcap "$1"/*.pcapng; do
	tshark -n -r "$f" --enable-heuristic teredo_udp -o tcp.desegment_tcp_streams:FALSE \
		-Y 'tcp.len > 0' -T fields -E aggregator=, -e tcp.len 2>/dev/null |
		awk -v f="$(basename "$f")" '{ n++; split($1, v, ","); for (i in v) b += v[i] } END { print f "\t" n + 0 "\t" b + 0 }' || true
done
