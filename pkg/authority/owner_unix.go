//go:build unix

package authority

import (
	"os"
	"syscall"
)

func ownerOf(dir string) Owner {
	fi, err := os.Stat(dir)
	if err != nil {
		return Owner{}
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return Owner{}
	}
	return Owner{uid: int(st.Uid), gid: int(st.Gid), set: true}
}
