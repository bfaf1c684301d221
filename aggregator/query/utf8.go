package query

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// sendable is s as an answer can carry it. Keys and names come from traffic and agents, and hold any
// bytes; protobuf refuses to send an answer with a single one that is not UTF-8.
func sendable(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// sendables is sendable for a list, which is not changed.
func sendables(list []string) []string {
	i := slices.IndexFunc(list, func(s string) bool { return !utf8.ValidString(s) })
	if i < 0 {
		return list
	}
	list = slices.Clone(list)
	for ; i < len(list); i++ {
		list[i] = sendable(list[i])
	}
	return list
}
