/* Around the questions: where answers are collected and how they are shown. */
#include <stdio.h>
#include <linux/types.h>
#include <linux/mlx5/mlx5_ifc.h>
#include <linux/mlx5/device.h>
#include <linux/mlx5/qp.h>
#include <linux/mlx5/cq.h>
#if __has_include(<mlx5_ifc_vhca_event.h>)
#include <mlx5_ifc_vhca_event.h>
#endif

struct constant { unsigned id; unsigned long long value; };

/* The bits of a structure, byte by byte, the high bit of a byte first. */
static u8 bits[64];

static inline void show_bits(unsigned id)
{
	printf("bits %u", id);
	for (unsigned bit = 0; bit < 8 * sizeof(bits); bit++)
		if (bits[bit / 8] & (0x80 >> bit % 8))
			printf(" %u", bit);
	printf("\n");
	memset(bits, 0, sizeof(bits));
}

/* Which bits of a structure a function of the kernel looks at: those that, set
 * alone, make it answer something else than zero. */
#define READ_BY(type, function)                                          \
	for (unsigned bit = 0; bit < 8 * sizeof(type); bit++) {          \
		type it;                                                 \
		memset(&it, 0, sizeof(it));                              \
		((u8 *)&it)[bit / 8] = 0x80 >> bit % 8;                  \
		if (function(&it))                                       \
			bits[bit / 8] |= 0x80 >> bit % 8;                \
	}

/* All bits from one member of a structure through another. */
#define BYTES(type, first, last)                       \
	memset(bits + offsetof(type, first), 0xff,     \
	       offsetof(type, last) + sizeof(((type *)0)->last) - offsetof(type, first))

/* Which bits mlx5_cq_arm sets, in the doorbell record's second word or in the
 * doorbell, for these values. */
static inline void arm(unsigned sn, u32 cmd, u32 ci, u32 cqn, bool record)
{
	u8 page[4096] = { 0 };
	__be32 word = 0;
	struct mlx5_core_cq cq = { .cqn = cqn, .arm_sn = sn, .arm_db = &word };

	mlx5_cq_arm(&cq, cmd, page, ci);
	if (record)
		memcpy(bits + 4, &word, 4);
	else
		memcpy(bits, page + MLX5_CQ_DOORBELL, 8);
}

/* Which bits mlx5_cq_set_ci sets in the doorbell record. */
static inline void set_ci(u32 ci)
{
	__be32 word = 0;
	struct mlx5_core_cq cq = { .set_ci_db = &word, .cons_index = ci };

	mlx5_cq_set_ci(&cq);
	memcpy(bits, &word, 4);
}
