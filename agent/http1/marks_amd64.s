#include "textflag.h"

// FIND sets bit i of AX if byte i of X0 to X3 is C, with SSE2, which every amd64 has.
#define FIND(C) \
	MOVQ $(C * 0x0101010101010101), AX \
	MOVQ AX, X4 \
	PUNPCKLQDQ X4, X4 \
	MOVOU X4, X5 \
	MOVOU X4, X6 \
	MOVOU X4, X7 \
	PCMPEQB X0, X4 \
	PCMPEQB X1, X5 \
	PCMPEQB X2, X6 \
	PCMPEQB X3, X7 \
	PMOVMSKB X4, AX \
	PMOVMSKB X5, BX \
	PMOVMSKB X6, CX \
	PMOVMSKB X7, DX \
	SHLQ $16, BX \
	SHLQ $32, CX \
	SHLQ $48, DX \
	ORQ BX, AX \
	ORQ DX, CX \
	ORQ CX, AX

// func marks(b *[64]byte) (lf, cr, colon uint64)
TEXT ·marks(SB), NOSPLIT, $0-32
	MOVQ b+0(FP), SI
	MOVOU 0(SI), X0
	MOVOU 16(SI), X1
	MOVOU 32(SI), X2
	MOVOU 48(SI), X3
	FIND(0x0a)
	MOVQ AX, lf+8(FP)
	FIND(0x0d)
	MOVQ AX, cr+16(FP)
	FIND(0x3a)
	MOVQ AX, colon+24(FP)
	RET
