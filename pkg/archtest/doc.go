// Package archtest holds no code: its test asserts the arrows between rooms
// that DESIGN section 3 draws, each with its reason, from what the go command
// says the packages import.
package archtest
